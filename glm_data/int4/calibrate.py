"""Quantising with an eye on what a model's matrices are multiplied with: inputs measured on packed rows.

Layer by layer, the rows pass through the model, the layers before already quantised, and each matrix sees its inputs
x. Rounding W to W' costs ||(W - W') x||, which the second moments of x decide, M = sum of x x^T:

- ``activation``: scales are searched for the least squared error with columns weighed by the diagonal of M;
- ``feedback`` (GPTQ, Frantar et al. 2022): columns are rounded one after the other, and what a column was rounded off
  by is made good by the columns after it, as far as M says that they go together. The groups of a row get their scales
  as they come up.

Only one layer of the model is in memory at a time, beside the states of the rows and M, which is K x K for a matrix of
K columns: for models whose layers are some thousand wide. The same bits every time on the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from glm_data.errors import InputError
from glm_data.int4.options import QuantizeOptions
from glm_data.int4.quantize import check_finite, choose_scales, dequantize, in_groups, pack, quantize, to_levels
from glm_data.model.attention import PieceAttention
from glm_data.model.config import ModelConfig
from glm_data.model.model import valueless
from glm_data.training.batches import FlatBatch

_DAMPING = 0.01
"""Share of the mean second moment that is added to all: columns that never vary have to be inverted as well."""
_COLUMNS_AT_ONCE = 128
_TINY = 1e-30

Packed = tuple[Tensor, Tensor]


class Calibration:
    """A model that is quantised layer by layer, in order, on ``batches``; ``outside`` has what is not in layers."""

    def __init__(
        self,
        config: ModelConfig,
        outside: Mapping[str, Tensor],
        batches: Sequence[FlatBatch],
        options: QuantizeOptions,
    ) -> None:
        self.options = options
        self.model = valueless(config).eval()
        self.model.load_state_dict(
            {name: tensor.float() for name, tensor in outside.items()}, assign=True, strict=False
        )
        with torch.no_grad():
            embedded = [self.model.embed(batch.tokens_T, batch.positions_T) for batch in batches]
        self._states = [state_TD for state_TD, _ in embedded]
        self._rotaries = [rotary for _, rotary in embedded]
        self._attends = [PieceAttention(batch.groups, 0.0, config.softmax) for batch in batches]

    @torch.no_grad()
    def quantize_layer(self, number: int, tensors: Mapping[str, Tensor]) -> dict[str, Packed]:
        """Quantise the matrices of layer ``number``, whose ``tensors`` have their names within it; by those names.

        Raises :class:`InputError` for weights that are not finite, and where what they are multiplied with is not.
        """
        layer = self.model.layers[number]
        layer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
        matrices = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
        for matrix in matrices.values():
            check_finite(matrix.weight)
        packed: dict[str, Packed] = {}
        for name, moments_KK in self._moments(layer, matrices).items():
            weight_NK = matrices[name].weight
            if not torch.isfinite(moments_KK).all():
                raise InputError(
                    f"the inputs of layer {number}'s {name} are not all finite numbers; quantise without calibration, "
                    "or train again from a checkpoint that is."
                )
            packed[name] = self._quantize(weight_NK, moments_KK)
            weight_NK.data = dequantize(*packed[name], self.options.group)
        self._states = [self._run(layer, number) for number in range(len(self._states))]
        layer.to("meta")
        return packed

    def _run(self, layer: nn.Module, batch: int) -> Tensor:
        state_TD: Tensor = layer(self._states[batch], self._rotaries[batch], self._attends[batch])
        return state_TD

    def _moments(self, layer: nn.Module, matrices: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
        """Of each matrix the second moments of its inputs, ``float64[K, K]``; for ``activation`` their diagonal."""
        whole = self.options.calibration == "feedback"
        moments = {
            name: torch.zeros(matrix.in_features, matrix.in_features if whole else 1, dtype=torch.float64)
            for name, matrix in matrices.items()
        }

        def hook(name: str) -> Callable[..., None]:
            def add(_: nn.Module, given: tuple[Any, ...]) -> None:
                x_TK = given[0].double()
                moments[name] += x_TK.t() @ x_TK if whole else x_TK.square().sum(0)[:, None]

            return add

        handles = [matrix.register_forward_pre_hook(hook(name)) for name, matrix in matrices.items()]
        for batch in range(len(self._states)):
            self._run(layer, batch)
        for handle in handles:
            handle.remove()
        return moments

    def _quantize(self, weight_NK: Tensor, moments_KK: Tensor) -> Packed:
        options = self.options
        if options.calibration == "feedback":
            return quantize_with_feedback(weight_NK, moments_KK, options.group, options.scale, options.bits)
        importance_K = (moments_KK[:, 0] / moments_KK.mean().clamp(min=_TINY)).float()
        return quantize(weight_NK, options.group, options.scale, options.bits, importance_K)


def quantize_with_feedback(weight_NK: Tensor, moments_KK: Tensor, group: int, rule: str, bits: int) -> Packed:
    """GPTQ: ``(qweight, scales)`` as :func:`~glm_data.int4.quantize.quantize`'s, for inputs of ``moments_KK``.

    With U the upper Cholesky factor of the inverse moments, column k rounded off by e costs (e / U[k, k])^2 at best,
    and that is reached when the columns j after it move by -e U[k, j] / U[k, k].
    """
    columns = weight_NK.shape[1]
    factor_KK = _inverse_factor(moments_KK)
    importance_K = factor_KK.diagonal().square().reciprocal()
    importance_K = (importance_K / importance_K.mean()).float()
    rest_NK = weight_NK.to(torch.float64, copy=True)
    if not group:
        scales = choose_scales(in_groups(weight_NK.float(), 0), rule, bits, in_groups(importance_K[None], 0))
    levels, chosen = [], []
    for first in range(0, columns, group or _COLUMNS_AT_ONCE):
        part = slice(first, min(columns, first + (group or _COLUMNS_AT_ONCE)))
        block = rest_NK[:, part]
        if group:
            scales = choose_scales(block.float()[:, None], rule, bits, importance_K[part][None, None])
            chosen.append(scales)
        found, errors = _round_block(block, scales, factor_KK[part, part], bits)
        levels.append(found)
        rest_NK[:, part.stop :] -= errors @ factor_KK[part, part.stop :]
    return pack(torch.cat(levels, 1), bits), torch.cat(chosen, 1) if group else scales


def _round_block(block_NB: Tensor, scales_N1: Tensor, factor_BB: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round columns from left to right: their levels, and each one's error divided by its place in the diagonal."""
    rest_NB = block_NB.clone()
    levels, errors = torch.empty_like(rest_NB), torch.empty_like(rest_NB)
    steps_N = scales_N1[:, 0].double()
    for place in range(rest_NB.shape[1]):
        levels[:, place] = to_levels(rest_NB[:, place, None], steps_N, bits)[:, 0]
        errors[:, place] = (rest_NB[:, place] - levels[:, place] * steps_N) / factor_BB[place, place]
        rest_NB[:, place:] -= errors[:, place, None] * factor_BB[place, place:]
    return levels, errors


def _inverse_factor(moments_KK: Tensor) -> Tensor:
    """The upper triangular U with U^T U = (M + damping)^-1."""
    damping = _DAMPING * float(moments_KK.diagonal().mean()) or 1.0
    damped = moments_KK + damping * torch.eye(len(moments_KK), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    return torch.linalg.cholesky(inverse, upper=True)
