"""What compiled code asks of 64 bytes at a time: which of them lie in a range, as the bits of one number.

LLVM compares vectors and packs the outcomes into bits (two instructions for 32 bytes where there is AVX2); Numba has no
word for that, so these few operations are given to it as LLVM's own. Nothing is checked: ``at`` to ``at + 64`` (``+ 8``
for :func:`load_eight`) must lie in the array.
"""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.core.cgutils import create_struct_proxy
from numba.extending import intrinsic

LANES = 64


@intrinsic
def within(_: Any, data: Any, at: Any, ored: Any, first: Any, count: Any) -> Any:
    """``uint64``: bit ``i`` says whether ``((data[at + i] | ored) - first) % 256 < count``."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(8), LANES)
        place = _place(context, builder, signature, arguments)
        lanes = builder.load(builder.bitcast(place, vector.as_pointer()))
        lanes.align = 1
        ored, first, count = (_splat(builder, value, vector) for value in arguments[2:])
        found = builder.icmp_unsigned("<", builder.sub(builder.or_(lanes, ored), first), count)
        return builder.bitcast(found, ir.IntType(LANES))

    return types.uint64(data, types.intp, types.intp, types.intp, types.intp), generate


@intrinsic
def load_eight(_: Any, data: Any, at: Any) -> Any:
    """``uint64``: the eight bytes from ``at`` on, the first one lowest."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        loaded = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        loaded.align = 1
        return loaded

    return types.uint64(data, types.intp), generate


@intrinsic
def trailing_zeros(_: Any, bits: Any) -> Any:
    """``int64``: zeros below the lowest one of a ``uint64``; 64 if there is none."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def count_ones(_: Any, bits: Any) -> Any:
    """``int64``: the ones of a ``uint64``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = create_struct_proxy(signature.args[0])(context, builder, value=arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _splat(builder: Any, value: Any, vector: Any) -> Any:
    from llvmlite import ir

    narrow = builder.trunc(value, vector.element)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), narrow, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))
