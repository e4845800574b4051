"""What processors do in one instruction and Python cannot say: 8 or 64 bytes at once, bits counted and found.

LLVM compares vectors and packs the outcomes into bits (two instructions for 32 bytes where there is AVX2); Numba has no
word for that, so these few operations are given to it as LLVM's own. Nothing is checked: the bytes that are looked at
must lie in the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from glm_data.kernels import inlined

LANES = 64
"""Bytes that :func:`within` looks at."""

_HIGH, _LOW, _BLANKS = np.uint64(0x8080808080808080), np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x2020202020202020)
_ONES = np.uint64(0x0101010101010101)
_TO_A, _BEYOND_Z = np.uint64(0x1F1F1F1F1F1F1F1F), np.uint64(0x0505050505050505)
"""Carry into the highest bit of each byte that is at least ``a``, and beyond ``z``."""


@intrinsic
def pointer(_: Any, array: Any) -> Any:
    """The address of a contiguous array's first value, indexed as the array is, but without bounds, negative places and
    a count of references: what a kernel gives to what it calls of every word. The array must outlive it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def further(_: Any, values: Any, count: Any) -> Any:
    """The pointer to what stands ``count`` values behind a pointer's first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return values(values, types.int64), generate


@intrinsic
def load_word(_: Any, values: Any, index: Any) -> Any:
    """The eight bytes from ``values[index]`` (a pointer) on as one ``uint64``, little-endian."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(values, types.int64), generate


@intrinsic
def store_wide(_: Any, values: Any, index: Any, word: Any) -> Any:
    """Write the eight bytes of ``word`` as as many ``uint32`` from ``values[index]`` (a pointer) on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = builder.bitcast(arguments[2], ir.VectorType(ir.IntType(8), 8))
        wide = builder.zext(lanes, ir.VectorType(ir.IntType(32), 8))
        place = builder.gep(arguments[0], [arguments[1]])
        builder.store(wide, builder.bitcast(place, wide.type.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(values, types.int64, types.uint64), generate


@intrinsic
def trailing_zeros(_: Any, word: Any) -> Any:
    """Zero bits below the lowest one that is set; 64 of zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def count_ones(_: Any, bits: Any) -> Any:
    """``int64``: the ones of a ``uint64``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def within(_: Any, values: Any, at: Any, ored: Any, first: Any, count: Any) -> Any:
    """``uint64``: bit ``i`` (of :data:`LANES`) says whether ``((values[at + i] | ored) - first) % 256 < count``;
    ``values`` is a pointer to bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), LANES)
        place = builder.gep(arguments[0], [arguments[1]])
        lanes = builder.load(builder.bitcast(place, vector.as_pointer()))
        lanes.align = 1
        ored, first, count = (_splat(builder, value, vector) for value in arguments[2:])
        found = builder.icmp_unsigned("<", builder.sub(builder.or_(lanes, ored), first), count)
        return builder.bitcast(found, ir.IntType(LANES))

    return types.uint64(values, types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def copy_lanes(_: Any, target: Any, to: Any, source: Any, at: Any) -> Any:
    """Copy the :data:`LANES` bytes from ``source[at]`` on to ``target[to]``; both are pointers to bytes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), LANES).as_pointer()
        there, here = (
            builder.bitcast(builder.gep(array, [index]), kind) for array, index in (arguments[:2], arguments[2:])
        )
        lanes = builder.load(here)
        lanes.align = 1
        builder.store(lanes, there).align = 1
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64), generate


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    narrow = builder.trunc(value, vector.element)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), narrow, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


@inlined
def first_lanes(count: int) -> Any:
    """The bits of the first ``count`` (1 to 64) of 64 bytes."""
    return ~np.uint64(0) >> np.uint64(LANES - count)


@inlined
def leading_letters(word: Any) -> Any:
    """How many of eight bytes, from the first on, are ASCII letters: 0 to 8."""
    low = (word | _BLANKS) & _LOW
    letters = (low + _TO_A) & ~(low + _BEYOND_Z) & ~word & _HIGH
    return trailing_zeros(letters ^ _HIGH) >> 3


@inlined
def first_bytes(data: Any, start: int, size: int, limit: int) -> Any:
    """The ``size`` bytes (1 to 8) from ``start`` on, as a ``uint64`` whose higher bytes are zero; ``data`` is a pointer
    to ``limit`` bytes."""
    if start + 8 <= limit:
        return load_word(data, start) & (~np.uint64(0) >> np.uint64(64 - 8 * size))
    word = np.uint64(0)
    for place in range(size):
        word |= np.uint64(data[start + place]) << np.uint64(8 * place)
    return word


@inlined
def has_byte(word: Any, eight: Any) -> bool:
    """Whether one of the eight bytes of ``word`` is the byte that ``eight`` repeats."""
    return has_zero_byte(word ^ eight)


@inlined
def has_zero_byte(word: Any) -> bool:
    """Whether one of eight bytes is 0."""
    return bool((word - _ONES) & ~word & _HIGH != 0)
