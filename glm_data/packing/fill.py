"""Filling planned rows with tokens: the same draws as the plan, written as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from glm_data.packing.options import Recipe
from glm_data.packing.plan import Plan
from glm_data.packing.rng import draw_below
from glm_data.packing.rows import GMASK, MASK, Rows, lay_out_mask, lay_out_suffix
from glm_data.packing.spans import MAX_SPANS, length_table, place_spans, redraw_lengths, threshold

_SUFFIX_LENGTH = 0


@dataclass(frozen=True)
class Specials:
    """The ids a row needs beside text."""

    mask: int
    gmask: int
    sop: int
    eop: int
    eos: int
    pad: int


@dataclass(frozen=True)
class MipTokens:
    """MIP samples as flat ids: prompt and target of sample i are ``ids[offsets[2 i] : offsets[2 i + 1] : ...]``.

    ``offsets`` is ``int64[2 n + 1]``: prompt start, target start, next prompt start, and so on.
    """

    ids: np.ndarray
    offsets: np.ndarray


def fill_rows(
    plan: Plan,
    first: int,
    last: int,
    text: np.ndarray,
    starts: np.ndarray,
    mip: MipTokens,
    recipe: Recipe,
    ids: Specials,
) -> Rows:
    """Rows ``first`` to ``last`` of the plan.

    ``text`` is ``int32``; ``starts`` is ``int64[p]``: where in it the tokens of each piece of these rows start (the
    sample's number for MIP pieces).
    """
    within = slice(plan.row_offsets[first], plan.row_offsets[last])
    pieces = plan.pieces.take(np.arange(within.start, within.stop))
    span_counts = pieces.spans.astype(np.int64)
    offsets = plan.row_offsets[first : last + 1] - plan.row_offsets[first]
    span_starts = np.concatenate([[0], np.cumsum(span_counts)])
    tail_starts = np.concatenate([[0], np.cumsum(pieces.kind == GMASK)])
    rows = Rows(
        tokens=np.full((last - first, recipe.seq_length), ids.pad, np.int32),
        piece_offsets=offsets,
        pieces=np.zeros((len(span_counts), 4), np.int32),
        span_offsets=span_starts[offsets],
        spans=np.zeros((int(span_starts[-1]), 3), np.int32),
        tail_offsets=tail_starts[offsets],
        tails=np.zeros(int(tail_starts[-1]), np.int32),
    )
    _fill(
        rows.tokens,
        (offsets, rows.pieces, rows.spans, rows.tails),
        (pieces.kind, pieces.place, starts, pieces.tokens, span_counts, pieces.closed, pieces.key),
        (text, mip.ids, mip.offsets),
        (recipe.gmask_least, threshold(recipe.single_span_share), length_table(recipe.span_mean, recipe.span_longest)),
        (ids.mask, ids.gmask, ids.sop, ids.eop),
    )
    return rows


@njit(cache=True, nogil=True)
def _fill(
    tokens: np.ndarray,
    out: tuple[Any, ...],
    plan: tuple[Any, ...],
    sources: tuple[Any, ...],
    settings: tuple[Any, ...],
    ids: tuple[Any, ...],
) -> None:
    offsets, pieces, spans, tails = out
    kinds, places, starts, counts, span_counts, closed, keys = plan
    text, mip_ids, mip_offsets = sources
    least, single, table = settings
    mask_id, gmask_id, sop_id, eop_id = ids
    lengths, span_starts = np.zeros(MAX_SPANS, np.int64), np.zeros(MAX_SPANS, np.int64)
    order = np.zeros(MAX_SPANS, np.int64)
    span, tail = 0, 0
    for row in range(tokens.shape[0]):
        for piece in range(offsets[row], offsets[row + 1]):
            kind, place, start, count = kinds[piece], places[piece], starts[piece], span_counts[piece]
            if kind == MASK:
                source = text[start : start + counts[piece]]
                redraw_lengths(keys[piece], len(source), count, single, table, lengths)
                place_spans(keys[piece], len(source), count, lengths, span_starts, order)
                sep, end = lay_out_mask(
                    tokens[row], place, source, count, lengths, span_starts, order, mask_id, sop_id, spans, span
                )
            elif kind == GMASK:
                source = text[start : start + counts[piece]]
                shortest = max(1, int(least * len(source)))
                suffix = shortest + draw_below(keys[piece], _SUFFIX_LENGTH, len(source) - shortest + 1)
                prefix, last = len(source) - suffix, len(source) if closed[piece] else len(source) - 1
                sep, end = lay_out_suffix(
                    tokens[row], place, source[:prefix], source[prefix:last], gmask_id, sop_id, spans, span
                )
                tails[tail] = eop_id if closed[piece] else source[last]
                tail += 1
            else:
                target = mip_offsets[2 * start + 1]
                prompt_ids, target_ids = (
                    mip_ids[mip_offsets[2 * start] : target],
                    mip_ids[target : mip_offsets[2 * start + 2]],
                )
                sep, end = lay_out_suffix(tokens[row], place, prompt_ids, target_ids, mask_id, sop_id, spans, span)
            span += count
            pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3] = place, sep, end, kind
