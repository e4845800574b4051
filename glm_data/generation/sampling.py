"""From logits to the next token: bans, then temperature, top-k, top-p and a draw, or the likeliest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from glm_data.generation.options import GenerationOptions


def choose(
    logits_V: Tensor, answer: Sequence[int], banned: Collection[int], options: GenerationOptions, draws: torch.Generator
) -> int:
    """The token after ``answer``: never one of ``banned`` nor one that repeats an n-gram of ``answer``.

    Ties go to the smallest id. Should the bans leave nothing, the n-gram rule is dropped.
    """
    scores_V = allowed(logits_V.double(), answer, banned, options.no_repeat_ngram)
    if options.temperature == 0:
        return int(scores_V.argmax())
    scores_V = (scores_V - scores_V.max()) / options.temperature  # in this order nothing overflows, however cold
    shares_V = shares(scores_V, options.top_k, options.top_p)
    return int(torch.multinomial(shares_V, 1, generator=draws))


def allowed(scores_V: Tensor, answer: Sequence[int], banned: Collection[int], size: int) -> Tensor:
    """``scores_V`` with minus infinity for ``banned`` and for what repeats an n-gram of ``size`` tokens of ``answer``;
    for ``banned`` alone where that would leave nothing."""
    scores_V = scores_V.clone()
    scores_V[list(banned)] = -torch.inf
    blocked_V = scores_V.clone()
    blocked_V[repeated(answer, size)] = -torch.inf
    return blocked_V if bool(torch.isfinite(blocked_V).any()) else scores_V


def repeated(answer: Sequence[int], size: int) -> list[int]:
    """The tokens that would end an n-gram of ``size`` tokens that ``answer`` already holds."""
    if size == 0 or len(answer) < size - 1:
        return []
    last = tuple(answer[len(answer) - size + 1 :])
    return [answer[i + size - 1] for i in range(len(answer) - size + 1) if tuple(answer[i : i + size - 1]) == last]


def shares(scores_V: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities ``float64[V]`` after cutting to the ``top_k`` likeliest and to the first that hold ``top_p``."""
    order_V = torch.sort(scores_V, descending=True, stable=True).indices
    shares_V = scores_V.softmax(0)[order_V]
    before_V = shares_V.cumsum(0) - shares_V
    keep_V = before_V < top_p
    if top_k:
        keep_V &= torch.arange(len(keep_V)) < top_k
    cut_V = torch.zeros_like(scores_V)
    cut_V[order_V] = shares_V * keep_V
    return cut_V / cut_V.sum()
