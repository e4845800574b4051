"""Filling planned rows: the text of their pieces and the lengths of their spans, gathered in the order of the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glm_data.kernels import compiled
from glm_data.packing.masking import PieceTexts
from glm_data.packing.plan import Pieces, Plan
from glm_data.packing.rows import MASK, MIP, ragged


@dataclass(frozen=True)
class MipTokens:
    """MIP samples as flat ids: prompt and target of sample i are ``ids[offsets[2 i] : offsets[2 i + 1] : ...]``.

    ``offsets`` is ``int64[2 n + 1]``: prompt start, target start, next prompt start, and so on.
    """

    ids: np.ndarray
    offsets: np.ndarray


def pieces_of(plan: Plan, first: int, last: int) -> Pieces:
    """The pieces of rows ``first`` to ``last - 1``."""
    return plan.pieces.take(np.arange(plan.row_offsets[first], plan.row_offsets[last]))


def piece_texts(plan: Plan, first: int, last: int, text: np.ndarray, mip: MipTokens) -> PieceTexts:
    """What rows ``first`` to ``last - 1`` of the plan are laid out from.

    ``text`` is ``int32``: the tokens of their text pieces, one piece after the other.
    """
    pieces = pieces_of(plan, first, last)
    is_mip, count = pieces.kind == MIP, pieces.tokens.astype(np.int64)
    samples = pieces.start[is_mip]
    count[is_mip] = mip.offsets[2 * samples + 2] - mip.offsets[2 * samples]
    starts = np.concatenate([[0], np.cumsum(count)])
    prompt = np.zeros(len(count), np.int32)
    prompt[is_mip] = mip.offsets[2 * samples + 1] - mip.offsets[2 * samples]
    mask_spans = np.where(pieces.kind == MASK, pieces.spans, 0)
    length_offsets = np.concatenate([[0], np.cumsum(mask_spans)])
    return PieceTexts(
        piece_offsets=plan.row_offsets[first : last + 1] - plan.row_offsets[first],
        kind=pieces.kind,
        place=pieces.place,
        key=pieces.key,
        closed=pieces.closed,
        text=_weave(is_mip, starts, text, pieces.start, mip.ids, mip.offsets) if is_mip.any() else text,
        starts=starts,
        prompt=prompt,
        lengths=pieces.lengths[ragged(pieces.first_length, mask_spans, length_offsets)].astype(np.int64),
        length_offsets=length_offsets,
    )


@compiled
def _weave(
    is_mip: np.ndarray,
    starts: np.ndarray,
    text: np.ndarray,
    samples: np.ndarray,
    mip_ids: np.ndarray,
    mip_offsets: np.ndarray,
) -> np.ndarray:
    """Text and MIP pieces in the order of the rows."""
    out = np.empty(starts[-1], np.int32)
    at = 0
    for piece in range(len(is_mip)):
        first, count = starts[piece], starts[piece + 1] - starts[piece]
        if is_mip[piece]:
            source = mip_offsets[2 * samples[piece]]
            for place in range(count):
                out[first + place] = mip_ids[source + place]
        else:
            for place in range(count):
                out[first + place] = text[at + place]
            at += count
    return out
