"""What a step does to the weights: gradients of microbatches, their norm, clipping, the optimiser.

One device; ``parallel.py`` does the same over many. The loss of a step is a weighted sum whose weights add up to 1 over
all of its loss tokens, so that it means the same however the step is cut into microbatches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from glm_data.model.model import GLM
from glm_data.training.batches import FlatBatch, IntArray, Rows, check_width, flatten, positions_of
from glm_data.training.distill import Teacher, distilled_loss
from glm_data.training.losses import batch_loss, loss_weights, weight
from glm_data.training.optimizer import Optimizers
from glm_data.training.options import TrainOptions
from glm_data.training.precision import LossScale, Masters


class Engine:
    """A model with its masters and optimisers on one device."""

    def __init__(self, model: GLM, options: TrainOptions, teacher: Teacher | None = None) -> None:
        self.options, self.device, self.teacher = options, torch.device(options.device), teacher
        self.model = model.to(self.device)
        self.model.recompute = options.recompute
        self.masters = Masters(model, options.precision)
        self.optimizers = Optimizers(self.masters.parameters, model.config.heads, options)
        self.scale = LossScale() if options.precision == "float16" else None
        if options.compile:
            for layer in model.layers:
                layer.compile()

    def microbatches(self, rows: Rows, indices: IntArray, epochs: IntArray) -> list[FlatBatch]:
        """The rows of a step, flat, ``micro_rows`` at a time."""
        size = self.options.micro_rows or len(indices)
        return [
            self._flatten(rows, indices[first : first + size], epochs[first : first + size])
            for first in range(0, len(indices), size)
        ]

    def _flatten(self, rows: Rows, indices: IntArray, epochs: IntArray) -> FlatBatch:
        positions = positions_of(self.model.config)
        batch = rows.batch(indices.tolist(), epoch=epochs, positions=positions)
        check_width(self.model.config, batch.tokens.shape[1])
        if self.device.type == "cpu":
            return flatten(batch)
        # One shape for all microbatches: compiled layers and the allocator meet it again and again.
        flat = flatten(batch, len(indices) * batch.tokens.shape[1])
        in_parts = self.options.precision != "float32" and self.model.config.softmax == "fused"
        return (flat.parts_apart() if in_parts else flat).to(self.device)

    def gradients(self, batches: Sequence[FlatBatch]) -> list[Tensor]:
        """Put the gradient of the step into the masters; returns the losses of each microbatch's predicting tokens."""
        self.optimizers.zero_grad()
        whole = sum(weight(batch, self.options.weighting) for batch in batches)
        losses = []
        for batch in batches:
            weights_P = loss_weights(batch, self.options.weighting, whole).to(self.device)
            if self.scale:
                weights_P = weights_P * self.scale.scale
            if self.teacher is None:
                loss, losses_P = batch_loss(self.model, batch, weights_P)
            else:
                loss, losses_P = distilled_loss(self.model, batch, weights_P, self.teacher)
            if losses_P.numel():
                torch.autograd.backward(loss)
            losses.append(losses_P)
        return losses

    def norm(self) -> float:
        """Norm of the gradient, its loss scale taken out; not finite after an overflow, which the scale heeds."""
        gradients = self.masters.gradients
        if self.scale:
            torch._foreach_mul_(gradients, 1 / self.scale.scale)
        self._norm = nn.utils.get_total_norm(gradients, foreach=True)
        norm = float(self._norm)
        if self.scale:
            self.scale.update(math.isfinite(norm))
        return norm

    def update(self, share: float) -> None:
        """Clip the gradient and move the weights with ``share`` of the highest learning rates."""
        if self.options.clip:
            weights = self.masters.parameters.values()
            nn.utils.clip_grads_with_norm_(weights, self.options.clip, self._norm, foreach=True)
        self.optimizers.step(share)
        self.masters.publish()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments, as checkpoints keep them."""
        weights = {f"parameters/{name}": weight.detach() for name, weight in self.masters.parameters.items()}
        return weights | self.optimizers.tensors()

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Put back what :meth:`tensors` gave after ``steps`` steps made."""
        with torch.no_grad():
            for name, parameter in self.masters.parameters.items():
                parameter.copy_(tensors[f"parameters/{name}"])
        moments = {name: tensor for name, tensor in tensors.items() if not name.startswith("parameters/")}
        self.optimizers.load(moments, steps)
        self.masters.publish()

    def exported(self) -> GLM:
        """A model on the CPU with the float32 weights."""
        model = GLM(self.model.config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(self.masters.parameters[name])
        return model
