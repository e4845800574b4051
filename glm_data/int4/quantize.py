"""Symmetric INT4 and INT8 for matrices: 15 or 255 levels, and one FP16 scale for a row or for each group of columns.

::

    W[n, k]  ~  scales[n, k // group] * q[n, k],      q in -7 .. 7 (INT4) or -127 .. 127 (INT8)

    qweight: uint8[N, K / 2]        INT4: one byte = columns 2j and 2j + 1, as q + 8:   | odd column | even column |
                                                                                          high nibble   low nibble
             int8[N, K]             INT8: q
    scales:  float16[N, ceil(K / group)]

The rule ``absmax`` is GLM-130B's, bit for bit: s = half(max|W| / 7), q = round(W / s), the quotient rounded to FP16
first if the weights are FP16 (GLM-130B paper, section 4 and the official code). ``mse`` tries smaller scales as well,
which clip the largest weights, and keeps the one of least squared error: rows have heavier tails than 15 even levels
are made for, and the error falls by a third or more. Where it is known what a matrix is multiplied with, columns weigh
in that error as much as their inputs are large (``importance``).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.errors import InputError

LEVELS = {4: 7, 8: 127}
"""The largest level by bits."""
ROWS_AT_ONCE = 1024
"""Rows of a matrix that are done in float at a time."""
_ROWS_SEARCHED = 64
"""Rows whose candidates are held at a time: 57 to a group of 32 are more than the weights."""
_CANDIDATES = torch.linspace(1.0, 0.3, 57).tolist()
"""Shares of the absmax scale that ``mse`` tries, the largest first: it wins a tie."""
_SMALLEST_HALF = 2.0**-24
_LARGEST_HALF = 65504.0


def quantize(
    weight_NK: Tensor, group: int, rule: str, bits: int = 4, importance_K: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Quantise a matrix in the CPU's memory: ``(qweight, scales float16[N, ceil(K / group)])``, see above.

    ``group`` 0 means whole rows; the last group may be shorter. ``importance_K`` weighs the squared errors of the
    columns under the rule ``mse``. Rows are done a thousand at a time, in float32, so the memory beyond input and
    output does not grow with the matrix. Raises :class:`InputError` for an odd number of columns in INT4 or weights
    that are not finite.
    """
    rows, columns = weight_NK.shape
    check_packable(columns, bits)
    shape, kind = ((rows, columns // 2), torch.uint8) if bits == 4 else ((rows, columns), torch.int8)
    whole = torch.empty(shape, dtype=kind), torch.empty(rows, -(-columns // (group or columns)), dtype=torch.float16)
    # Each block goes to its place: kept for one torch.cat they take twice the memory and leave holes in the heap.
    for block, *places in zip(*(torch.split(tensor, ROWS_AT_ONCE) for tensor in (weight_NK, *whole)), strict=True):
        for place, found in zip(places, _quantize_rows(block, group, rule, bits, importance_K), strict=True):
            place.copy_(found)
    return whole


def check_packable(columns: int, bits: int) -> None:
    """Raise :class:`InputError` for a width that cannot be packed."""
    if bits == 4 and columns % 2:
        raise InputError(f"a matrix of {columns} columns cannot be packed two a byte; give an even width, or 8 bits.")


def check_finite(weights: Tensor) -> None:
    """Raise :class:`InputError` for weights that no level stands for."""
    if not torch.isfinite(weights).all():
        raise InputError("the weights are not all finite numbers; train again from a checkpoint that is.")


def _quantize_rows(
    rows_NK: Tensor, group: int, rule: str, bits: int, importance_K: Tensor | None
) -> tuple[Tensor, Tensor]:
    check_finite(rows_NK)
    grouped = in_groups(rows_NK.detach().float(), group)
    importance = None if importance_K is None else in_groups(importance_K[None], group)
    scales = choose_scales(grouped, rule, bits, importance)
    quotients = _quotients(grouped, scales)
    if rule == "absmax" and rows_NK.dtype == torch.float16:
        quotients = quotients.half().float()
    levels = _to_levels(quotients, bits).flatten(1)[:, : rows_NK.shape[1]]
    return pack(levels, bits), scales


def in_groups(weight_NK: Tensor, group: int) -> Tensor:
    """``[N, K]`` as ``[N, G, C]``, the last group filled up with zeros."""
    rows, columns = weight_NK.shape
    size = group or columns
    return F.pad(weight_NK, (0, -columns % size)).view(rows, -1, size)


def choose_scales(weight_NGC: Tensor, rule: str, bits: int, importance_NGC: Tensor | None = None) -> Tensor:
    """The scales ``float16[N, G]`` by ``absmax`` (the largest weight becomes the largest level) or ``mse`` (of least
    squared error among shares of that). All in float32, in the CPU's memory."""
    top = weight_NGC.abs().amax(-1) / LEVELS[bits]
    if rule == "absmax":
        return _half(top)
    blocks = zip(*(torch.split(tensor, _ROWS_SEARCHED) for tensor in (weight_NGC, top)), strict=True)
    return torch.cat([_search(weights, tops, bits, importance_NGC) for weights, tops in blocks])


def _search(weight_NGC: Tensor, top_NG: Tensor, bits: int, importance_NGC: Tensor | None) -> Tensor:
    from glm_data.int4.scale_search import least_error  # numba takes a while, and running a model needs none of this

    groups, size = weight_NGC.shape[1:]
    candidates = _half(top_NG[..., None] * torch.tensor(_CANDIDATES)).flatten(0, 1)
    importance = torch.ones(1, size) if importance_NGC is None else importance_NGC.reshape(groups, size).contiguous()
    weights = weight_NGC.reshape(-1, size).contiguous().numpy()
    chosen = torch.empty(len(candidates), dtype=torch.int64)
    least_error(weights, importance.numpy(), candidates.float().numpy(), np.float32(LEVELS[bits]), chosen.numpy())
    return candidates.gather(1, chosen[:, None]).view(top_NG.shape)


def _half(scales: Tensor) -> Tensor:
    # An all-zero group has scale 0; one too small for FP16 gets the smallest number that FP16 has, not 0.
    bounded = scales.clamp(max=_LARGEST_HALF).half()
    return torch.where((bounded == 0) & (scales > 0), torch.full_like(bounded, _SMALLEST_HALF), bounded)


def to_levels(weight_NGC: Tensor, scales_NG: Tensor, bits: int) -> Tensor:
    """The nearest levels, as numbers of the weights' type."""
    return _to_levels(_quotients(weight_NGC, scales_NG), bits)


def _quotients(weight_NGC: Tensor, scales_NG: Tensor) -> Tensor:
    divisor = scales_NG.to(weight_NGC.dtype)[..., None]
    return weight_NGC / divisor.where(divisor > 0, torch.ones_like(divisor))


def _to_levels(quotients: Tensor, bits: int) -> Tensor:
    return quotients.round().clamp(-LEVELS[bits], LEVELS[bits])


def pack(levels_NK: Tensor, bits: int) -> Tensor:
    """Levels as they are stored."""
    return pack_nibbles(levels_NK) if bits == 4 else levels_NK.to(torch.int8)


def pack_nibbles(levels_NK: Tensor) -> Tensor:
    """Levels -8 to 7 to ``uint8[N, K / 2]``, the even column in the low nibble, as level + 8."""
    biased = (levels_NK + 8).to(torch.uint8)
    return biased[:, 0::2] | (biased[:, 1::2] << 4)


def unpack_nibbles(qweight: Tensor) -> Tensor:
    """``int8[N, K]`` levels of a packed matrix."""
    return torch.stack([qweight & 15, qweight >> 4], dim=-1).flatten(1).to(torch.int8) - 8


def dequantize(qweight: Tensor, scales: Tensor, group: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix ``[N, K]`` that a packed one stands for, of INT4 (uint8) or INT8 (int8)."""
    levels = (unpack_nibbles(qweight) if qweight.dtype == torch.uint8 else qweight).to(dtype)
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
