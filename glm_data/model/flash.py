"""Blank-infilling attention on CUDA: three calls for the pieces of a whole batch, by the flash attention torch ships.

The flat tokens lie apart here, parts A of all pieces first, then parts B, then padding, so that nothing is copied::

              keys:  A A A A | B B B          call 1: A on A, both ways
    queries A        1 1 1 1 | . . .          call 2: B on A, both ways
    queries B        2 2 2 2 | 3 . .          call 3: B on B, left to right
                     2 2 2 2 | 3 3 .
                     2 2 2 2 | 3 3 3

Calls 2 and 3 share their queries: each gives a weighted mean over its keys and the logarithm of the weights' sum, and
from these follows the mean over all keys. On the way back each call is given the joint result and the joint logarithm,
with which its gradients are its exact share. Pieces of any shape share the calls (they are of variable length), padding
costs nothing, no mask exists; softmax and sums are float32, q, k and v half precision.

All of it is one operator, so that ``torch.compile`` sees a single node of fixed shape however the pieces are cut. The
kernels are called as operators because ``torch.nn.attention.varlen`` has neither dropout nor joint logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glm_data.model.attention import Group

PIECES_STEP = 64
"""The tables are filled up to a multiple of this with empty pieces, so that compiled code meets few shapes."""


class Tables(NamedTuple):
    """Where the pieces lie: two arrays ``int32[P + 1]`` on the device, and ``int64[2]`` on the CPU."""

    bounds_a: Tensor
    """Where each part A begins."""
    bounds_b: Tensor
    """Where each part B begins, counted from the first part B."""
    sizes: Tensor
    """Tokens of all parts A, of all parts B."""
    longest: int
    """No piece is longer."""


def parts_apart(groups: Sequence[Group]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Where the tokens of pieces in a row stand when all parts A come first: ``int64[T]``, places of the old order."""
    contexts, sizes = _piece_sizes(groups)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.argsort(within >= np.repeat(contexts, sizes), kind="stable")


def make_tables(groups: Sequence[Group], longest: int, device: torch.device | str) -> Tables:
    """The tables of the pieces in ``groups``."""
    contexts, sizes = _piece_sizes(groups)
    empty = [0] * (-len(sizes) % PIECES_STEP)
    bounds = [[0, *accumulate([*part.tolist(), *empty])] for part in (contexts, sizes - contexts)]
    first, second = (torch.tensor(part, dtype=torch.int32).to(device, non_blocking=True) for part in bounds)
    return Tables(first, second, torch.tensor([part[-1] for part in bounds]), longest)


class FlashAttention:
    """An ``Attend`` on CUDA in half precision over tokens that lie parts apart; equal to ``PieceAttention``."""

    def __init__(self, tables: Tables, dropout: float = 0.0) -> None:
        self.tables, self.dropout = tables, dropout

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Attend; the layer does not matter here. Padding gives zeros."""
        o_THK: Tensor = three_calls(q_THK, k_THK, v_THK, *self.tables, self.dropout)[0]
        return o_THK


@torch.library.custom_op("glm_data::three_calls", mutates_args=())
def three_calls(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_a: Tensor,
    bounds_b: Tensor,
    sizes: Tensor,
    longest: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[T, H, K]`` and what the way back needs: the joint logarithms ``[H, T]`` and the random state of each
    call's dropout, ``int64[3, 2]``."""
    a, b = sizes.tolist()
    o, logs = torch.empty_like(q), q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
    o[a + b :] = 0
    random = q.new_zeros(3, 2, dtype=torch.int64)
    of_b, first, second = slice(a, a + b), (bounds_a, longest, dropout), (bounds_b, longest, dropout)
    if a:
        o[:a], logs[:, :a] = _forward(q[:a], k[:a], v[:a], bounds_a, *first, False, random[0])
    if b:
        o_3, logs_3 = _forward(q[of_b], k[of_b], v[of_b], bounds_b, *second, True, random[2])
        o[of_b], logs[:, of_b] = o_3, logs_3
    if a and b:
        o_2, logs_2 = _forward(q[of_b], k[:a], v[:a], bounds_b, *first, False, random[1])
        logs_2 = torch.where(logs_2 == torch.inf, -torch.inf, logs_2)  # what the kernel says where there is no key
        logs[:, of_b] = torch.logaddexp(logs_2, logs_3)
        share = (logs_2 - logs[:, of_b]).exp().t()[..., None]
        o[of_b] = torch.lerp(o_3.float(), o_2.float(), share)
    return o, logs, random


@three_calls.register_fake
def _three_calls_fake(q: Tensor, k: Tensor, v: Tensor, *tables: Any) -> tuple[Tensor, Tensor, Tensor]:
    logs = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
    return torch.empty_like(q), logs, q.new_empty(3, 2, dtype=torch.int64)


@torch.library.custom_op("glm_data::three_calls_backward", mutates_args=())
def three_calls_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_a: Tensor,
    bounds_b: Tensor,
    sizes: Tensor,
    o: Tensor,
    logs: Tensor,
    random: Tensor,
    longest: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    a, b = sizes.tolist()
    gradients = tuple(torch.empty_like(x) for x in (q, k, v))
    for gradient in gradients:
        gradient[a + b :] = 0
    of_b = slice(a, a + b)

    def call(number: int, queries: slice, bounds_q: Tensor, keys: slice, bounds_k: Tensor) -> tuple[Tensor, ...]:
        seen = (grad[queries], q[queries], k[keys], v[keys], o[queries], logs[:, queries].contiguous())
        return _backward_call(*seen, bounds_q, bounds_k, longest, dropout, number == 2, random[number])

    if a:
        for gradient, part in zip(gradients, call(0, slice(a), bounds_a, slice(a), bounds_a), strict=True):
            gradient[:a] = part
    if b:
        for gradient, part in zip(gradients, call(2, of_b, bounds_b, of_b, bounds_b), strict=True):
            gradient[of_b] = part
    if a and b:
        places = (of_b, slice(a), slice(a))
        for gradient, part, place in zip(gradients, call(1, of_b, bounds_b, slice(a), bounds_a), places, strict=True):
            gradient[place] += part
    return gradients[0], gradients[1], gradients[2]


@three_calls_backward.register_fake
def _three_calls_backward_fake(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *tables: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.longest, ctx.dropout = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad: Tensor, *others: Any) -> tuple[Any, ...]:
    gradients = three_calls_backward(grad.contiguous(), *ctx.saved_tensors, ctx.longest, ctx.dropout)
    return *gradients, *[None] * 5


three_calls.register_autograd(_backward, setup_context=_save)


def _piece_sizes(groups: Sequence[Group]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    number, context, size = np.array(groups, np.int64).reshape(-1, 3).T
    return np.repeat(context, number), np.repeat(size, number)


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    longest: int,
    dropout: float,
    causal: bool,
    random: Tensor,
) -> tuple[Tensor, Tensor]:
    flash = torch.ops.aten._flash_attention_forward
    o, logs, state, _, _ = flash(q, k, v, bounds_q, bounds_k, longest, longest, dropout, causal, False)
    if dropout:
        random.copy_(state.view(torch.int64))
    return o, logs


def _backward_call(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *seen, bounds_q, bounds_k, longest, dropout, causal, random = arguments
    state, unused = random.view(torch.uint64), random.new_empty(0)
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._flash_attention_backward(
        *seen, bounds_q, bounds_k, longest, longest, dropout, causal, state, unused
    )
    return gradients
