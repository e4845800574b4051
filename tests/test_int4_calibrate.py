"""Calibration: error feedback against a twin of its definition, layers against a run of the whole model, the report."""

import json
import shutil

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_packs import VOCAB, write_pack
from safetensors.torch import load_file
from test_training_loop import ToyRows, tokenizer_folder  # noqa: F401 - a fixture
from torch import nn

from glm_data.cli.shell import run
from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.evaluation.held_out import score_folder
from glm_data.int4 import QuantizeOptions
from glm_data.int4.calibrate import Calibration, quantize_with_feedback
from glm_data.int4.quantize import choose_scales, dequantize, quantize, unpack_nibbles
from glm_data.int4.stage import quantize_stage
from glm_data.loading import PackedRows
from glm_data.model.attention import PieceAttention
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.model.store import Description, read_description, save_model
from glm_data.training.batches import flatten
from glm_data.training.losses import measure
from tokenizer import Tokenizer

CONFIG = ModelConfig(vocab=VOCAB, layers=2, hidden=32, heads=2, ffn=48, embedding_std=0.5)


def correlated(tokens, columns, seed=0):
    """Inputs of a few hidden causes, columns of very different sizes."""
    generator = torch.manual_seed(seed)
    causes = torch.randn(tokens, max(2, columns // 4), generator=generator)
    mixed = causes @ torch.randn(causes.shape[1], columns, generator=generator)
    x = mixed + 0.1 * torch.randn(tokens, columns, generator=generator)
    return x * torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]


def naive_feedback(weight, moments, group, rule, bits):
    """Optimal brain quantisation in a fixed order: after each column, the inverse moments lose it."""
    columns = weight.shape[1]
    damped = moments + 0.01 * moments.diagonal().mean() * torch.eye(columns, dtype=torch.float64)
    inverse = torch.linalg.inv(damped)
    cost = torch.empty(columns, dtype=torch.float64)
    left = inverse.clone()
    for k in range(columns):  # what rounding column k costs when those before it are fixed
        cost[k] = 1 / left[k, k]
        left = left - torch.outer(left[:, k], left[k]) / left[k, k]
    weigh = (cost / cost.mean()).float()
    rest = weight.double().clone()
    scales, levels = [], torch.empty(weight.shape, dtype=torch.float64)
    for k in range(columns):
        size = group or columns
        if k % size == 0:
            part = slice(k, k + size)
            scales.append(choose_scales(rest[:, None, part].float(), rule, bits, weigh[None, None, part]))
        step = scales[-1][:, 0].double()
        most = 2 ** (bits - 1) - 1
        levels[:, k] = (rest[:, k] / step).round().clamp(-most, most)
        wrong = (rest[:, k] - levels[:, k] * step) / inverse[k, k]
        rest[:, k + 1 :] -= torch.outer(wrong, inverse[k, k + 1 :])
        inverse = inverse - torch.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return levels, torch.cat(scales, 1)


@given(st.sampled_from([0, 8, 16]), st.sampled_from([4, 8]), st.sampled_from(["mse", "absmax"]), st.integers(0, 99))
@settings(deadline=None, max_examples=12)
def test_feedback_is_what_its_definition_says(group, bits, rule, seed):
    x = correlated(64, 48, seed).double()
    weight = torch.randn(5, 48, generator=torch.manual_seed(seed))
    qweight, scales = quantize_with_feedback(weight, x.T @ x, group, rule, bits)
    levels, expected = naive_feedback(weight, x.T @ x, group, rule, bits)
    assert torch.equal(scales, expected)
    found = (unpack_nibbles(qweight) if bits == 4 else qweight).double()
    assert float((found - levels).abs().max()) <= 1  # a tie may go to the other side
    assert float((found != levels).double().mean()) < 0.02


def test_what_comes_out_is_nearer_with_each_look_at_what_goes_in():
    x, weight = correlated(400, 256), torch.randn(32, 256, generator=torch.manual_seed(1))
    moments = x.double().T @ x.double()

    def error(packed, group):
        return float(((dequantize(*packed, group) - weight) @ x.T).norm() / (weight @ x.T).norm())

    for group in (0, 64):
        plain = error(quantize(weight, group, "mse"), group)
        weighed = error(quantize(weight, group, "mse", 4, moments.diagonal().float()), group)
        fed_back = error(quantize_with_feedback(weight, moments, group, "mse", 4), group)
        assert fed_back < 0.6 * plain
        assert weighed < 0.97 * plain


@pytest.mark.parametrize("dead", ["some", "all"])
def test_inputs_that_are_always_zero_do_no_harm(dead):
    x = torch.zeros(9, 32)
    if dead == "some":
        x[:, ::2] = torch.randn(9, 16, generator=torch.manual_seed(0))
    weight = torch.randn(4, 32, generator=torch.manual_seed(1))
    weight[2] = 0
    found = dequantize(*quantize_with_feedback(weight, x.double().T @ x.double(), 0, "mse", 4), 0)
    assert torch.isfinite(found).all()
    assert not found[2].any()
    assert float((found - weight).norm() / weight.norm()) < 0.5


@pytest.mark.parametrize("method", ["activation", "feedback"])
def test_layers_in_a_stream_equal_the_whole_model(method):
    model = build(CONFIG, 0)
    rows = ToyRows(6)
    batches = [flatten(rows.batch([number])) for number in range(6)]
    options = QuantizeOptions(calibration=method, group=32)
    tensors = model.state_dict()
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.")}
    calibration = Calibration(CONFIG, outside, batches, options)
    for number in range(CONFIG.layers):
        prefix = f"layers.{number}."
        mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        found = calibration.quantize_layer(number, {name: tensor.clone() for name, tensor in mine.items()})
        # The twin: the whole model in memory, run from the start for every layer.
        matrices = {name: m for name, m in model.layers[number].named_modules() if isinstance(m, nn.Linear)}
        inputs = {name: [] for name in matrices}
        handles = [
            matrix.register_forward_pre_hook(lambda _, given, seen=inputs[name]: seen.append(given[0].detach()))
            for name, matrix in matrices.items()
        ]
        with torch.no_grad():
            for batch in batches:
                model(batch.tokens_T, batch.positions_T, PieceAttention(batch.groups))
        for handle in handles:
            handle.remove()
        for name, matrix in matrices.items():
            moments = sum(x.double().T @ x.double() for x in inputs[name])
            if method == "feedback":
                expected = quantize_with_feedback(matrix.weight.detach(), moments, 32, "mse", 4)
            else:
                diagonal = moments.diagonal() / moments.diagonal().mean()
                expected = quantize(matrix.weight.detach(), 32, "mse", 4, diagonal.float())
            assert torch.equal(found[name][0], expected[0]), name
            assert torch.equal(found[name][1], expected[1]), name
            matrix.weight.data = dequantize(*expected, 32)


@pytest.mark.parametrize("method", ["activation", "feedback"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layers.0.mlp.dense_h_to_4h.weight", "the weights are not all finite"),
        ("word_embeddings.weight", "inputs of layer 0's attention.query_key_value are not all finite"),
    ],
)
def test_what_is_not_finite_is_refused_in_a_sentence(method, name, words):
    tensors = build(CONFIG, 0).state_dict()
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.")}
    mine = {name[9:]: tensor for name, tensor in tensors.items() if name.startswith("layers.0.")}
    calibration = Calibration(CONFIG, outside, [flatten(ToyRows(1).batch([0]))], QuantizeOptions(calibration=method))
    with pytest.raises(InputError, match=words):
        calibration.quantize_layer(0, mine)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tokenizer_folder):  # noqa: F811
    folder = tmp_path_factory.mktemp("calibrate")
    (folder / "model").mkdir()
    for name in ("tokenizer.model", "tokenizer.json"):
        shutil.copyfile(tokenizer_folder / name, folder / "model" / name)
    fingerprint = Tokenizer.load(tokenizer_folder).fingerprint
    config = msgspec.structs.replace(CONFIG, vocab=Tokenizer.load(tokenizer_folder).vocab_size, layers=11)
    description = Description(model=config, tokenizer=fingerprint, training={"options": {"held_out_rows": 3}})
    save_model(folder / "model", build(config, 0).state_dict(), description)
    return folder / "model", write_pack(folder / "pack", rows=12, fingerprint=fingerprint)


def test_rows_longer_than_the_tables_of_positions_are_refused(tmp_path, folders):
    model, pack = folders
    config = msgspec.structs.replace(
        CONFIG, vocab=512, norm="pre", feed_forward="gelu", positions="learned-2d", longest=64
    )
    for longest in (64, 63):
        short = msgspec.structs.replace(config, longest=longest)
        folder = tmp_path / f"model-{longest}"
        shutil.copytree(model, folder)
        description = read_description(model)
        save_model(folder, build(short, 0).state_dict(), msgspec.structs.replace(description, model=short))
    options = QuantizeOptions(calibration="activation", calibration_rows=1)
    quantize_stage(tmp_path / "model-64", tmp_path / "q", options, pack=pack)
    with pytest.raises(ConfigError, match="rows of 64 tokens are longer than the model's table of 63"):
        quantize_stage(folder, tmp_path / "short", options, pack=pack)
    with pytest.raises(ConfigError, match="longer than the model's table of 63"):
        measure(build(short, 0), PackedRows.open(pack), np.arange(1))


def test_stage_calibrates_on_rows_that_were_not_held_out(tmp_path, folders):
    model, pack = folders
    options = QuantizeOptions(calibration="activation", calibration_rows=4)
    success = quantize_stage(model, tmp_path / "q", options, pack=pack)
    tensors = load_file(model / "model.safetensors")
    rows = PackedRows.open(pack)
    batches = [flatten(rows.batch([row])) for row in (0, 3, 5, 8)]  # of 12, without 2, 6 and 10
    outside = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.")}
    embedding = "word_embeddings.weight"  # layers see what comes out of the embedding as it is once quantised
    outside[embedding] = dequantize(*quantize(outside[embedding], 0, "absmax", 8), 0)
    calibration = Calibration(msgspec.structs.replace(CONFIG, vocab=512, layers=11), outside, batches, options)
    found = load_file(tmp_path / "q" / "model.safetensors")
    for number in range(11):  # 10 comes after 9, not after 1
        prefix = f"layers.{number}."
        mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for name, (qweight, scales) in calibration.quantize_layer(number, mine).items():
            assert torch.equal(found[prefix + name + ".qweight"], qweight)
            assert torch.equal(found[prefix + name + ".scales"], scales)
    assert quantize_stage(model, tmp_path / "again", options, pack=pack).digest == success.digest


def test_report_tells_bits_per_byte_before_and_after(tmp_path, folders, capsys):
    model, pack = folders
    words = ["quantize", str(model), "--pack", str(pack), "--report", "--group", "32", "--out", str(tmp_path / "q")]
    assert run([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["report"]
    before, after = score_folder(model, pack, 3), score_folder(tmp_path / "q", pack, 3)
    assert report["rows"] == 3
    assert report["bits_per_byte"].keys() == before.keys()
    for kind, change in report["bits_per_byte"].items():
        assert change["before"] == before[kind].bits_per_byte
        assert change["after"] == after[kind].bits_per_byte
        assert change["rise"] == pytest.approx(after[kind].bits_per_byte / before[kind].bits_per_byte - 1)
    assert len(report["relative_error"]) == 44 + 1, "matrices and the embedding"
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "held-out bits per byte, 3 rows" in said
    assert f"{before['all'].bits_per_byte:.4f}" in said
    assert "layers.10.mlp.dense_4h_to_h" in said


def test_what_calibration_lacks_is_said(tmp_path, folders, capsys):
    model, _ = folders
    with pytest.raises(UsageError, match="give a pack with --pack"):
        quantize_stage(model, tmp_path / "q", QuantizeOptions(calibration="activation"))
    other = write_pack(tmp_path / "other", rows=4)
    with pytest.raises(UsageError, match="another tokenizer"):
        quantize_stage(model, tmp_path / "q", QuantizeOptions(calibration="activation"), pack=other)
    assert run(["quantize", str(model), "--report", "--out", str(tmp_path / "q")]) == 2
    assert "--report needs rows" in capsys.readouterr().err
    assert run(["quantize", str(model), "--calibration-rows", "0", "--out", str(tmp_path / "q")]) == 2
    assert "calibration-rows" in capsys.readouterr().err
    assert np.array_equal(sorted(path.name for path in tmp_path.iterdir()), ["other"])
