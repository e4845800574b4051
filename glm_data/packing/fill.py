"""Filling planned rows with tokens: the same draws as the plan, written as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from glm_data.packing.options import PackOptions
from glm_data.packing.plan import Plan
from glm_data.packing.rng import PIECE, draw_below, make_key
from glm_data.packing.rows import GMASK, MASK, MIP, Rows, lay_out_mask, lay_out_suffix
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
    text_start: int,
    mip: MipTokens,
    options: PackOptions,
    ids: Specials,
) -> Rows:
    """Rows ``first`` to ``last`` of the plan.

    ``text`` is ``int32``: the stream from offset ``text_start`` on, at least as far as these rows reach.
    """
    pieces = slice(plan.row_offsets[first], plan.row_offsets[last])
    kinds, span_counts = plan.kind[pieces], plan.spans[pieces].astype(np.int64)
    offsets = plan.row_offsets[first : last + 1] - plan.row_offsets[first]
    span_starts = np.concatenate([[0], np.cumsum(span_counts)])
    tail_starts = np.concatenate([[0], np.cumsum(kinds == GMASK)])
    rows = Rows(
        tokens=np.full((last - first, options.seq_length), ids.pad, np.int32),
        piece_offsets=offsets,
        pieces=np.zeros((len(kinds), 4), np.int32),
        span_offsets=span_starts[offsets],
        spans=np.zeros((int(span_starts[-1]), 3), np.int32),
        tail_offsets=tail_starts[offsets],
        tails=np.zeros(int(tail_starts[-1]), np.int32),
    )
    _fill(
        rows.tokens, offsets, rows.pieces, rows.spans, rows.tails, kinds, plan.place[pieces], plan.start[pieces],
        plan.tokens[pieces], span_counts, plan.key_row[pieces], text, text_start, mip.ids, mip.offsets,
        options.seed, options.gmask_least, threshold(options.single_span_share),
        length_table(options.span_mean, options.span_longest), ids.mask, ids.gmask, ids.sop,
    )  # fmt: skip
    return rows


@njit(cache=True, nogil=True)
def _fill(
    tokens: np.ndarray,
    offsets: np.ndarray,
    pieces: np.ndarray,
    spans: np.ndarray,
    tails: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    span_counts: np.ndarray,
    key_rows: np.ndarray,
    text: np.ndarray,
    text_start: int,
    mip_ids: np.ndarray,
    mip_offsets: np.ndarray,
    seed: int,
    least: float,
    single: int,
    table: np.ndarray,
    mask_id: int,
    gmask_id: int,
    sop_id: int,
) -> None:
    lengths, span_starts = np.zeros(MAX_SPANS, np.int64), np.zeros(MAX_SPANS, np.int64)
    order = np.zeros(MAX_SPANS, np.int64)
    span, tail = 0, 0
    for row in range(tokens.shape[0]):
        for piece in range(offsets[row], offsets[row + 1]):
            kind, place, start = kinds[piece], places[piece], starts[piece]
            if kind != MIP:
                source = text[start - text_start : start - text_start + counts[piece]]
            if kind == MASK:
                key = make_key(seed, key_rows[piece], piece - offsets[row], PIECE)
                count = span_counts[piece]
                redraw_lengths(key, len(source), count, single, table, lengths)
                place_spans(key, len(source), count, lengths, span_starts, order)
                sep, end = lay_out_mask(
                    tokens[row], place, source, count, lengths, span_starts, order, mask_id, sop_id, spans, span
                )
                span += count
            elif kind == GMASK:
                key = make_key(seed, key_rows[piece], 0, PIECE)
                shortest = max(1, int(least * len(source)))
                suffix = shortest + draw_below(key, _SUFFIX_LENGTH, len(source) - shortest + 1)
                prefix = len(source) - suffix
                sep, end = lay_out_suffix(
                    tokens[row], place, source[:prefix], source[prefix:-1], gmask_id, sop_id, spans, span
                )
                tails[tail] = source[-1]
                tail += 1
                span += 1
            else:
                target = mip_offsets[2 * start + 1]
                sep, end = lay_out_suffix(
                    tokens[row], place, mip_ids[mip_offsets[2 * start] : target],
                    mip_ids[target : mip_offsets[2 * start + 2]], mask_id, sop_id, spans, span,
                )  # fmt: skip
                span += 1
            pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3] = place, sep, end, kind
