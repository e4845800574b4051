"""INT4 weights times bf16 activations on a GPU, in Triton.

Weights are read as the folder holds them (``quantize.py``): no second layout, any group that is a multiple of 32
columns, or whole rows. A nibble becomes a number without an integer-to-float conversion, which GPUs do at a quarter of
the speed: it is put into the low bits of a float whose last bit is worth 1, and what that float is too large is
subtracted. The columns are cut into shares, so that there are programs enough to keep the memory busy; their sums are
float32 and added in a fixed order: the same bits every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

_MAGIC = tl.constexpr(0x4B000000)
"""Float32 2^23, whose last mantissa bit is worth 1."""
_MAGIC_ZERO = tl.constexpr(8388616.0)
"""2^23 and the 8 that packed levels carry too much."""


@triton.jit
def multiply(
    x, w, scales, sums, n_tokens, n_rows, k_bytes, groups, group_bytes,
    SHARE: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr, OPERAND: tl.constexpr,
):  # fmt: skip
    """sums[S, M, N] = x W^T over each of S shares of the columns, on the matrix units.

    x: bfloat16[2, M, K / 2], even columns and odd ones; w: uint8[N, K / 2]; scales: float16[N, groups]. A program does
    ``ROWS`` rows, ``TOKENS`` tokens and ``SHARE`` bytes of each row; ``BYTES`` divides ``group_bytes`` and ``SHARE``,
    so that a tile has one scale a row. ``OPERAND`` is the type of the products: bfloat16, but for the interpreter,
    which has none.
    """
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    share = tl.program_id(1)
    m = tl.program_id(2) * TOKENS + tl.arange(0, TOKENS)
    inside, wanted = n < n_rows, m < n_tokens
    byte = tl.arange(0, BYTES)
    total = tl.zeros((ROWS, TOKENS), tl.float32)
    for step in range(0, SHARE, BYTES):
        first = share * SHARE + step
        at = first + byte
        there = at < k_bytes
        both = inside[:, None] & there[None, :]
        packed = tl.load(w + n[:, None].to(tl.int64) * k_bytes + at[None, :], mask=both, other=0)
        wide = packed.to(tl.int32)
        low = ((wide & 15) | _MAGIC).to(tl.float32, bitcast=True) - _MAGIC_ZERO
        high = ((wide >> 4) | _MAGIC).to(tl.float32, bitcast=True) - _MAGIC_ZERO
        place = x + m[None, :] * k_bytes + at[:, None]
        used = there[:, None] & wanted[None, :]
        even = tl.load(place, mask=used, other=0.0)
        odd = tl.load(place + n_tokens * k_bytes, mask=used, other=0.0)
        part = tl.dot(low.to(OPERAND), even.to(OPERAND))
        part = tl.dot(high.to(OPERAND), odd.to(OPERAND), part)
        scale = tl.load(scales + n * groups + first // group_bytes, mask=inside & (first < k_bytes), other=0.0)
        total += part * scale.to(tl.float32)[:, None]
    out = sums + (share * n_tokens + m[None, :]) * n_rows + n[:, None]
    tl.store(out, total, mask=inside[:, None] & wanted[None, :])


@triton.jit
def add_shares(sums, bias, y, n_rows, size, SHARES: tl.constexpr, WIDTH: tl.constexpr):
    """y[M, N] = bias + the sum of ``SHARES`` shares; ``size`` is M x N."""
    at = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
    there = at < size
    total = tl.load(bias + at % n_rows, mask=there, other=0.0).to(tl.float32)
    for share in tl.static_range(SHARES):
        total += tl.load(sums + share * size + at, mask=there, other=0.0)
    tl.store(y + at, total.to(tl.bfloat16), mask=there)
