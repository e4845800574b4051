"""What moves the weights: AdamW, Adafactor, or Muon for the matrices of the layers and AdamW for the rest.

AdamW is what GLM-130B was trained with. Adafactor keeps sums of rows and columns instead of second moments, and no
first. Muon (momentum, orthogonalised) makes every direction of a matrix move equally far in a step, and learns from few
steps far more than AdamW: it is what makes a model of a minute's training worth looking at. torch has one as well,
which computes in bfloat16 and is slow on a CPU without it; this one is float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from glm_data.training.options import TrainOptions

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that drives singular values to about 1 in five steps (K. Jordan's Muon)."""


class Muon(torch.optim.Optimizer):
    """Momentum whose update is replaced by the nearest orthogonal matrix, with decoupled weight decay.

    A parameter that holds several matrices is orthogonalised matrix by matrix: its group's ``layout`` is ``whole``,
    ``glu`` (two halves) or the number of heads of a fused query-key-value matrix.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float, weight_decay: float) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay, "layout": "whole"})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])  # Nesterov's look ahead
                direction = join_matrices(orthogonalise(split_matrices(update, group["layout"])), group["layout"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])


def split_matrices(fused: Tensor, layout: str | int) -> Tensor:
    """The matrices ``[n, rows, columns]`` that a parameter holds."""
    if layout == "whole":
        return fused[None]
    if layout == "glu":
        return torch.unflatten(fused, 0, (2, -1))
    return torch.unflatten(fused, 0, (int(layout), 3, -1)).transpose(0, 1).flatten(1, 2)


def join_matrices(matrices: Tensor, layout: str | int) -> Tensor:
    """The inverse of :func:`split_matrices`."""
    if layout in ("whole", "glu"):
        return matrices.flatten(0, 1)
    return torch.unflatten(matrices, 1, (int(layout), -1)).transpose(0, 1).flatten(0, 2)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Each matrix with its singular values near 1 (within 0.7 to 1.2), times (rows / columns)^1/2 if it is tall."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x) * max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5


class Optimizers:
    """The optimisers of a run behind one face; ``peak`` of each group is its highest learning rate."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], heads: int, options: TrainOptions) -> None:
        self.parameters = parameters
        self.parts: list[torch.optim.Optimizer] = []
        tables = [p for name, p in parameters.items() if name.endswith("embeddings.weight")]
        matrices = {name: p for name, p in parameters.items() if p.ndim > 1 and not name.endswith("embeddings.weight")}
        vectors = [p for p in parameters.values() if p.ndim == 1]
        groups: list[dict[str, Any]] = [
            {"params": tables, "peak": options.embedding_lr or options.lr, "weight_decay": options.weight_decay},
            {"params": vectors, "peak": options.lr, "weight_decay": 0.0},  # no scale to decay
        ]
        if options.optimizer == "muon":
            muon = _muon_groups(matrices, heads, options.matrix_lr)
            self.parts.append(Muon(muon, options.momentum, options.weight_decay))
        else:
            groups.append({"params": list(matrices.values()), "peak": options.lr, "weight_decay": options.weight_decay})
        if options.optimizer == "adafactor":
            self.parts.append(torch.optim.Adafactor(groups, lr=options.lr))
        else:
            betas = (options.beta1, options.beta2)
            self.parts.append(torch.optim.AdamW(groups, lr=options.lr, betas=betas, eps=1e-8, fused=True))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def step(self, share: float) -> None:
        """Move the weights with ``share`` of the highest learning rates."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["peak"] * share
            part.step()

    def tensors(self) -> dict[str, Tensor]:
        """The moments, as ``<moment>/<parameter>``."""
        return {
            f"{moment}/{name}": tensor
            for name, parameter in self.parameters.items()
            for part in self.parts
            for moment, tensor in part.state.get(parameter, {}).items()
            if moment != "step"
        }

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Put back what :meth:`tensors` gave after ``step`` steps made."""
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            moment, _, name = key.partition("/")
            moments.setdefault(name, {})[moment] = tensor
        for part in self.parts:
            owned = {parameter for group in part.param_groups for parameter in group["params"]}
            for name, parameter in self.parameters.items():
                if parameter in owned and name in moments:
                    counted = {} if isinstance(part, Muon) else {"step": torch.tensor(float(step))}
                    part.state[parameter] = {
                        **counted,
                        **{moment: tensor.to(parameter.device) for moment, tensor in moments[name].items()},
                    }


def _muon_groups(matrices: Mapping[str, nn.Parameter], heads: int, peak: float) -> list[dict[str, Any]]:
    layouts = {"query_key_value": heads, "dense_h_to_4h": "glu"}
    return [
        {"params": [matrix], "peak": peak, "layout": layouts.get(name.split(".")[-2], "whole")}
        for name, matrix in matrices.items()
    ]
