import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from glm_data.int4 import cpu, cuda, torch_op
from glm_data.int4.kernel_ir import ISAS
from glm_data.int4.linear import QuantizedEmbedding, QuantizedLinear, prepare
from glm_data.int4.product_ir import module
from glm_data.int4.quantize import dequantize, pack_nibbles, quantize


def case(rows, columns, group, tokens, bits=4, seed=0):
    torch.manual_seed(seed)
    packed, scales = quantize(torch.randn(rows, columns), group, "absmax", bits)
    return torch.randn(tokens, columns), packed, scales


def twin(x, packed, scales, group):
    """What the kernels promise, in float64: activations as INT8 by groups, weights as their levels."""
    size = cpu.activation_group(x.shape[1], group)
    grouped = x.view(len(x), -1, size)
    steps = grouped.abs().amax(-1, keepdim=True) / 127
    levels = (grouped / steps.where(steps > 0, torch.ones_like(steps))).round()
    return (levels * steps).view_as(x).double() @ dequantize(packed, scales, group).double().T


def product(x, packed, scales, size, isa, threads=1, bias=None):
    """Our kernels' product, ``size`` the group of the activations."""
    bias = torch.zeros(len(packed)) if bias is None else bias
    tiles, tiled = cpu.tile(packed, isa), cpu.tile_scales(scales, isa)
    return cpu.Product(tiles, tiled, bias, x.shape[1], size, isa)(x, threads)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "columns", "group"), [(16, 32, 0), (50, 128, 32), (33, 96, 0), (64, 512, 256)])
def test_kernels_against_the_twin(isa, bits, rows, columns, group):
    for tokens in (1, 2, 3, 4, 5, 9, 300):
        x, packed, scales = case(rows, columns, group, tokens, bits)
        size = cpu.activation_group(columns, group)
        found = product(x, packed, scales, size, isa)
        assert found.shape == (tokens, rows)
        assert relative(found, twin(x, packed, scales, group)) < 2e-3  # a tie may round to the other side
        bias = torch.randn(rows)
        assert torch.equal(product(x, packed, scales, size, isa, bias=bias), found + bias)
        assert relative(found, x.double() @ dequantize(packed, scales, group).double().T) < 0.02


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
def test_threads_change_no_bit(isa):
    x, packed, scales = case(1040, 1024, 128, 5)
    parts = [product(x, packed, scales, 128, isa, threads) for threads in (1, 2, 3)]
    assert torch.equal(parts[0], parts[1])
    assert torch.equal(parts[0], parts[2])


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("level", [7, -8, 127, -128])
def test_extreme_levels_and_activations_do_not_overflow(isa, level):
    packed = torch.full((16, 4096), level, dtype=torch.int8)  # every sum is as large as can be
    if abs(level) < 9:
        packed = pack_nibbles(packed)
    scales = torch.ones(16, 1, dtype=torch.float16)
    for value in (-2.0, 2.0):
        x = torch.full((3, 4096), value)
        found = product(x, packed, scales, 128, isa)
        assert torch.allclose(found, torch.tensor(value * level * 4096), rtol=1e-5)


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
def test_zeros_give_zeros_and_what_is_not_finite_shows(isa):
    _, packed, scales = case(16, 64, 32, 1)
    x = torch.zeros(5, 64)
    x[1, 3], x[2, 40], x[4] = float("nan"), float("inf"), 1e-38  # of the last the step has no finite inverse
    found = product(x, packed, scales, 32, isa)
    for token in (0, 3, 4):
        assert torch.equal(found[token], torch.zeros(16))
    assert not found[1:3].isfinite().any()


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(0, 99))
@settings(deadline=None, max_examples=8)
def test_tiles_hold_every_nibble_at_its_documented_place(isa, rows, fours, seed):
    eights = 4 * fours
    packed = torch.randint(0, 256, (rows, 4 * eights), dtype=torch.uint8, generator=torch.manual_seed(seed))
    tiles = cpu.tile(packed, isa)
    assert tiles.shape == (-(-rows // isa.rows), eights, isa.rows, 4)
    for row in range(rows):
        for column in range(8 * eights):
            byte = tiles[row // isa.rows, column // 8, row % isa.rows, column % 4]
            found = (byte >> 4) if column % 8 >= 4 else byte & 15
            whole = packed[row, column // 2]
            assert found == ((whole >> 4) if column % 2 else whole & 15)


@pytest.mark.parametrize("isa", cpu.supported_isas(), ids=lambda isa: isa.name)
def test_int8_tiles_hold_every_byte_at_its_documented_place(isa):
    packed = torch.randint(-127, 128, (20, 32), dtype=torch.int8, generator=torch.manual_seed(0))
    tiles = cpu.tile(packed, isa)
    expected = torch.zeros(-(-20 // isa.rows) * isa.rows, 32, dtype=torch.int64)
    expected[:20] = packed
    assert torch.equal(tiles.long() - 128, expected.view(-1, isa.rows, 8, 4).transpose(1, 2))
    rows = torch.tensor([19, 0, 7, 7])
    assert torch.equal(cpu.tiled_rows(tiles, rows), packed[rows])


def test_every_instruction_set_is_valid_llvm():
    import llvmlite.binding as llvm

    for isa in ISAS:
        for bits in (4, 8):
            llvm.parse_assembly(module(isa, bits)).verify()


def made_layer(rows, columns, group, bits=4):
    x, packed, scales = case(rows, columns, group, 6, bits)
    layer = QuantizedLinear(columns, rows, group, bits)
    layer.load_state_dict({"qweight": packed, "scales": scales, "bias": torch.randn(rows)})
    x = x.view(2, 3, columns)
    return layer, x, layer(x)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("columns", "group"), [(96, 0), (128, 64), (44, 0), (96, 64), (1152, 384)])
def test_prepared_layer_is_the_layer(columns, group, bits):
    layer, x, plain = made_layer(50, columns, group, bits)
    prepare(layer)
    assert layer.way == ("plain" if columns in (44,) or group > columns // 2 else "kernel") or not cpu.supported_isas()
    found = layer(x)
    assert found.shape == (2, 3, 50)
    assert relative(found, plain) < 0.02
    prepare(layer)  # once is enough
    assert torch.equal(layer(x), found)
    assert layer(x[:0]).shape == (0, 3, 50), "no tokens, as nn.Linear has it"


@pytest.mark.parametrize(("vocab", "width"), [(50, 96), (40, 44)])
def test_packed_embedding_is_what_its_rows_stand_for(vocab, width):
    qweight, scales = quantize(torch.randn(vocab, width, generator=torch.manual_seed(1)) * 0.01, 0, "absmax", 8)
    exact = dequantize(qweight, scales, 0)
    layer = QuantizedEmbedding(vocab, width)
    layer.load_state_dict({"qweight": qweight, "scales": scales})
    tokens, x = torch.tensor([3, vocab - 1, 0, 3]), torch.randn(5, width)
    for _ in range(2):
        assert torch.equal(layer.look_up(tokens, 1.0), exact[tokens])
        assert relative(layer.scores(x, 1.0), x @ exact.T) < 0.01
        assert layer.look_up(tokens[:0], 1.0).shape == (0, width)
        prepare(nn.ModuleList([layer]))
    assert (layer.qweight.dim() == 4) == (width % 32 == 0 and bool(cpu.supported_isas())), "in the kernels' order"


@pytest.mark.parametrize(
    ("rows", "columns", "group", "way"),
    [(48, 128, 0, "torch"), (48, 128, 64, "torch"), (48, 1152, 384, "torch"), (50, 128, 0, "plain")],
)
def test_torch_operator_where_there_is_no_kernel(monkeypatch, rows, columns, group, way):
    layer, x, plain = made_layer(rows, columns, group)
    monkeypatch.setattr(cpu, "supported_isas", lambda: ())
    prepare(layer)
    assert layer.way == way
    assert relative(layer(x), plain) < 0.008  # bfloat16 activations, scales and results
    assert not torch_op.fits(rows, columns, group, 8)


@pytest.mark.parametrize(("rows", "columns", "group"), [(40, 128, 0), (16, 1088, 64), (16, 96, 32)])
def test_gpu_kernel_in_the_interpreter(rows, columns, group):
    pytest.importorskip("triton", reason="the GPU kernel is written in Triton, which is not installed")
    for tokens in (1, 33):
        x, packed, scales = case(rows, columns, group, tokens)
        bias = torch.randn(rows)
        found = cuda.launch(x.bfloat16(), packed, scales, bias, group)
        expected = F.linear(x.bfloat16().double(), dequantize(packed, scales, group).double(), bias.double())
        assert found.dtype == torch.bfloat16
        assert relative(found, expected) < 0.006  # the result has 8 bits


def test_matrices_that_no_gpu_kernel_takes_are_unpacked():
    x, packed, scales = case(8, 44, 0, 3)
    assert not cuda.fits(44, 0)
    found = cuda.linear(x.bfloat16(), packed, scales, torch.zeros(8), 0)
    assert relative(found, x.double() @ dequantize(packed, scales, 0).double().T) < 0.02
