"""The inner loop of MinHash in vector registers: minima of many permutations at once, one shingle after the other.

A register holds eight permutations, a shingle is spread over all lanes. So a text of few shingles costs no more for
each of them than a long one, and nothing has to be brought together across lanes, as there is where a register holds
eight shingles. LLVM makes this of no loop that Numba can say; it is given to it here.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_LANES = 8
_VECTOR = ir.VectorType(ir.IntType(32), _LANES)
_SIGNATURE = types.void(
    types.CPointer(types.uint32),
    types.int64,
    types.CPointer(types.uint32),
    types.CPointer(types.uint32),
    types.CPointer(types.uint32),
    types.int64,
)


@intrinsic
def lower_32(_: Any, minima: Any, first: Any, a: Any, b: Any, values: Any, size: Any) -> Any:
    """Lower the 32 ``minima`` from ``first`` on to the least of ``a * value + b`` modulo 2^32 (all ``uint32``, given as
    pointers) over the ``size`` values.

    Four registers each of ``a``, ``b`` and minima are what 16 leave room for; with five LLVM keeps minima in memory.
    """
    return _SIGNATURE, _lower(4)


@intrinsic
def lower_24(_: Any, minima: Any, first: Any, a: Any, b: Any, values: Any, size: Any) -> Any:
    """As :func:`lower_32`, of 24."""
    return _SIGNATURE, _lower(3)


def _lower(vectors: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        minima, first, a, b, values, size = arguments
        places = [builder.add(first, ir.Constant(first.type, _LANES * number)) for number in range(vectors)]
        factors, addends, least = ([_load(builder, table, at) for at in places] for table in (a, b, minima))
        held = [cgutils.alloca_once_value(builder, vector) for vector in least]
        with cgutils.for_range(builder, size) as loop:
            value = _spread(builder, builder.load(builder.gep(values, [loop.index])))
            for factor, addend, slot in zip(factors, addends, held, strict=True):
                permuted, lowest = builder.add(builder.mul(factor, value), addend), builder.load(slot)
                builder.store(builder.select(builder.icmp_unsigned("<", permuted, lowest), permuted, lowest), slot)
        for at, slot in zip(places, held, strict=True):
            builder.store(builder.load(slot), _place(builder, minima, at)).align = 4
        return context.get_dummy_value()

    return generate


def _place(builder: Any, table: Any, at: Any) -> Any:
    return builder.bitcast(builder.gep(table, [at]), _VECTOR.as_pointer())


def _load(builder: Any, table: Any, at: Any) -> Any:
    vector = builder.load(_place(builder, table, at))
    vector.align = 4
    return vector


def _spread(builder: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None))
