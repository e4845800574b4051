"""Losses of given tokens at blanks, many texts at once, every context computed once.

A query is a context (part A, seen both ways) and some continuations of one blank in it, none of which sees another::

              key:  A A A | B B | C C
    query B         x x x | x . | . .     the choices B and C of one blank
                    x x x | x x | . .
    query C         x x x | . . | x .
                    x x x | . . | x x

Queries lie one after the other without padding; a query that is alone with its continuation is a [gMASK] or [MASK] row
as the trainer sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_data.model.model import GLM
from glm_data.training.head_loss import losses_at
from tokenizer import SPECIAL

BATCH_TOKENS = 4096
"""Tokens of a forward pass at most, but for a query that is longer."""


@dataclass(frozen=True)
class Query:
    """Part A's ids, the place of the blank in it, whether positions run on behind it, and what may stand there."""

    context: Sequence[int]
    blank: int
    running: bool
    choices: tuple[Sequence[int], ...]

    @property
    def size(self) -> int:
        """Tokens that it takes; a choice has a ``<sop>`` for its last token."""
        return len(self.context) + sum(map(len, self.choices))


class ChoiceAttention:
    """An ``Attend`` for queries that lie one after the other."""

    def __init__(self, queries: Sequence[Query], device: torch.device) -> None:
        self._sizes = [query.size for query in queries]
        self._contexts = [len(query.context) for query in queries]
        self._masks = [_mask(query).to(device) for query in queries]

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Attend; the layer does not matter here."""
        parts = zip(*(torch.split(x.transpose(0, 1), self._sizes, dim=1) for x in (q_THK, k_THK, v_THK)), strict=True)
        outputs = []
        for a, mask, (q, k, v) in zip(self._contexts, self._masks, parts, strict=True):
            part_a = F.scaled_dot_product_attention(q[None, :, :a], k[None, :, :a], v[None, :, :a])
            part_b = F.scaled_dot_product_attention(q[None, :, a:], k[None], v[None], mask)
            outputs.append(torch.cat([part_a, part_b], dim=2)[0].transpose(0, 1))
        return torch.cat(outputs)


def _mask(query: Query) -> Tensor:
    """``bool[tokens of choices, tokens]``: what each token of a choice sees."""
    a, sizes = len(query.context), [len(choice) for choice in query.choices]
    mask = torch.zeros(sum(sizes), a + sum(sizes), dtype=torch.bool)
    mask[:, :a] = True
    first = 0
    for n in sizes:
        mask[first : first + n, a + first : a + first + n] = torch.ones(n, n, dtype=torch.bool).tril()
        first += n
    return mask


@torch.inference_mode()
def losses(model: GLM, queries: Sequence[Query], batch_tokens: int = BATCH_TOKENS) -> list[list[float]]:
    """Nats that each choice of each query costs, its tokens summed. Batches depend on the queries alone."""
    found: list[list[float]] = [[] for _ in queries]
    for numbers in _batches([query.size for query in queries], batch_tokens):
        batch = [queries[number] for number in numbers]
        nats = iter(_token_losses(model, batch))
        for number, query in zip(numbers, batch, strict=True):
            found[number] = [sum(next(nats) for _ in choice) for choice in query.choices]
    return found


def _batches(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers of queries in runs of like sizes, each run within ``most`` tokens."""
    batch: list[int] = []
    total = 0
    for number in np.argsort(sizes, kind="stable").tolist():
        if batch and total + sizes[number] > most:
            yield batch
            batch, total = [], 0
        batch.append(number)
        total += sizes[number]
    if batch:
        yield batch


def _token_losses(model: GLM, queries: Sequence[Query]) -> list[float]:
    """Nats of each token of each choice, in order."""
    device = next(model.final_layernorm.parameters()).device
    tokens: list[int] = []
    positions: list[int] = []
    predicts: list[int] = []
    targets: list[int] = []
    for query in queries:
        tokens += query.context
        positions += range(len(query.context))
        for choice in query.choices:
            predicts += range(len(tokens), len(tokens) + len(choice))
            tokens += [SPECIAL.sop, *choice][: len(choice)]
            positions += [query.blank + query.running * (1 + step) for step in range(len(choice))]
            targets += choice
    attend = ChoiceAttention(queries, device)
    tokens_T, positions_T, predict_P, targets_P = (
        torch.tensor(values, dtype=torch.int64, device=device) for values in (tokens, positions, predicts, targets)
    )
    features_PD = model.features(tokens_T, positions_T, attend, predict_P)
    nats: list[float] = losses_at(model, features_PD, targets_P).double().tolist()
    return nats
