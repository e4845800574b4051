"""INT4 and INT8 on the CPU: the kernels of ``kernel_ir.py``, compiled in process for the CPU at hand.

LLVM comes with numba, so no compiler is needed on the user's machine; compiling takes a fraction of a second, once a
process, and nothing compiled is ever read from a disk. Activations become INT8 by groups (W4A8), which adds about
0.7 % of error to the 12 % of INT4 weights (to as much of INT8 weights, whose own error is 0.7 %).
"""

from __future__ import annotations

import ctypes
import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glm_data.int4.kernel_ir import ISAS, Isa, module, tile_columns, too_much

_GROUPS = (32, 64, 128, 256)
"""Groups of weights that activations take over."""
_TOKENS_AT_ONCE = 256
_WORTH_A_THREAD = 1 << 22
"""Products of weights and activations below which a second thread costs more than it saves."""


class Kernels:
    """The compiled functions of one instruction set and kind of weights."""

    def __init__(self, isa: Isa, bits: int) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        parsed = llvm.parse_assembly(module(isa, bits))
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        self.isa, self.bits = isa, bits
        # The engine owns the machine code: it lives as long as the functions.
        self._engine = llvm.create_mcjit_compiler(parsed, machine)
        self._engine.finalize_object()
        self.tile = self._function("tile", 2, 2)
        self.quantize = self._function("quantize", 4, 3)
        self.multiply = {tokens: self._multiply(tokens) for tokens in isa.tokens}

    def _function(self, name: str, pointers: int, numbers: int) -> Any:
        kind = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * pointers), *([ctypes.c_int64] * numbers))
        return kind(self._engine.get_function_address(name))

    def _multiply(self, tokens: int) -> Any:
        p, n = ctypes.c_void_p, ctypes.c_int64
        kind = ctypes.CFUNCTYPE(None, p, p, n, p, p, p, p, n, n, n, n, n, n)
        return kind(self._engine.get_function_address(f"multiply_{tokens}"))


@functools.cache
def supported_isas() -> tuple[Isa, ...]:
    """The instruction sets of this CPU that there are kernels for, the fastest first; empty on other processors."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return tuple(isa for isa in ISAS if all(features.get(name, False) for name in isa.features))


@functools.cache
def kernels(isa: Isa, bits: int) -> Kernels:
    """The compiled kernels of ``isa``, which must be one of :func:`supported_isas`, for weights of ``bits``."""
    return Kernels(isa, bits)


def activation_group(columns: int, group: int) -> int:
    """Columns that share an activation scale, or 0 if no kernel takes such a matrix; ``group`` as in quantising.

    A weight's group may be whole rows or several activation groups, which are never wide: a large activation would
    cost all others of its group their bits.
    """
    if group in _GROUPS:
        return group if columns % group == 0 else 0
    whole = group or columns
    return next((size for size in (128, 64, 32) if whole % size == 0 and columns % whole == 0), 0)


def tile(qweight: Tensor, isa: Isa) -> Tensor:
    """Packed rows ``uint8[N, K / 2]`` (INT4) or ``int8[N, K]`` (INT8) in the order of the kernels,
    ``uint8[ceil(N / R), K / 8 or K / 4, R, 4]`` with the R of ``isa``."""
    bits, words = (4 if qweight.dtype == torch.uint8 else 8), qweight.shape[1] // 4
    rows = qweight.contiguous()
    if len(rows) % isa.rows:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % isa.rows), value=0x88 if bits == 4 else 0)
    tiles = torch.empty(len(rows) // isa.rows, words, isa.rows, 4, dtype=torch.uint8)
    kernels(isa, bits).tile(rows.data_ptr(), tiles.data_ptr(), len(tiles), words)
    return tiles


def tile_scales(scales: Tensor, isa: Isa) -> Tensor:
    """Scales ``float16[N, G]`` in the order of the kernels, ``float16[ceil(N / R), G, R]``."""
    padded = torch.nn.functional.pad(scales, (0, 0, 0, -len(scales) % isa.rows))
    return padded.view(-1, isa.rows, scales.shape[1]).transpose(1, 2).contiguous()


def matmul(x_MK: Tensor, tiles: Tensor, scales: Tensor, group: int, isa: Isa, threads: int) -> Tensor:
    """``x W^T`` as ``float32[M, R * blocks]``; ``tiles`` and ``scales`` are of :func:`tile`, ``group`` of the
    activations (:func:`activation_group`). ``x_MK`` is float32 and contiguous."""
    if not len(x_MK):  # the kernels' loops run once at least
        return torch.empty(0, len(tiles) * isa.rows)
    compiled = kernels(isa, 32 * tiles.shape[1] // x_MK.shape[1])
    tokens = next((m for m in isa.tokens if m >= len(x_MK)), isa.tokens[-1])
    parts = [
        _matmul(compiled, part, tiles, scales, group, tokens, threads) for part in torch.split(x_MK, _TOKENS_AT_ONCE)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _matmul(
    compiled: Kernels, x_MK: Tensor, tiles: Tensor, scales: Tensor, group: int, tokens: int, threads: int
) -> Tensor:
    rows, columns = x_MK.shape
    blocks, padded, groups = len(tiles), -(-rows // tokens) * tokens, columns // group
    a = torch.empty(padded, columns, dtype=torch.int8)
    steps, starts = torch.empty(padded, groups), torch.empty(padded, groups, dtype=torch.int32)
    for unused in (a[rows:], steps[rows:], starts[rows:]):
        unused.zero_()
    y = torch.empty(padded, blocks * compiled.isa.rows)
    much = too_much(compiled.isa, compiled.bits)
    compiled.quantize(x_MK.data_ptr(), a.data_ptr(), steps.data_ptr(), starts.data_ptr(), rows * groups, group, much)
    stride = compiled.isa.rows if scales.shape[1] > 1 else 0
    multiply = compiled.multiply[tokens]
    before = (tiles.data_ptr(), scales.data_ptr(), stride, a.data_ptr(), steps.data_ptr(), starts.data_ptr())
    after = (padded // tokens, groups, group // tile_columns(compiled.bits), y.shape[1])

    def work(first: int, last: int) -> None:
        multiply(*before, y.data_ptr(), first, last, *after)

    shares = min(threads, blocks, 1 + rows * columns * y.shape[1] // _WORTH_A_THREAD)
    edges = [blocks * number // shares for number in range(shares + 1)]
    others = [_pool(threads).submit(work, *edge) for edge in pairwise(edges[1:])]
    work(edges[0], edges[1])
    for other in others:
        other.result()
    return y[:rows]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="int4")
