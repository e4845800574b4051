"""Cross-entropy at the tied output, without ever holding all logits.

The logits of P loss tokens over a vocabulary of V are the largest thing a step would make (1,200 x 150,528 floats are
0.7 GB). Here they exist for a few hundred tokens at a time: forward, softmax and both gradients of a chunk are done
while it is in the cache, in place. A third faster than head, cross-entropy and backward apart, and the same numbers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.model.model import GLM

CHUNK, CHUNK_CUDA = 256, 4096
"""Loss tokens at a time: what stays in a CPU's cache, what fills a GPU."""


def head_loss(x_PD: Tensor, weight_VD: Tensor, targets_P: Tensor, weights_P: Tensor) -> tuple[Tensor, Tensor]:
    """``(sum over P of weight * cross-entropy, cross-entropy[P])`` in nats; only the sum carries gradients."""
    loss, losses_P = _HeadLoss.apply(x_PD, weight_VD, targets_P, weights_P)  # type: ignore[no-untyped-call]
    return loss, losses_P


def losses_at(model: GLM, x_PD: Tensor, targets_P: Tensor) -> Tensor:
    """Cross-entropies in nats ``[P]`` of ``model``'s head at features ``x_PD``, for measuring: without gradients."""
    chunk = CHUNK_CUDA if x_PD.is_cuda else CHUNK
    wide = torch.promote_types(x_PD.dtype, torch.float32)
    parts = zip(torch.split(x_PD, chunk), torch.split(targets_P, chunk), strict=True)
    with torch.no_grad():
        return torch.cat([F.cross_entropy(model.head(x).to(wide), targets, reduction="none") for x, targets in parts])


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_PD: Tensor, weight_VD: Tensor, targets_P: Tensor, weights_P: Tensor) -> Any:
        wide = torch.promote_types(x_PD.dtype, torch.float32)  # of half precision only the products are half
        losses_P = x_PD.new_empty(len(targets_P), dtype=wide)
        gradient_PD, gradient_VD = torch.empty_like(x_PD), torch.zeros_like(weight_VD, dtype=wide)
        chunk = CHUNK_CUDA if x_PD.is_cuda else CHUNK
        for first in range(0, len(targets_P), chunk):
            part = slice(first, first + chunk)
            targets_C1, weights_C1 = targets_P[part, None], weights_P[part, None].to(wide)
            scores_CV = (x_PD[part] @ weight_VD.t()).to(wide)
            top_C1 = scores_CV.amax(1, keepdim=True)
            wanted_C1 = scores_CV.gather(1, targets_C1) - top_C1
            total_C1 = scores_CV.sub_(top_C1).exp_().sum(1, keepdim=True)
            losses_P[part] = (total_C1.log() - wanted_C1)[:, 0]
            # From here on scores_CV holds the gradient of the scores: weight * (softmax - one at the target).
            scores_CV.mul_(weights_C1 / total_C1).scatter_add_(1, targets_C1, -weights_C1)
            scores_CV = scores_CV.to(x_PD.dtype)
            gradient_PD[part] = scores_CV @ weight_VD
            if wide == x_PD.dtype:
                gradient_VD.addmm_(scores_CV.t(), x_PD[part])
            else:
                gradient_VD += scores_CV.t() @ x_PD[part]
        ctx.save_for_backward(gradient_PD, gradient_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(losses_P)
        return torch.dot(losses_P, weights_P.to(wide)), losses_P

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient_PD, gradient_VD = ctx.saved_tensors
        return gradient_PD * gradients[0], gradient_VD * gradients[0], None, None
