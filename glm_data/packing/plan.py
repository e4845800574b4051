"""The plan: from lengths alone, which slice of what goes to which piece of which row.

Text documents are taken in a seeded order and joined to one stream with ``<eos>`` after each; rows take slices of it.
The number of tokens a [MASK] piece takes depends on its drawn spans, so the plan walks the stream once and draws
lengths only; filling draws the same lengths again from the same keys. MIP samples are packed best-fit into
rows of their own, which stand at seeded places between the text rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from glm_data.packing.options import PackOptions
from glm_data.packing.rng import MIP_ORDER, MIP_POSITION, PIECE, ROW_KIND, draw, make_key, permutation
from glm_data.packing.rows import GMASK, MASK, MIP
from glm_data.packing.spans import MAX_SPANS, length_table, piece_budget, threshold

_MIN_GMASK_TOKENS = 2


@dataclass(frozen=True)
class Plan:
    """Every piece of every row, in row order; ``R`` rows, ``P`` pieces."""

    row_offsets: np.ndarray
    """``int64[R + 1]``: the pieces of row r are ``row_offsets[r] : row_offsets[r + 1]``."""
    kind: np.ndarray
    """``uint8[P]``: GMASK, MASK or MIP."""
    place: np.ndarray
    """``int32[P]``: where in the row the piece starts."""
    start: np.ndarray
    """``int64[P]``: where in the text stream its tokens start; for MIP the sample's number."""
    tokens: np.ndarray
    """``int32[P]``: source tokens; for MIP the whole piece."""
    spans: np.ndarray
    """``int32[P]``: masked spans (1 for [gMASK] and MIP)."""
    key_row: np.ndarray
    """``int64[P]``: the text row's ordinal, part of the key of the piece's draws."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_offsets) - 1


def plan_rows(stream_tokens: int, mip_lengths: np.ndarray, mip_choice: np.ndarray, options: PackOptions) -> Plan:
    """Plan all rows for a text stream of ``stream_tokens`` and the chosen MIP samples.

    ``mip_lengths`` is ``int64[samples]`` (prompt + target + 2 tokens), ``mip_choice`` the samples to use, repeats
    included.
    """
    text = _plan_text_rows(stream_tokens, options)
    bins = best_fit(mip_lengths[mip_choice], options.seq_length)
    return _interleave(text, mip_choice, mip_lengths, bins, options.seed)


def text_tokens(plan: Plan) -> int:
    """Places that text pieces take in their rows, padding excluded."""
    text = plan.kind != MIP
    extra = np.where(plan.kind == MASK, 2 * plan.spans, 1)
    return int((plan.tokens + extra)[text].sum())


def choose_mip(lengths: np.ndarray, wanted_tokens: float, repeats: int, seed: int) -> np.ndarray:
    """Choose samples, in a seeded order and at most ``repeats`` times each, whose tokens come nearest to the wanted.

    Returns ``int64[n]`` sample numbers. Samples of length 0 (refused ones) are never chosen.
    """
    order = permutation(seed, len(lengths), MIP_ORDER)
    order = order[lengths[order] > 0]
    if not len(order) or wanted_tokens <= 0:
        return np.empty(0, np.int64)
    total = int(lengths[order].sum())
    rounds = min(repeats, int(wanted_tokens // total) + 1)
    candidates = np.tile(order, rounds)
    reached = np.cumsum(lengths[candidates])
    whole = int(np.searchsorted(reached, wanted_tokens, "right"))
    gap = wanted_tokens - (float(reached[whole - 1]) if whole else 0.0)
    return np.concatenate([candidates[:whole], _fill_gap(candidates[whole:], lengths, gap)])


def _fill_gap(candidates: np.ndarray, lengths: np.ndarray, gap: float) -> np.ndarray:
    """Of ``candidates`` those that fill ``gap`` tokens most nearly: the longest that fits, again and again."""
    left = candidates[np.argsort(lengths[candidates], kind="stable")]
    chosen: list[int] = []
    while len(left):
        at = int(np.searchsorted(lengths[left], gap, "right")) - 1
        if at < 0 and lengths[left[0]] - gap >= gap:
            break
        chosen.append(int(left[max(at, 0)]))
        gap -= int(lengths[chosen[-1]])
        left = np.delete(left, max(at, 0))
    return np.array(chosen, np.int64)


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Best-fit-decreasing (Ding et al. 2024): ``int64[n]``, the bin of each item; bins are numbered as opened."""
    order = np.argsort(-lengths, kind="stable")
    return _best_fit(lengths.astype(np.int64), order, capacity)


@njit(cache=True)
def _best_fit(lengths: np.ndarray, order: np.ndarray, capacity: int) -> np.ndarray:
    newest = np.full(capacity + 1, -1, np.int64)  # newest open bin with exactly this room
    older = np.full(len(lengths), -1, np.int64)  # the next bin in the same list
    bins = np.empty(len(lengths), np.int64)
    opened = 0
    for item in order:
        room = lengths[item]
        while room <= capacity and newest[room] < 0:
            room += 1
        if room > capacity:
            chosen, room = opened, capacity
            opened += 1
        else:
            chosen = newest[room]
            newest[room] = older[chosen]
        left = room - lengths[item]
        older[chosen], newest[left] = newest[left], chosen
        bins[item] = chosen
    return bins


def _plan_text_rows(stream_tokens: int, options: PackOptions) -> Plan:
    settings = (
        options.seed,
        options.seq_length,
        options.windows,
        threshold(options.mask_share),
        options.mask_rate,
        threshold(options.short_share),
        threshold(options.single_span_share),
        length_table(options.span_mean, options.span_longest),
    )
    nothing = _empty_pieces(0)
    rows, pieces = _walk(stream_tokens, *settings, False, np.empty(0, np.int64), *nothing)
    row_offsets, columns = np.zeros(rows + 1, np.int64), _empty_pieces(pieces)
    _walk(stream_tokens, *settings, True, row_offsets, *columns)
    return Plan(row_offsets, *columns)


def _empty_pieces(count: int) -> tuple[np.ndarray, ...]:
    kinds = (np.uint8, np.int32, np.int64, np.int32, np.int32, np.int64)
    return tuple(np.zeros(count, kind) for kind in kinds)


@njit(cache=True)
def _walk(
    stream: int,
    seed: int,
    length: int,
    windows: int,
    mask_share: int,
    rate: float,
    short: int,
    single: int,
    table: np.ndarray,
    write: bool,
    row_offsets: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    spans: np.ndarray,
    key_rows: np.ndarray,
) -> tuple[int, int]:
    """Walk the stream row by row; count rows and pieces, and write them if ``write``."""
    lengths = np.zeros(MAX_SPANS, np.int64)
    window = length // windows
    position, row, piece = 0, 0, 0
    while position < stream:
        is_mask = draw(make_key(seed, row, 0, ROW_KIND), 0) < mask_share or stream - position < _MIN_GMASK_TOKENS
        for index in range(windows if is_mask else 1):
            left = stream - position
            if is_mask:
                key = make_key(seed, row, index, PIECE)
                taken, count = piece_budget(key, window, left, rate, short, single, table, lengths)
            else:
                taken, count = min(left, length - 1), 1
            if taken == 0:
                break
            if write:
                kinds[piece] = MASK if is_mask else GMASK
                places[piece] = index * window if is_mask else 0
                starts[piece], tokens[piece], spans[piece], key_rows[piece] = position, taken, count, row
            position += taken
            piece += 1
        row += 1
        if write:
            row_offsets[row] = piece
    return row, piece


def _interleave(text: Plan, choice: np.ndarray, lengths: np.ndarray, bins: np.ndarray, seed: int) -> Plan:
    """Put the MIP rows (``bins`` of the ``choice``) at seeded places between the text rows."""
    mip_rows = int(bins.max()) + 1 if len(bins) else 0
    by_bin = np.argsort(bins, kind="stable")
    sizes = lengths[choice[by_bin]]
    mip_counts = np.bincount(bins, minlength=mip_rows) if mip_rows else np.empty(0, np.int64)
    first = np.repeat(np.concatenate([[0], np.cumsum(mip_counts)[:-1]]), mip_counts) if mip_rows else mip_counts
    before = np.concatenate([[0], np.cumsum(sizes)])[:-1] if mip_rows else sizes
    places = before - before[first] if mip_rows else before
    mip = _mip_columns(choice[by_bin], places, sizes)
    total = text.rows + mip_rows
    is_mip = np.zeros(total, bool)
    is_mip[permutation(seed, total, MIP_POSITION)[:mip_rows]] = True
    counts = np.zeros(total, np.int64)
    counts[~is_mip], counts[is_mip] = np.diff(text.row_offsets), mip_counts
    piece_is_mip = np.repeat(is_mip, counts)
    text_columns = (text.kind, text.place, text.start, text.tokens, text.spans, text.key_row)
    merged = [_merge(left, right, piece_is_mip) for left, right in zip(text_columns, mip, strict=True)]
    return Plan(np.concatenate([[0], np.cumsum(counts)]), *merged)


def _mip_columns(samples: np.ndarray, places: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
    count = len(samples)
    return (
        np.full(count, MIP, np.uint8),
        places.astype(np.int32),
        samples.astype(np.int64),
        sizes.astype(np.int32),
        np.ones(count, np.int32),
        np.zeros(count, np.int64),
    )


def _merge(text: np.ndarray, mip: np.ndarray, is_mip: np.ndarray) -> np.ndarray:
    merged: np.ndarray[Any, Any] = np.empty(len(is_mip), text.dtype)
    merged[~is_mip], merged[is_mip] = text, mip
    return merged
