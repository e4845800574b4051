import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.generation.glm import load_model
from glm_data.int4 import QuantizeOptions, quantize
from glm_data.int4.linear import QuantizedLinear, for_gpu, is_quantized, with_quantized_layers
from glm_data.int4.safetensors_stream import TensorSpec, write_tensors
from glm_data.int4.stage import quantize_stage
from glm_data.model.config import ModelConfig
from glm_data.model.model import GLM, build
from glm_data.model.store import Description, Quantization, read_description, save_model

CONFIG = ModelConfig(vocab=64, layers=2, hidden=32, heads=2, ffn=44, embedding_std=0.02)


def naive(row, rule, bits, importance):
    """GLM-130B's arithmetic on one row, number by number: (levels, scale)."""
    most = 2 ** (bits - 1) - 1
    top = np.float32(np.abs(row).max()) / np.float32(most)
    best = None
    for share in [1.0] if rule == "absmax" else quantize._CANDIDATES:
        scale = np.float16(top * np.float32(share))
        levels = np.clip(np.round(row / np.float32(scale)), -most, most) if scale else np.zeros_like(row)
        error = float(((levels * np.float32(scale) - row).astype(np.float64) ** 2 * importance).sum())
        if best is None or error < best[0] * (1 - 1e-6):
            best = (error, levels, scale)
    return best[1], best[2]


@pytest.mark.parametrize("rule", ["absmax", "mse", "weighed"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("seed", range(2))
def test_rows_against_the_naive_twin(rule, bits, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(4, (9, 24)).astype(np.float32)
    importance = rng.random(24).astype(np.float32) ** 2 if rule == "weighed" else np.ones(24, np.float32)
    given = torch.from_numpy(importance) if rule == "weighed" else None
    rule = "mse" if rule == "weighed" else rule
    qweight, scales = quantize.quantize(torch.from_numpy(weight), 0, rule, bits, given)
    levels = (quantize.unpack_nibbles(qweight) if bits == 4 else qweight).numpy()
    for row, found, scale in zip(weight, levels, scales[:, 0].numpy(), strict=True):
        expected, expected_scale = naive(row, rule, bits, importance)
        assert scale == expected_scale
        assert found.tolist() == expected.tolist()


def least_errors(weight, candidates, bits, importance):
    """Which of ``candidates`` has the least squared error for each group, and all errors, in tensor operations."""
    most = quantize.LEVELS[bits]
    errors = []
    for scales in candidates.double().unbind(-1):
        divisors = scales.where(scales > 0, torch.ones_like(scales))[..., None]
        levels = (weight.double() / divisors).round().clamp(-most, most)
        errors.append(((levels * scales[..., None] - weight) ** 2 * importance).sum(-1))
    return torch.stack(errors, -1).argmin(-1), torch.stack(errors, -1)


@pytest.mark.parametrize(("group", "columns"), [(0, 300), (32, 256), (64, 200), (128, 384)])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_scale_search_finds_the_least_error_of_every_group(group, columns, bits, weighed):
    """Scales may differ from the twin's only where errors are as good as equal: it sums in float64."""
    generator = torch.manual_seed(columns + bits)
    weight = (torch.randn(150, columns, generator=generator) / torch.rand(150, columns, generator=generator)).bfloat16()
    weight[3], weight[4] = 0, 1e-7  # nothing, and less than FP16 has
    importance = torch.rand(columns, generator=generator) ** 2 if weighed else torch.ones(columns)
    grouped = quantize.in_groups(weight.float(), group)
    weights = quantize.in_groups(importance[None], group)
    found = quantize.choose_scales(grouped, "mse", bits, weights if weighed else None)
    top = grouped.abs().amax(-1, keepdim=True) / quantize.LEVELS[bits]
    candidates = quantize._half(top * torch.tensor(quantize._CANDIDATES))
    place, errors = least_errors(grouped, candidates, bits, weights)
    expected = candidates.gather(-1, place[..., None])[..., 0]
    differ = found != expected
    assert differ.double().mean() < 0.005
    chosen = errors.where(candidates == found[..., None], torch.inf).amin(-1)
    assert (chosen <= errors.amin(-1) * (1 + 2e-7)).all(), "the scale is one of the candidates, and as good as the best"
    assert bits == 8 or (expected != candidates[..., 0]).any(), "the search has something to find"


def test_the_scale_search_gives_the_same_for_any_number_of_threads():
    weight = torch.nn.Parameter(torch.distributions.StudentT(4.0).sample((200, 512)))
    before = torch.get_num_threads()
    try:
        several = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            several.append(quantize.quantize(weight, 64, "mse"))
    finally:
        torch.set_num_threads(before)
    for other in several[1:]:
        assert all(torch.equal(one, two) for one, two in zip(several[0], other, strict=True))


@pytest.mark.parametrize("bits", [4, 8])
def test_absmax_of_half_weights_is_glm130bs_to_the_bit(bits):
    """The official tool divides FP16 by FP16: a quotient next to a half may be rounded onto it first."""
    weight = torch.randn(300, 64, generator=torch.manual_seed(5)).half()
    qweight, scales = quantize.quantize(weight, 0, "absmax", bits)
    theirs = np.float16(np.abs(weight.numpy()).max(1, keepdims=True) / np.float16(2 ** (bits - 1) - 1))
    levels = np.round(weight.numpy() / theirs).astype(np.int8)
    assert scales.numpy().tolist() == theirs.tolist()
    assert torch.equal(qweight, quantize.pack(torch.from_numpy(levels), bits))
    if bits == 8:
        other = quantize.quantize(weight.float(), 0, "absmax", bits)[0]
        assert not torch.equal(qweight, other), "the two roundings differ somewhere in so many weights"


def test_bytes_are_the_documented_ones():
    weight = torch.tensor([[7.0, -7.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    qweight, scales = quantize.quantize(weight, 0, "absmax")
    assert qweight.tolist() == [[0x1F, 0x89], [0x88, 0x88]]  # high nibble: odd column, low: even; level + 8
    assert scales.tolist() == [[1.0], [0.0]]
    assert quantize.to_glm130b(qweight).view(torch.uint8).tolist() == [[0x79, 0x10], [0, 0]]  # even column high


@given(st.integers(1, 5), st.integers(1, 6), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_nibble_orders_convert_both_ways(rows, half, random):
    levels = torch.tensor([[random.randrange(-8, 8) for _ in range(2 * half)] for _ in range(rows)], dtype=torch.int8)
    packed = quantize.pack_nibbles(levels)
    assert torch.equal(quantize.unpack_nibbles(packed), levels)
    theirs = quantize.to_glm130b(packed)
    assert theirs.dtype == torch.int8
    for row in range(rows):
        for j in range(half):
            byte = int(theirs[row, j])
            assert (byte >> 4, ((byte & 15) ^ 8) - 8) == (levels[row, 2 * j], levels[row, 2 * j + 1])
    assert torch.equal(quantize.from_glm130b(theirs), packed)


@pytest.mark.parametrize("rule", ["absmax", "mse"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-12, 1e-8, 3e-7, 1.0, 6e5, 1e30])
def test_extreme_rows_stay_finite_and_as_near_as_can_be(rule, bits, value):
    weight = torch.full((1, 8), value)
    weight[0, 3] = -value / 2
    qweight, scales = quantize.quantize(weight, 0, rule, bits)
    found = quantize.dequantize(qweight, scales, 0)
    assert torch.isfinite(found).all()
    if 1e-6 * bits**2 < value < 4e5:
        assert (found - weight).abs().max() <= 0.51 * value / (7 if bits == 4 else 127)
    if value == 0:
        assert not found.any()


@pytest.mark.parametrize("group", [32, 64, 128])
def test_groups_have_their_own_scales_and_the_last_may_be_short(group):
    torch.manual_seed(0)
    weight = torch.randn(5, 200) * torch.linspace(0.1, 3, 200)
    qweight, scales = quantize.quantize(weight, group, "absmax")
    assert scales.shape == (5, -(-200 // group))
    found = quantize.dequantize(qweight, scales, group)
    for first in range(0, 200, group):
        part = weight[:, first : first + group].contiguous()
        alone = quantize.dequantize(*quantize.quantize(part, 0, "absmax"), 0)
        assert torch.equal(found[:, first : first + group], alone)


def test_mse_is_never_worse_than_absmax_and_finer_groups_never_much():
    torch.manual_seed(1)
    weight = torch.distributions.StudentT(5.0).sample((64, 512))

    def error(group, rule):
        found = quantize.dequantize(*quantize.quantize(weight, group, rule), group)
        return float((found - weight).norm() / weight.norm())

    assert error(0, "mse") < 0.8 * error(0, "absmax")
    assert error(32, "mse") < error(128, "mse") < error(0, "mse")


def test_rows_in_blocks_equal_rows_at_once(monkeypatch):
    weight = torch.randn(70, 16, generator=torch.Generator().manual_seed(2))
    whole = quantize.quantize(weight, 0, "mse")
    monkeypatch.setattr(quantize, "ROWS_AT_ONCE", 9)
    for one, other in zip(whole, quantize.quantize(weight, 0, "mse"), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("weight", "word"), [(torch.ones(2, 3), "even"), (torch.tensor([[1.0, float("nan")]]), "finite")]
)
def test_matrices_that_cannot_be_packed_are_refused(weight, word):
    with pytest.raises(InputError, match=word):
        quantize.quantize(weight, 0, "mse")


def test_int8_takes_odd_widths_and_groups_of_its_own():
    weight = torch.randn(3, 67, generator=torch.manual_seed(4))
    qweight, scales = quantize.quantize(weight, 32, "mse", 8)
    assert (qweight.shape, qweight.dtype, scales.shape) == ((3, 67), torch.int8, (3, 3))
    found = quantize.dequantize(qweight, scales, 32)
    assert float((found - weight).norm() / weight.norm()) < 0.006


def test_linear_equals_its_dequantised_matrix():
    torch.manual_seed(3)
    layer = QuantizedLinear(64, 10, 32)
    layer.qweight, layer.scales = quantize.quantize(torch.randn(10, 64), 32, "mse")
    layer.bias = torch.randn(10)
    x = torch.randn(4, 64)
    expected = x @ quantize.dequantize(layer.qweight, layer.scales, 32).T + layer.bias
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_every_matrix_of_the_network_and_nothing_else_is_replaced():
    model = with_quantized_layers(build(CONFIG, 0), Quantization(groups={"dense": 16}))
    kinds = {name: type(module) for name, module in model.named_modules() if hasattr(module, "bias")}
    replaced = {name for name, kind in kinds.items() if kind is QuantizedLinear}
    expected = {name.removesuffix(".weight") for name, _ in GLM(CONFIG).named_parameters() if is_quantized(name)}
    assert replaced == expected
    assert len(replaced) == 8
    groups = {name.rpartition(".")[2]: module.group for name, module in model.named_modules() if name in replaced}
    assert groups == {"query_key_value": 0, "dense": 16, "dense_h_to_4h": 0, "dense_4h_to_h": 0}


def test_streamed_file_is_what_the_library_reads(tmp_path):
    tensors = {"a": torch.randn(3, 5), "b.x": torch.arange(7, dtype=torch.uint8), "c": torch.randn(2, 2).half()}
    specs = [TensorSpec(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]
    write_tensors(tmp_path / "m.safetensors", specs, iter(tensors.values()))
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as handle:
        assert handle.get_slice("a").get_shape() == [3, 5]


def saved(folder, seed=0):
    folder.mkdir()
    save_model(folder, build(CONFIG, seed).state_dict(), Description(model=CONFIG, tokenizer="abc"))
    (folder / "tokenizer.model").write_bytes(b"model")
    (folder / "tokenizer.json").write_bytes(b"{}")
    return folder


@pytest.mark.parametrize(
    "options",
    [QuantizeOptions(), QuantizeOptions(group=32, scale="absmax", embedding_bits=16), QuantizeOptions(bits=8)],
)
def test_stage_writes_a_self_describing_folder(tmp_path, options):
    source = saved(tmp_path / "train")
    success = quantize_stage(source, tmp_path / "q", options)
    assert success.ok
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "q" / "model.safetensors")
    for name, tensor in before.items():
        packing = (options.bits, options.group, options.scale) if is_quantized(name) else None
        if name == "word_embeddings.weight" and options.embedding_bits == 8:
            packing = (8, 0, "absmax")
        if packing:
            (bits, group, rule), stem = packing, name.removesuffix(".weight")
            expected = quantize.quantize(tensor, group, rule, bits)
            assert torch.equal(after[stem + ".qweight"], expected[0])
            assert torch.equal(after[stem + ".scales"], expected[1])
            error = tensor - quantize.dequantize(*expected, group)
            assert success.facts["relative_error"][stem] == pytest.approx(float(error.norm() / tensor.norm()))
        else:
            assert torch.equal(after[name], tensor.half())
    assert success.facts["bytes_after"] == (tmp_path / "q" / "model.safetensors").stat().st_size
    assert success.facts["bytes_after"] < 0.1 * options.bits * success.facts["bytes_before"]
    description = read_description(tmp_path / "q")
    assert description.quantization == Quantization(
        bits=options.bits, group=options.group, scale=options.scale, embedding_bits=options.embedding_bits
    )
    assert description.tokenizer == "abc"
    assert (tmp_path / "q" / "tokenizer.model").read_bytes() == b"model"
    assert json.loads((tmp_path / "q" / "quantize.json").read_text()) == success.facts
    again = quantize_stage(source, tmp_path / "q2", options)
    assert again.digest == success.digest
    assert quantize_stage(source, tmp_path / "q", options) == success


def test_stage_refuses_what_it_cannot_quantise(tmp_path):
    source = saved(tmp_path / "train")
    quantize_stage(source, tmp_path / "q", QuantizeOptions())
    with pytest.raises(UsageError, match="already"):
        quantize_stage(tmp_path / "q", tmp_path / "q2", QuantizeOptions())
    with pytest.raises(UsageError, match="no model"):
        quantize_stage(tmp_path, tmp_path / "q3", QuantizeOptions())
    with pytest.raises(UsageError, match="scale 'mse' -> 'absmax'"):
        quantize_stage(source, tmp_path / "q", QuantizeOptions(scale="absmax"))
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        quantize_stage(source, tmp_path / "q4", QuantizeOptions())
    with pytest.raises(ConfigError, match="group is 48"):
        QuantizeOptions(group=48)
    with pytest.raises(ConfigError, match="bits is 3"):
        QuantizeOptions(bits=3)
    with pytest.raises(ConfigError, match="embedding_bits is 4; give 8"):
        QuantizeOptions(embedding_bits=4)


def test_bytes_of_a_folder(tmp_path):
    """Golden: names, order, types and levels of the file, of a network whose weights are counted up."""
    source = saved(tmp_path / "train")
    tensors = load_file(source / "model.safetensors")
    counted = {n: (torch.arange(t.numel()) % 13 - 6.0).view(t.shape) / 64 for n, t in tensors.items()}
    save_model(source, counted, read_description(source))
    quantize_stage(source, tmp_path / "q", QuantizeOptions(scale="absmax"))
    written = (tmp_path / "q" / "model.safetensors").read_bytes()
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert list(header)[:4] == [
        "final_layernorm.bias", "final_layernorm.weight", "word_embeddings.qweight", "word_embeddings.scales",
    ]  # fmt: skip
    found = load_file(tmp_path / "q" / "model.safetensors")
    assert (found["word_embeddings.qweight"].dtype, found["word_embeddings.scales"].shape) == (torch.int8, (64, 1))
    row = [-127, -106, -85, -64, -42, -21, 0, 21, 42, 64, 85, 106, 127]  # of k / 64 with a scale of 6 / 64 / 127
    assert found["word_embeddings.qweight"][0].tolist() == (3 * row)[:32]
    assert found["word_embeddings.scales"][0].item() == np.float16(6 / 64 / 127)
    assert found["layers.0.attention.dense.qweight"][0, :7].tolist() == [0x21, 0x43, 0x76, 0x98, 0xCA, 0xED, 0x1F]
    settings = json.loads((tmp_path / "q" / "config.json").read_text())["quantization"]
    assert settings == {"bits": 4, "group": 0, "groups": {}, "scale": "absmax", "embedding_bits": 8}


@pytest.mark.parametrize(("key", "value"), [("bits", 5), ("bits", 7), ("embedding_bits", 4)])
def test_a_folder_of_other_bits_is_refused(tmp_path, key, value):
    quantize_stage(saved(tmp_path / "train"), tmp_path / "q", QuantizeOptions())
    path = tmp_path / "q" / "config.json"
    content = json.loads(path.read_text())
    content["quantization"][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"config.json.*{key}"):
        read_description(tmp_path / "q")


@pytest.mark.parametrize("embedding_bits", [8, 16])
def test_loaded_folder_computes_with_the_dequantised_embedding(tmp_path, embedding_bits):
    quantize_stage(saved(tmp_path / "train"), tmp_path / "q", QuantizeOptions(embedding_bits=embedding_bits))
    model, tensors = load_model(tmp_path / "q"), load_file(tmp_path / "q" / "model.safetensors")
    if embedding_bits == 8:
        exact = quantize.dequantize(tensors["word_embeddings.qweight"], tensors["word_embeddings.scales"], 0)
    else:
        exact = tensors["word_embeddings.weight"].float()
    tokens, x = torch.tensor([5, 63, 0]), torch.randn(3, CONFIG.hidden)
    assert torch.equal(model.embed(tokens, torch.arange(3))[0], exact[tokens])
    assert float((model.head(x) - x @ exact.T).norm() / (x @ exact.T).norm()) < (0.01 if embedding_bits == 8 else 1e-6)


def test_what_a_gpu_gets(tmp_path):
    quantize_stage(saved(tmp_path / "train"), tmp_path / "q", QuantizeOptions())
    before = load_file(tmp_path / "q" / "model.safetensors")
    tensors, found = for_gpu(before, read_description(tmp_path / "q").quantization)
    assert found == Quantization(embedding_bits=16)
    model = with_quantized_layers(build(CONFIG, 0), found)
    model.load_state_dict(tensors, assign=True)
    exact = quantize.dequantize(before["word_embeddings.qweight"], before["word_embeddings.scales"], 0)
    assert torch.allclose(model.word_embeddings.weight.float(), exact, rtol=2**-7.5, atol=0)
    assert {t.dtype for n, t in tensors.items() if not n.endswith(("qweight", "scales"))} == {torch.bfloat16}
