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

from glm_data.int4.kernel_ir import ISAS, Isa, tile_columns, too_much
from glm_data.int4.memory import in_huge_pages
from glm_data.int4.product_ir import module

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
        self.multiply = {tokens: self._multiply(tokens) for tokens in isa.streams}
        self.whole = {tokens: self._function(f"whole_{tokens}", 3, 0) for tokens in isa.streams}

    def _function(self, name: str, pointers: int, numbers: int) -> Any:
        kind = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * pointers), *([ctypes.c_int64] * numbers))
        return kind(self._engine.get_function_address(name))

    def _multiply(self, tokens: int) -> Any:
        p, n = ctypes.c_void_p, ctypes.c_int64
        kind = ctypes.CFUNCTYPE(None, p, p, n, p, p, p, p, p, n, n, n, n, n, n)
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
    tiles = in_huge_pages(4 * words * len(rows)).view(len(rows) // isa.rows, words, isa.rows, 4)
    kernels(isa, bits).tile(rows.data_ptr(), tiles.data_ptr(), len(tiles), words)
    return tiles


def tile_scales(scales: Tensor, isa: Isa) -> Tensor:
    """Scales ``float16[N, G]`` in the order of the kernels, ``float16[ceil(N / R), G, R]``."""
    padded = torch.nn.functional.pad(scales, (0, 0, 0, -len(scales) % isa.rows))
    return padded.view(-1, isa.rows, scales.shape[1]).transpose(1, 2).contiguous()


def tiled_rows(tiles: Tensor, rows_T: Tensor) -> Tensor:
    """The rows ``int8[T, K]`` of an INT8 matrix in the order of :func:`tile`."""
    per_tile = tiles.shape[2]
    return (tiles[rows_T // per_tile, :, rows_T % per_tile].flatten(1) ^ 128).view(torch.int8)


class Product:
    """``x W^T + b`` for a W in the order of the kernels. What calls need is worked out once, when it is made.

    At one token the kernel reads a matrix of 4096 x 4096 in 0.4 ms, with nothing of Python's left in the caches
    afterwards: every operation around it counts.
    """

    def __init__(self, tiles: Tensor, scales: Tensor, bias: Tensor, columns: int, size: int, isa: Isa) -> None:
        """``tiles`` and ``scales`` are of :func:`tile` and :func:`tile_scales`, ``bias`` is float32[N] for N rows of
        ``columns``, ``size`` is the group of the activations (:func:`activation_group`)."""
        bits = 32 * tiles.shape[1] // columns
        self.rows, self.columns, self._isa = len(bias), columns, isa
        self._compiled, self._too_much = kernels(isa, bits), too_much(isa, bits)
        self._size, self._groups = size, columns // size
        self._blocks, self._width = len(tiles), len(tiles) * isa.rows
        bias = torch.nn.functional.pad(bias, (0, self._width - self.rows))
        self._owned = (tiles, scales, bias)  # what the pointers point at
        stride = isa.rows if scales.shape[1] > 1 else 0
        self._weights = (tiles.data_ptr(), scales.data_ptr(), stride, bias.data_ptr())
        self._shape = (self._groups, size // tile_columns(bits), self._width)
        self._plan = (ctypes.c_int64 * 10)(*self._weights, self._blocks, *self._shape, size, self._too_much)
        self._plan_at = ctypes.addressof(self._plan)
        self._work = columns * self._width

    def __call__(self, x_MK: Tensor, threads: int) -> Tensor:
        """``float32[M, N]`` of ``x_MK``, float32 and contiguous."""
        tokens = len(x_MK)
        whole = self._compiled.whole.get(tokens)
        if whole and (threads == 1 or tokens * self._work < _WORTH_A_THREAD):
            y = torch.empty(tokens, self._width)
            whole(self._plan_at, x_MK.data_ptr(), y.data_ptr())
            return y if self._width == self.rows else y[:, : self.rows]
        at_once = self._isa.at_once(tokens)
        y = torch.empty(-(-tokens // at_once) * at_once, self._width)
        x_at, y_at = x_MK.data_ptr(), y.data_ptr()
        for first in range(0, tokens, _TOKENS_AT_ONCE):
            rows = min(_TOKENS_AT_ONCE, tokens - first)
            self._some(x_at + 4 * first * self.columns, y_at + 4 * first * self._width, rows, at_once, threads)
        return y if y.shape == (tokens, self.rows) else y[:tokens, : self.rows]

    def _some(self, x_at: int, y_at: int, rows: int, at_once: int, threads: int) -> None:
        """The same for as many ``rows`` of activations as are quantised at a time; all by address."""
        padded, groups = -(-rows // at_once) * at_once, self._groups
        memory = torch.empty if padded == rows else torch.zeros
        scratch = memory(padded * (self.columns + 8 * groups), dtype=torch.uint8)
        a = scratch.data_ptr()
        steps = a + padded * self.columns
        starts = steps + 4 * padded * groups
        self._compiled.quantize(x_at, a, steps, starts, rows * groups, self._size, self._too_much)
        multiply, given = self._compiled.multiply[at_once], (*self._weights, a, steps, starts, y_at)
        shares = min(threads, self._blocks, 1 + rows * self._work // _WORTH_A_THREAD)
        edges = [self._blocks * number // shares for number in range(shares + 1)]
        after = (padded // at_once, *self._shape)
        others = [_pool(threads).submit(multiply, *given, *edge, *after) for edge in pairwise(edges[1:])]
        multiply(*given, 0, edges[1], *after)
        for other in others:
            other.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="int4")
