"""Symmetric INT4 for matrices: 15 levels, -7 to 7, and one FP16 scale for a row or for each group of columns.

::

    W[n, k]  ~  scales[n, k // group] * q[n, k],      q in -7 .. 7

    qweight: uint8[N, K / 2]        one byte = columns 2j and 2j + 1, as q + 8:   | odd column | even column |
                                                                                    high nibble   low nibble
    scales:  float16[N, ceil(K / group)]

The rule ``absmax`` is GLM-130B's, bit for bit: s = half(max|W| / 7), q = round(W / s) (GLM-130B paper, section 4 and
the official code). ``mse`` tries smaller scales as well, which clip the largest weights, and keeps the one of least
squared error: rows have heavier tails than 15 even levels are made for, and the error falls by a third or more.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.errors import InputError

LEVELS = 7
_ROWS_AT_ONCE = 1024
_CANDIDATES = torch.linspace(1.0, 0.3, 57).tolist()
"""Shares of the absmax scale that ``mse`` tries, the largest first: it wins a tie."""
_SMALLEST_HALF = 2.0**-24
_LARGEST_HALF = 65504.0


def quantize(weight_NK: Tensor, group: int, rule: str) -> tuple[Tensor, Tensor]:
    """Quantise a matrix: ``(qweight uint8[N, K / 2], scales float16[N, ceil(K / group)])``.

    ``group`` 0 means whole rows; the last group may be shorter. Rows are done a thousand at a time, so the memory
    beyond input and output does not grow with the matrix. Raises :class:`InputError` for an odd number of columns or
    weights that are not finite.
    """
    if weight_NK.shape[1] % 2:
        raise InputError(f"a matrix of {weight_NK.shape[1]} columns cannot be packed two a byte; give an even width.")
    if not bool(torch.isfinite(weight_NK).all()):
        raise InputError("the weights hold values that are not finite; train again with a lower learning rate.")
    done = [_quantize_rows(block, group, rule) for block in torch.split(weight_NK, _ROWS_AT_ONCE)]
    return torch.cat([pack for pack, _ in done]), torch.cat([scales for _, scales in done])


def _quantize_rows(weight_NK: Tensor, group: int, rule: str) -> tuple[Tensor, Tensor]:
    columns = weight_NK.shape[1]
    grouped = _in_groups(weight_NK, group)
    scales = absmax_scales(grouped) if rule == "absmax" else mse_scales(grouped)
    levels = _levels(grouped, scales).flatten(1)[:, :columns]
    return pack_nibbles(levels), scales


def _in_groups(weight_NK: Tensor, group: int) -> Tensor:
    rows, columns = weight_NK.shape
    size = group or columns
    return F.pad(weight_NK, (0, -columns % size)).view(rows, -1, size)


def absmax_scales(weight_NGC: Tensor) -> Tensor:
    """GLM-130B's scales ``float16[N, G]``: the largest weight becomes level 7."""
    return _half(weight_NGC.abs().amax(-1) / LEVELS)


def mse_scales(weight_NGC: Tensor) -> Tensor:
    """The scales ``float16[N, G]`` of least squared error among shares of the absmax scale."""
    top = weight_NGC.abs().amax(-1) / LEVELS
    best = _half(top)
    least = _squared_error(weight_NGC, best)
    for share in _CANDIDATES[1:]:
        scales = _half(top * share)
        error = _squared_error(weight_NGC, scales)
        better = error < least
        best, least = torch.where(better, scales, best), torch.where(better, error, least)
    return best


def _half(scales: Tensor) -> Tensor:
    # An all-zero group has scale 0; one too small for FP16 gets the smallest number that FP16 has, not 0.
    bounded = scales.clamp(max=_LARGEST_HALF).half()
    return torch.where((bounded == 0) & (scales > 0), torch.full_like(bounded, _SMALLEST_HALF), bounded)


def _levels(weight_NGC: Tensor, scales_NG: Tensor) -> Tensor:
    divisor = scales_NG.to(weight_NGC.dtype)[..., None]
    return (weight_NGC / divisor.where(divisor > 0, torch.ones_like(divisor))).round().clamp(-LEVELS, LEVELS)


def _squared_error(weight_NGC: Tensor, scales_NG: Tensor) -> Tensor:
    found = _levels(weight_NGC, scales_NG) * scales_NG.to(weight_NGC.dtype)[..., None]
    return (found - weight_NGC).square().sum(-1)


def pack_nibbles(levels_NK: Tensor) -> Tensor:
    """Levels -8 to 7 to ``uint8[N, K / 2]``, the even column in the low nibble, as level + 8."""
    biased = (levels_NK + 8).to(torch.uint8)
    return biased[:, 0::2] | (biased[:, 1::2] << 4)


def unpack_nibbles(qweight: Tensor) -> Tensor:
    """``int8[N, K]`` levels of a packed matrix."""
    return torch.stack([qweight & 15, qweight >> 4], dim=-1).flatten(1).to(torch.int8) - 8


def dequantize(qweight: Tensor, scales: Tensor, group: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix ``[N, K]`` that a packed one stands for."""
    levels = unpack_nibbles(qweight).to(dtype)
    columns = levels.shape[1]
    return levels * scales.to(dtype).repeat_interleave(group or columns, dim=1)[:, :columns]


def to_glm130b(qweight: Tensor) -> Tensor:
    """Our bytes to GLM-130B's ``int8[N, K / 2]``: even column in the *high* nibble, two's complement."""
    levels = unpack_nibbles(qweight).view(torch.uint8) & 15
    return ((levels[:, 0::2] << 4) | levels[:, 1::2]).view(torch.int8)


def from_glm130b(packed: Tensor) -> Tensor:
    """GLM-130B's ``int8[N, K / 2]`` to our bytes."""
    data = packed.view(torch.uint8)
    nibbles = torch.stack([data >> 4, data & 15], dim=-1).flatten(1).to(torch.int8)
    return pack_nibbles(torch.where(nibbles > 7, nibbles - 16, nibbles))
