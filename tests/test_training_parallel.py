"""All layouts against one process, in one fork of eight; checkpoints that another layout takes up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_job import CONFIG, LAYOUTS, OPTIONS, STEPS
from test_training_loop import tokenizer_folder  # noqa: F401 - a fixture

from glm_data.errors import ConfigError
from glm_data.model.model import build
from glm_data.training import sharded
from glm_data.training.parallel import Layout, SplitHalves, _check, with_whole_matrices


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    unfinished = folder / "eight" / "step-00000009.unfinished"  # what a run killed while saving leaves
    unfinished.mkdir(parents=True)
    (unfinished / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("parallel_job.py")), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    errors = "\n".join(path.read_text() for path in folder.glob("error *"))
    assert done.returncode == 0, errors + done.stderr[-2000:]
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_one_process_in_loss_and_gradient_norm(job, name):
    _, results = job
    expected = results["four layers, single" if name.startswith("four") else "single"]
    found = results[name]
    assert len(found) == (STEPS - 3 if name.startswith("resumed") else STEPS)
    for (loss, norm), (loss_one, norm_one) in zip(found, expected[-len(found) :], strict=True):
        assert loss == pytest.approx(loss_one, abs=1e-5)
        assert norm == pytest.approx(norm_one, rel=1e-5)
    assert found[-1][0] < results["single"][0][0] - 0.2, "it learns"


def test_checkpoint_of_eight_is_read_as_a_plain_model(job):
    folder, _ = job
    eight, one = (sharded.read_whole(sharded.find_sharded(folder / name)[0], CONFIG) for name in ("eight", "one"))
    start = build(CONFIG, 3)
    for (name, a), b, c in zip(eight.named_parameters(), one.parameters(), start.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-2), name
        assert name.endswith("norm.weight") or not torch.equal(a, c), name
    assert [path.name for path in sharded.find_sharded(folder / "eight")] == ["step-00000003"]


def test_halves_are_parted_and_joined():
    model = build(CONFIG, 0)
    fused = model.layers[0].mlp.dense_h_to_4h
    x = torch.randn(3, CONFIG.hidden)
    split = SplitHalves(fused)
    assert torch.allclose(split(x), fused(x), atol=1e-6)
    whole = with_whole_matrices({f"a.{name}": p.detach() for name, p in split.named_parameters()} | {"b": x})
    assert torch.equal(whole["a.weight"], fused.weight)
    assert torch.equal(whole["a.bias"], fused.bias)
    assert set(whole) == {"a.weight", "a.bias", "b"}


@pytest.mark.parametrize(
    ("layout", "change", "words"),
    [
        (Layout(tensor=3), {}, "multiples of tensor 3"),
        (Layout(shard=3), {}, "multiple of 3 data-parallel parts"),
        (Layout(pipeline=2), {"micro_rows": 8}, "1 microbatches for 2 pipeline stages"),
        (Layout(), {"optimizer": "muon"}, "optimizer is adamw"),
        (Layout(shard=2), {"teacher": "run/train"}, "no teacher"),
        (Layout(replicate=2, tensor=2), {}, "need shard above 1"),
        (Layout(shard=2), {"precision": "float16"}, "precision"),
    ],
)
def test_layouts_that_cannot_be_are_refused(layout, change, words):
    import msgspec

    with pytest.raises(ConfigError, match=words):
        _check(build(CONFIG, 0), msgspec.structs.replace(OPTIONS, **change), layout)


@pytest.fixture
def alone():
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("alone")
def test_run_is_that_of_a_single_process_and_survives_a_kill_while_saving(tmp_path, tokenizer_folder, monkeypatch):  # noqa: F811
    import msgspec
    from test_training_loop import OPTIONS as TOY
    from test_training_loop import data_of

    from glm_data.model.store import read_tensors
    from glm_data.training.cluster import train_parallel
    from glm_data.training.stage import train_rows

    options = msgspec.structs.replace(TOY, optimizer="adamw", dropout=0.0, micro_rows=1, checkpoint_every=4, steps=10)
    data = data_of(10, tokenizer_folder)
    train_rows(data, tmp_path / "one", options)
    train_parallel(data, tmp_path / "many", options, Layout())
    for ours, theirs in zip(lines_of(tmp_path / "many"), lines_of(tmp_path / "one"), strict=True):
        assert set(ours) == set(theirs)
        assert all(ours[name] == pytest.approx(theirs[name], rel=1e-5) for name in ours)
    one, many = read_tensors(tmp_path / "one"), read_tensors(tmp_path / "many")
    assert all(torch.allclose(one[name], many[name], atol=1e-4) for name in one)

    def die(tensors, storage_writer):
        (Path(storage_writer.path) / "shard-00001-model-00001-of-00001.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    saving, calls = sharded.save, []

    def save(tensors, storage_writer):
        calls.append(storage_writer)
        (die if len(calls) == 2 else saving)(tensors, storage_writer=storage_writer)

    monkeypatch.setattr(sharded, "save", save)
    with pytest.raises(KeyboardInterrupt):
        train_parallel(data, tmp_path / "killed", options, Layout())
    assert [path.name for path in sharded.find_sharded(tmp_path / "killed" / "checkpoints")] == ["step-00000004"]
    train_parallel(data, tmp_path / "killed", options, Layout())
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()
    other = msgspec.structs.replace(options, lr=0.5)
    from glm_data.errors import UsageError

    with pytest.raises(UsageError, match="lr"):
        train_parallel(data, tmp_path / "killed", other, Layout())


@pytest.mark.usefixtures("alone")
def test_rows_of_the_skip_list_do_not_count(tmp_path):
    import msgspec
    import numpy as np
    from test_training_loop import VOCAB, ToyRows, order

    from glm_data.training.cluster import _Run
    from glm_data.training.options import model_config
    from glm_data.training.parallel import ParallelEngine
    from glm_data.training.stage import TrainingData

    options = msgspec.structs.replace(OPTIONS, layers=1, hidden=16, heads=2, ffn=24, batch_rows=4, steps=2)
    tokens = []
    for skipped in ("", "0:5", "0:8"):
        (tmp_path / "skip.txt").write_text(skipped)
        engine = ParallelEngine(build(model_config(options, VOCAB), 0), options, Layout())
        start = [parameter.detach().clone() for parameter in engine.parameters.values()]
        run = _Run(engine, TrainingData(ToyRows(8), order, [], tmp_path), tmp_path, "key")
        run._step(0)
        tokens.append(run.sums.total_tokens)
        rows = order(np.arange(4), 8, options.seed, 0)
    assert tokens[1] == sum(int(ToyRows(8).batch([row]).loss_mask.sum()) for row in rows.tolist() if row >= 5)
    assert tokens[0] > tokens[1] > tokens[2] == 0
    assert all(torch.equal(*pair) for pair in zip(start, engine.parameters.values(), strict=True)), "nothing moves"
