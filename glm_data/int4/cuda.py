"""INT4 on a GPU: a Triton kernel for few tokens at a time; for more, the matrix is unpacked to bf16 at every call."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.int4.quantize import dequantize

MOST_TOKENS = 64
"""Tokens up to which the kernel is used; beyond, unpacking costs less than it saves."""
_ALIGNED = 32
ROWS, WARPS, STAGES, SHARE = 64, 4, 3, 512
"""Matrix rows and bytes of a row that a program does, its warps and pipeline stages: the best on an H100."""


def fits(columns: int, group: int) -> bool:
    """Whether the kernel takes a matrix of ``columns`` and ``group`` (as in quantising)."""
    return columns % _ALIGNED == 0 and group % _ALIGNED == 0 and (group == 0 or columns % group == 0)


def linear(x_MK: Tensor, qweight: Tensor, scales: Tensor, bias: Tensor, group: int) -> Tensor:
    """``x W^T + bias`` as bfloat16 ``[M, N]``; ``x_MK`` bfloat16, the rest as in the folder, all on the GPU."""
    if len(x_MK) > MOST_TOKENS or not fits(x_MK.shape[1], group):
        return F.linear(x_MK, dequantize(qweight, scales, group, torch.bfloat16), bias.to(torch.bfloat16))
    return launch(x_MK, qweight, scales, bias, group)


def launch(x_MK: Tensor, qweight: Tensor, scales: Tensor, bias: Tensor, group: int) -> Tensor:
    """The kernel's ``x W^T + bias``."""
    import triton.language as tl

    from glm_data.int4.triton_kernels import add_shares, multiply

    tokens, (rows, half), groups = len(x_MK), qweight.shape, scales.shape[1]
    group_bytes = (group or x_MK.shape[1]) // 2
    tile = next(size for size in (64, 32, 16) if group_bytes % size == 0)
    shares = -(-half // SHARE)
    x_2MJ = x_MK.view(tokens, half, 2).permute(2, 0, 1).contiguous()
    sums_SMN = torch.empty(shares, tokens, rows, dtype=torch.float32, device=x_MK.device)
    y_MN = torch.empty(tokens, rows, dtype=torch.bfloat16, device=x_MK.device)
    at_once = 16 if tokens <= 16 else 32
    multiply[(-(-rows // ROWS), shares, -(-tokens // at_once))](
        x_2MJ, qweight, scales, sums_SMN, tokens, rows, half, groups, group_bytes,
        SHARE=SHARE, TOKENS=at_once, ROWS=ROWS, BYTES=tile, OPERAND=tl.bfloat16 if x_MK.is_cuda else tl.float32,
        num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    size = tokens * rows
    add_shares[(-(-size // 512),)](sums_SMN, bias, y_MN, rows, size, SHARES=shares, WIDTH=512)
    return y_MN
