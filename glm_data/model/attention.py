"""Who sees whom: blank-infilling attention as two dense calls a piece, without any mask of length x length.

A piece is ``[start, sep, end)``: part A (the corrupted text) is seen by all of the piece, part B left to right::

              key:  A A A A | B B B
    query A         x x x x | . . .      call 1: A on A, no mask
    query B         x x x x | x . .      call 2: B on A + B, causal from the lower right corner
                    x x x x | x x .
                    x x x x | x x x

The pieces of a batch are laid one after the other into one flat sequence of T tokens: padding is not computed at all,
no piece can see another, and pieces of equal shape lie side by side so that they share their two calls.

Shape letters: T tokens of all pieces, H heads, K head width, G pieces of one shape, N tokens of a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""``(layer, q_THK, k_THK, v_THK) -> o_THK``: how the network asks for attention (here, cached, or by a mask)."""

SPAN_CHUNK = 512
"""Part-B queries of one call: chunks spare the upper right triangle that a long part B would compute in vain."""


class Group(NamedTuple):
    """``number`` adjacent pieces of the same shape: ``context`` tokens of part A, ``size`` tokens in all."""

    number: int
    context: int
    size: int


@dataclass(frozen=True)
class Layout:
    """The flat order of a batch's tokens."""

    index_T: np.ndarray[Any, np.dtype[np.int64]]
    """Flat position ``row * length + column`` of each token; padding is left out."""
    kind_T: np.ndarray[Any, np.dtype[np.int64]]
    """Kind of each token's piece: 0 [gMASK] text, 1 [MASK] text, 2 MIP."""
    piece_T: np.ndarray[Any, np.dtype[np.int64]]
    """Number of each token's piece in its row."""
    groups: tuple[Group, ...]


def attended_pairs(groups: Sequence[Group]) -> int:
    """How many (query, key) pairs the pieces hold: what attention costs, 4 x hidden operations each going forward."""
    parts = ((group.number, group.context, group.size - group.context) for group in groups)
    return sum(number * (a * a + b * a + b * (b + 1) // 2) for number, a, b in parts)


def lay_out(pieces: Sequence[np.ndarray[Any, Any]], length: int) -> Layout:
    """Order the pieces ``int32[P, 4]`` (start, sep, end, kind) of rows of ``length`` tokens by shape."""
    table = np.concatenate(
        [np.column_stack([np.full(len(p), r), p, np.arange(len(p))]) for r, p in enumerate(pieces)]
    ).astype(np.int64)
    table = table[table[:, 3] > table[:, 1]]
    row, start, sep, end, kind, number = table.T
    context, size = sep - start, end - start
    order = np.lexsort((start, row, context, size))
    index = [np.arange(row[p] * length + start[p], row[p] * length + end[p]) for p in order]
    shapes, counts = np.unique(np.stack([size[order], context[order]]), axis=1, return_counts=True)
    groups = tuple(Group(int(n), int(a), int(s)) for n, s, a in zip(counts, *shapes, strict=True))
    flat = np.concatenate(index) if index else np.zeros(0, np.int64)
    kind_T, piece_T = (np.repeat(column[order], size[order]) for column in (kind, number))
    return Layout(flat, kind_T, piece_T, groups)


class PieceAttention:
    """Exact blank-infilling attention over the groups of a :class:`Layout`; an :data:`Attend`.

    Tokens behind the groups are padding: they see nothing and get zeros. ``softmax`` is ``fused`` (torch's kernels,
    whose sums are float32 whatever q is) or ``glm-130b`` (written out as :func:`scaled_softmax` says).
    """

    def __init__(self, groups: Sequence[Group], dropout: float = 0.0, softmax: str = "fused") -> None:
        self.groups = tuple(groups)
        self.dropout = dropout
        self.softmax = softmax
        self._sizes = [group.number * group.size for group in self.groups]

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Attend in ``layer``, counted from 0."""
        padding = len(q_THK) - sum(self._sizes)
        # split, not slices: its backward writes the gradient once instead of one zero-filled copy a slice.
        parts = zip(*(torch.split(x, [*self._sizes, padding]) for x in (q_THK, k_THK, v_THK)), strict=True)
        outputs = [self._attend_group(layer, group, *qkv) for group, qkv in zip(self.groups, parts, strict=False)]
        return torch.cat([*outputs, v_THK.new_zeros(padding, *v_THK.shape[1:])])

    def _attend_group(self, layer: int, group: Group, *flat: Tensor) -> Tensor:
        q, k, v = (x.view(group.number, group.size, *x.shape[1:]).transpose(1, 2) for x in flat)  # GHNK
        a = group.context
        chunks = [a] * (a > 0) + chunk_sizes(group.size - a)
        outputs, first = [], 0
        for q_chunk in torch.split(q, chunks, dim=2):
            last = first + q_chunk.shape[2]
            mask = None if first < a else lower_right_mask(last - first, last, q.device)
            if self.softmax == "fused":
                seen = (q_chunk, k[:, :, :last], v[:, :, :last])
                outputs.append(F.scaled_dot_product_attention(*seen, mask, dropout_p=self.dropout))
            else:
                weights = scaled_softmax(q_chunk, k[:, :, :last], mask, layer + 1)
                outputs.append(F.dropout(weights, self.dropout) @ v[:, :, :last])
            first = last
        return torch.cat(outputs, dim=2).transpose(1, 2).flatten(0, 1)


def scaled_softmax(q_GHNK: Tensor, k_GHSK: Tensor, mask_NS: Tensor | None, divisor: int) -> Tensor:
    """Attention weights ``[G, H, N, S]`` as GLM-130B reckons them: scores are divided by the layer's number so that
    they do not overflow in float16, and multiplied by it again in float32, where the softmax is taken."""
    scores = (q_GHNK / (q_GHNK.shape[-1] ** 0.5 * divisor)) @ k_GHSK.transpose(-1, -2)
    wide = torch.promote_types(scores.dtype, torch.float32)
    scores = scores.to(wide) * divisor
    if mask_NS is not None:
        scores = scores.masked_fill(~mask_NS, float("-inf"))
    return scores.softmax(-1).to(q_GHNK.dtype)


def chunk_sizes(length: int) -> list[int]:
    """Part B's length in chunks of at most :data:`SPAN_CHUNK`."""
    whole, rest = divmod(length, SPAN_CHUNK)
    return [SPAN_CHUNK] * whole + [rest] * (rest > 0)


def lower_right_mask(queries: int, keys: int, device: torch.device | None = None) -> Tensor:
    """``bool[queries, keys]``: the last query sees every key, the one before it all but the last, and so on."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def mask_of_pieces(pieces: np.ndarray[Any, Any], length: int) -> Tensor:
    """``bool[length, length]`` of one row, True where the query (row) sees the key (column): the plain definition."""
    mask = torch.zeros(length, length, dtype=torch.bool)
    for start, sep, end, _ in pieces.tolist():
        mask[start:end, start:sep] = True
        mask[sep:end, sep:end] = torch.ones(end - sep, end - sep, dtype=torch.bool).tril()
    return mask


class MaskedAttention:
    """The same by a materialised mask ``bool[T, T]``: what :class:`PieceAttention` is held to."""

    def __init__(self, mask_TT: Tensor) -> None:
        self.mask_TT = mask_TT

    def __call__(self, layer: int, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor) -> Tensor:
        """Attend; the layer does not matter here."""
        q, k, v = (x.transpose(0, 1) for x in (q_THK, k_THK, v_THK))
        return F.scaled_dot_product_attention(q, k, v, self.mask_TT).transpose(0, 1)
