"""Half precision: the network computes in it, the optimiser moves float32 masters of its weights.

::

    masters (float32) ── copied, rounded ──> weights (half) ── forward, backward ──> gradients (half)
        ^                                                                                │ added up in float32,
        └──────────── optimiser step <── clip <── divided by the loss scale <────────────┘ weight by weight

That is GLM-130B's arrangement (float16, Apex O2). bfloat16 has float32's range and needs no loss scale. In float32
the masters are the weights themselves and nothing is copied.
"""

from __future__ import annotations

from functools import partial

import msgspec
import torch
from torch import Tensor, nn

from glm_data.training.options import Precision


class LossScale(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The power of two that float16 losses are multiplied by, so that small gradients do not vanish.

    It halves when gradients overflow for the ``patience``-th time and doubles after ``window`` steps without (GLM-130B:
    2^16, hysteresis 2, window 2000).
    """

    scale: float = 2.0**16
    window: int = 2000
    patience: int = 2
    overflows: int = 0
    """Overflows since the scale was last changed."""
    good_steps: int = 0
    """Steps without an overflow since the last one or since the scale was last changed."""

    def update(self, finite: bool) -> None:
        """Take note of a step whose gradients were ``finite`` or not."""
        if not finite:
            self.overflows, self.good_steps = self.overflows + 1, 0
            if self.overflows >= self.patience:
                self.scale, self.overflows = max(1.0, self.scale / 2), 0
            return
        self.good_steps += 1
        if self.good_steps == self.window:
            self.scale, self.good_steps, self.overflows = self.scale * 2, 0, 0


class Masters:
    """The float32 weights of a network that computes in ``precision``, and their gradients."""

    def __init__(self, model: nn.Module, precision: Precision) -> None:
        self.model = model
        if precision == "float32":
            self.parameters = dict(model.named_parameters())
            return
        self.parameters = {
            name: nn.Parameter(parameter.detach().float().clone()) for name, parameter in model.named_parameters()
        }
        model.to(getattr(torch, precision))
        for name, parameter in model.named_parameters():
            hook = partial(_hand_over, self.parameters[name])
            parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients that there are."""
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the network's weights."""
        for name, weight in self.model.named_parameters():
            if weight is not self.parameters[name]:
                weight.copy_(self.parameters[name])


def _hand_over(master: nn.Parameter, half: Tensor) -> None:
    # At once and one by one: several backward passes add up in float32, and no second copy of all is ever held.
    if half.grad is not None:
        master.grad = half.grad.float() if master.grad is None else master.grad.add_(half.grad)
    half.grad = None
