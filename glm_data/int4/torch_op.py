"""INT4 on CPUs that there are no kernels of ours for: torch's own operator.

It multiplies bfloat16 activations and takes groups of 32 to 256 columns. Its packed bytes differ between CPUs, so they
are made when a model is loaded and never written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glm_data.int4.quantize import unpack_nibbles

_GROUPS = (256, 128, 64, 32)
_ROWS = 16
"""Packing wants a multiple of so many rows."""


def fits(rows: int, columns: int, group: int, bits: int) -> bool:
    """Whether the operator takes a matrix; ``group`` as in quantising."""
    return bits == 4 and rows % _ROWS == 0 and _group(columns, group) > 0


def _group(columns: int, group: int) -> int:
    """The widest of the operator's groups that a weight's group is made of; 0 if there is none."""
    whole = group or columns
    return next((size for size in _GROUPS if whole % size == 0 and columns % whole == 0), 0)


def pack(qweight: Tensor, scales: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """``uint8[N, K / 2]`` and ``float16[N, G]`` as the operator wants them: its bytes, ``bfloat16[K / group, N, 2]``.

    The second of each pair of the latter would be added to all weights of a group: it is 0.
    """
    levels = (unpack_nibbles(qweight) + 8).to(torch.int32)
    group = _group(columns, columns // scales.shape[1])
    scales_GN = scales.to(torch.bfloat16).repeat_interleave(columns // group // scales.shape[1], 1).t()
    packed = torch._convert_weight_to_int4pack_for_cpu(levels, 8)
    return packed, torch.stack([scales_GN, torch.zeros_like(scales_GN)], -1).contiguous()


def matmul(x_MK: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    """``x W^T`` as ``bfloat16[M, N]``; other types than bfloat16 would take a path that is 30 times slower."""
    x_MK = x_MK.to(torch.bfloat16).contiguous()
    return torch._weight_int4pack_mm_for_cpu(x_MK, packed, x_MK.shape[1] // len(scales), scales)
