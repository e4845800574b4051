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

BLOCK_ROWS = 16
_GROUPS = (32, 64, 128, 256)
"""Groups of weights that activations take over."""
_HIGH_BITS = -0x7F7F7F80
"""The highest bit of each byte: flipped, it adds 128 to a signed one."""
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
        self.quantize = self._function("quantize", 4, 3)
        self.multiply = {tokens: self._multiply(tokens) for tokens in isa.tokens}

    def _function(self, name: str, pointers: int, numbers: int) -> Any:
        kind = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * pointers), *([ctypes.c_int64] * numbers))
        return kind(self._engine.get_function_address(name))

    def _multiply(self, tokens: int) -> Any:
        p, n = ctypes.c_void_p, ctypes.c_int64
        kind = ctypes.CFUNCTYPE(None, p, p, n, p, p, p, p, n, n, n, n, n, n)
        return kind(self._engine.get_function_address(f"multiply_{tokens}"))


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


def tile(qweight: Tensor) -> Tensor:
    """Packed rows ``uint8[N, K / 2]`` (INT4) or ``int8[N, K]`` (INT8) in the order of the kernels,
    ``uint8[ceil(N / 16), K / 8 or K / 4, 16, 4]``."""
    zero = 0x88 if qweight.dtype == torch.uint8 else 0
    padded = torch.nn.functional.pad(qweight, (0, 0, 0, -len(qweight) % BLOCK_ROWS), value=zero).contiguous()
    # A row's 4 bytes of a tile are one number: columns 0 to 7 in nibbles 0, 4, 1, 5, 2, 6, 3, 7, counted from below.
    words = padded.view(torch.int32)
    nibbles = qweight.dtype == torch.uint8
    words = _swapped(_swapped(words, 0x0000FF00, 8), 0x00F000F0, 4) if nibbles else words ^ _HIGH_BITS
    tiles = words.view(-1, BLOCK_ROWS, words.shape[1]).transpose(1, 2).contiguous()
    return tiles.view(torch.uint8).view(*tiles.shape, 4)


def _swapped(words: Tensor, mask: int, bits: int) -> Tensor:
    """Change the bits of ``mask`` with those ``bits`` above them."""
    different = ((words >> bits) ^ words) & mask
    return words ^ different ^ (different << bits)


def tile_scales(scales: Tensor) -> Tensor:
    """Scales ``float16[N, G]`` in the order of the kernels, ``float16[ceil(N / 16), G, 16]``."""
    padded = torch.nn.functional.pad(scales, (0, 0, 0, -len(scales) % BLOCK_ROWS))
    return padded.view(-1, BLOCK_ROWS, scales.shape[1]).transpose(1, 2).contiguous()


def matmul(x_MK: Tensor, tiles: Tensor, scales: Tensor, group: int, isa: Isa, threads: int) -> Tensor:
    """``x W^T`` as ``float32[M, 16 * blocks]``; ``tiles`` and ``scales`` are of :func:`tile`, ``group`` of the
    activations (:func:`activation_group`). ``x_MK`` is float32 and contiguous."""
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
    y = torch.empty(padded, blocks * BLOCK_ROWS)
    much = too_much(compiled.isa, compiled.bits)
    compiled.quantize(x_MK.data_ptr(), a.data_ptr(), steps.data_ptr(), starts.data_ptr(), rows * groups, group, much)
    stride = BLOCK_ROWS if scales.shape[1] > 1 else 0
    multiply = compiled.multiply[tokens]
    before = (tiles.data_ptr(), scales.data_ptr(), stride, a.data_ptr(), steps.data_ptr(), starts.data_ptr())
    after = (padded // tokens, groups, group // tile_columns(compiled.bits), y.shape[1])

    def work(first: int, last: int) -> None:
        multiply(*before, y.data_ptr(), first, last, *after)

    shares = min(threads, blocks, 1 + rows * columns * blocks * BLOCK_ROWS // _WORTH_A_THREAD)
    edges = [blocks * number // shares for number in range(shares + 1)]
    others = [_pool(threads).submit(work, *edge) for edge in pairwise(edges[1:])]
    work(edges[0], edges[1])
    for other in others:
        other.result()
    return y[:rows]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="int4")
