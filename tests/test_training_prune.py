"""Pruning against naive twins, and the stage on a pack: losses told, a folder that loads, refusals."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_packs import VOCAB, write_pack
from test_training_loop import ToyRows, tokenizer_folder  # noqa: F401 - a fixture

from glm_data.cli.shell import run
from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.loading import PackedRows
from glm_data.model.attention import PieceAttention
from glm_data.model.config import ModelConfig
from glm_data.model.model import GLM, build
from glm_data.model.store import Description, Quantization, read_description, read_tensors, save_model
from glm_data.training import prune as pruning
from glm_data.training.batches import flatten
from glm_data.training.losses import measure
from glm_data.training.options import PruneOptions
from glm_data.training.prune import input_norms, keep, prune_stage

CONFIG = ModelConfig(vocab=VOCAB, layers=2, hidden=16, heads=2, ffn=24)


def naive(row, groups, zeros):
    """The columns that stay, number by number: in each group all but the ``zeros`` least, the last of equal ones."""
    stays = [True] * len(row)
    for first in range(0, len(row), groups):
        order = sorted(range(first, min(first + groups, len(row))), key=lambda column: (row[column], -column))
        for column in order[:zeros]:
            stays[column] = False
    return stays


@given(st.lists(st.integers(0, 5), min_size=24, max_size=24), st.sampled_from([0.1, 0.25, 0.5, 0.9]))
@settings(deadline=None, max_examples=60)
def test_what_stays_is_what_the_naive_twin_says(numbers, sparsity):
    scores = torch.tensor(numbers, dtype=torch.float32).reshape(2, 12)
    assert keep(scores, "2:4", sparsity).tolist() == [naive(row, 4, 2) for row in scores.tolist()]
    zeros = round(12 * sparsity)
    assert keep(scores, "unstructured", sparsity).tolist() == [naive(row, 12, zeros) for row in scores.tolist()]


def test_norms_are_those_of_each_matrixs_inputs():
    model, rows = build(CONFIG, 0), ToyRows(3)
    found = input_norms(model, rows, np.array([2, 0]))
    assert len(found) == 2 * 4
    batches = [flatten(rows.batch([row])) for row in (2, 0)]
    inputs = []
    for batch in batches:
        x = model.word_embeddings(batch.tokens_T)
        inputs.append(model.layers[0].input_layernorm(x).detach())
    expected = torch.cat(inputs).norm(dim=0)
    assert torch.allclose(found["layers.0.attention.query_key_value"], expected, rtol=1e-5)
    inner = []
    handle = model.layers[1].mlp.dense_4h_to_h.register_forward_pre_hook(lambda _, given: inner.append(given[0]))
    for batch in batches:
        model(batch.tokens_T, batch.positions_T, PieceAttention(batch.groups, 0.0))
    handle.remove()
    assert torch.allclose(found["layers.1.mlp.dense_4h_to_h"], torch.cat(inner).detach().norm(dim=0), rtol=1e-5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer_folder):  # noqa: F811
    folder = tmp_path_factory.mktemp("prune")
    (folder / "model").mkdir()
    for name in ("tokenizer.model", "tokenizer.json"):
        shutil.copyfile(tokenizer_folder / name, folder / "model" / name)
    save_model(folder / "model", build(CONFIG, 0).state_dict(), Description(model=CONFIG, tokenizer="made up"))
    return folder / "model", write_pack(folder / "pack", rows=10)


@pytest.mark.parametrize("score", ["magnitude", "activation"])
def test_stage_writes_a_model_and_tells_the_loss(tmp_path, folders, score):
    model, pack = folders
    options = PruneOptions(score=score, calibration_rows=3, held_out_rows=2)
    success = prune_stage(model, pack, tmp_path / "out", options)
    before, after = read_tensors(model), read_tensors(tmp_path / "out")
    rows, network = PackedRows.open(pack), GLM(CONFIG)
    network.load_state_dict(before)
    norms = input_norms(network, rows, np.array([0, 3, 6]))
    for name, tensor in before.items():
        matrix = name.removesuffix(".weight")
        if matrix in norms:
            scores = tensor.abs() * (norms[matrix] if score == "activation" else 1)
            stays = torch.tensor([naive(row, 4, 2) for row in scores.tolist()])
            assert torch.equal(after[name], tensor * stays), name
        else:
            assert torch.equal(after[name], tensor), name
    held_out = np.array([2, 7])
    assert success.facts["loss_before"] == measure(network, rows, held_out).means()
    network.load_state_dict(after)
    assert success.facts["loss_after"] == measure(network, rows, held_out).means()
    assert success.facts["loss_after"] != success.facts["loss_before"]
    assert success.facts["zeros"] == 0.5
    assert read_description(tmp_path / "out").training["pruning"] == success.facts
    assert prune_stage(model, pack, tmp_path / "out", options) == success


def test_command_tells_the_loss_and_a_rise_trips_the_guard_rail(tmp_path, folders, monkeypatch, capsys):
    model, pack = folders
    words = ["prune", str(model), str(pack), "--pattern", "unstructured", "--sparsity", "0.25"]
    words += ["--held-out-rows", "2", "--calibration-rows", "2", "--json"]
    assert run([*words, "--out", str(tmp_path / "out")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["facts"]["zeros"] == pytest.approx(0.25)
    assert "25.0% of the layers' weights are zero" in said["checks"][0]["sentence"]
    monkeypatch.setattr(pruning, "WORST_RISE", -9.0)
    assert run([*words, "--out", str(tmp_path / "tripped")]) == 3


def test_what_cannot_be_pruned_is_refused(tmp_path, folders):
    model, pack = folders
    for bad in ({"sparsity": 1.0}, {"held_out_rows": 0}, {"calibration_rows": 0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            PruneOptions(**bad)
    with pytest.raises(UsageError, match="held_out_rows"):
        prune_stage(model, pack, tmp_path / "out", PruneOptions(held_out_rows=10))
    with pytest.raises(InputError, match="2:4"):
        keep(torch.ones(2, 6), "2:4", 0.5)
    description = Description(model=CONFIG, tokenizer="made up")
    for change, words in (
        ({"tokenizer": "other"}, "another tokenizer"),
        ({"quantization": Quantization()}, "quantised"),
    ):
        shutil.copytree(model, tmp_path / words)
        save_model(tmp_path / words, read_tensors(model), msgspec.structs.replace(description, **change))
        with pytest.raises(UsageError, match=words):
            prune_stage(tmp_path / words, pack, tmp_path / "out", PruneOptions(held_out_rows=2))
