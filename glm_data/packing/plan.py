"""The plan: from lengths alone, which slice of what goes to which piece of which row.

Text documents are taken in a seeded order and joined to one stream with ``<eos>`` after each; every slice of text is
``(start, tokens)`` in that stream. How many tokens a [MASK] piece takes depends on its drawn spans, so the plan draws
their lengths; filling draws the same lengths again from the same keys.

*Running text* (``boundaries: stream``): the stream is walked once, row by row; a row takes what fits. MIP samples are
packed best-fit into rows of their own at seeded places. *Documents* (``boundaries: documents``): every document is one
piece, or several if it is longer than a row; pieces and MIP samples are packed best-fit together, rows are shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from glm_data.packing.binning import best_fit
from glm_data.packing.options import Recipe
from glm_data.packing.rng import MIP_POSITION, PIECE, ROW_KIND, ROW_ORDER, draw, make_key, permutation
from glm_data.packing.rows import GMASK, MASK, MIP
from glm_data.packing.spans import MAX_SPANS, length_table, piece_budget, threshold

_MIN_GMASK_TOKENS = 2


@dataclass(frozen=True)
class Pieces:
    """``P`` pieces, not yet or already in rows."""

    kind: np.ndarray
    """``uint8[P]``: GMASK, MASK or MIP."""
    place: np.ndarray
    """``int32[P]``: where in its row the piece starts."""
    start: np.ndarray
    """``int64[P]``: where in the text stream its tokens start; for MIP the sample's number."""
    tokens: np.ndarray
    """``int32[P]``: source tokens; for MIP the places it takes."""
    spans: np.ndarray
    """``int32[P]``: masked spans (1 for [gMASK] and MIP)."""
    closed: np.ndarray
    """``bool[P]``: a [gMASK] piece whose text ends with it, so that its last target is <eop>."""
    key: np.ndarray
    """``uint64[P]``: the key of the piece's draws."""

    def size(self) -> np.ndarray:
        """``int64[P]``: the places each takes in its row: n + 2 spans, n + 1 (+ 1 if closed), or as given for MIP."""
        extra = np.where(self.kind == MASK, 2 * self.spans, np.where(self.kind == GMASK, 1 + self.closed, 0))
        return self.tokens.astype(np.int64) + extra

    def take(self, index: np.ndarray) -> Pieces:
        """The pieces ``index``, in that order."""
        return Pieces(*(getattr(self, name)[index] for name in _COLUMNS))


_COLUMNS = {
    "kind": np.uint8,
    "place": np.int32,
    "start": np.int64,
    "tokens": np.int32,
    "spans": np.int32,
    "closed": np.bool_,
    "key": np.uint64,
}


@dataclass(frozen=True)
class Plan:
    """Every piece of every row, in row order."""

    row_offsets: np.ndarray
    """``int64[R + 1]``: the pieces of row r are ``row_offsets[r] : row_offsets[r + 1]``."""
    pieces: Pieces

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.row_offsets) - 1


def plan_text(starts: np.ndarray, recipe: Recipe) -> Plan | Pieces:
    """The text alone: rows of running text, or the pieces of documents before they are packed.

    ``starts`` is ``int64[D + 1]``: where each document starts in the stream; each ends one before the next starts,
    with its <eos>.
    """
    if recipe.boundaries == "documents":
        return _document_pieces(starts, recipe)
    return _stream_rows(int(starts[-1]), recipe)


def add_mip(text: Plan | Pieces, lengths: np.ndarray, choice: np.ndarray, recipe: Recipe) -> Plan:
    """All rows: the planned text and the chosen MIP samples.

    ``lengths`` is ``int64[samples]`` (prompt + target + 2 tokens), ``choice`` the samples to use, repeats included.
    """
    mip = _mip_pieces(choice, lengths)
    if isinstance(text, Pieces):
        both = _concat(text, mip)
        return _shuffle_rows(_pack(both, recipe.seq_length), recipe.seed)
    return _interleave(text, _pack(mip, recipe.seq_length), recipe.seed)


def plan_rows(starts: np.ndarray, lengths: np.ndarray, choice: np.ndarray, recipe: Recipe) -> Plan:
    """:func:`plan_text` and :func:`add_mip` in one."""
    return add_mip(plan_text(starts, recipe), lengths, choice, recipe)


def _settings(recipe: Recipe) -> tuple[Any, ...]:
    return (
        recipe.seed,
        recipe.seq_length,
        threshold(recipe.mask_share),
        recipe.mask_rate,
        threshold(recipe.short_share),
        threshold(recipe.single_span_share),
        length_table(recipe.span_mean, recipe.span_longest),
    )


def _empty(count: int) -> Pieces:
    return Pieces(*(np.zeros(count, kind) for kind in _COLUMNS.values()))


def _columns(pieces: Pieces) -> tuple[np.ndarray, ...]:
    return tuple(getattr(pieces, name) for name in _COLUMNS)


def _concat(left: Pieces, right: Pieces) -> Pieces:
    return Pieces(*(np.concatenate(pair) for pair in zip(_columns(left), _columns(right), strict=True)))


def _mip_pieces(choice: np.ndarray, lengths: np.ndarray) -> Pieces:
    pieces = _empty(len(choice))
    pieces.kind[:], pieces.spans[:] = MIP, 1
    pieces.start[:], pieces.tokens[:] = choice, lengths[choice]
    return pieces


# --- running text -----------------------------------------------------------------------------------------------------


def _stream_rows(stream_tokens: int, recipe: Recipe) -> Plan:
    settings = _settings(recipe)
    rows, count = _walk(stream_tokens, recipe.windows, settings, False, np.empty(0, np.int64), *_columns(_empty(0)))
    row_offsets, pieces = np.zeros(rows + 1, np.int64), _empty(count)
    _walk(stream_tokens, recipe.windows, settings, True, row_offsets, *_columns(pieces))
    return Plan(row_offsets, pieces)


@njit(cache=True)
def _walk(
    stream: int,
    windows: int,
    settings: tuple[Any, ...],
    write: bool,
    row_offsets: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    spans: np.ndarray,
    closed: np.ndarray,
    keys: np.ndarray,
) -> tuple[int, int]:
    """Walk the stream row by row; count rows and pieces, and write them if ``write``."""
    seed, length, mask_share, rate, short, single, table = settings
    lengths = np.zeros(MAX_SPANS, np.int64)
    window = length // windows
    position, row, piece = 0, 0, 0
    while position < stream:
        is_mask = draw(make_key(seed, row, 0, ROW_KIND), 0) < mask_share or stream - position < _MIN_GMASK_TOKENS
        for index in range(windows if is_mask else 1):
            left = stream - position
            key = make_key(seed, row, index, PIECE)
            if is_mask:
                taken, count = piece_budget(key, window, left, rate, short, single, table, lengths)
            else:
                taken, count = min(left, length - 1), 1
            if taken == 0:
                break
            if write:
                kinds[piece] = MASK if is_mask else GMASK
                places[piece] = index * window if is_mask else 0
                starts[piece], tokens[piece], spans[piece], keys[piece] = position, taken, count, key
            position += taken
            piece += 1
        row += 1
        if write:
            row_offsets[row] = piece
    return row, piece


def _interleave(text: Plan, mip: Plan, seed: int) -> Plan:
    """Put the MIP rows at seeded places between the text rows, which keep their order."""
    total = text.rows + mip.rows
    is_mip = np.zeros(total, bool)
    is_mip[permutation(seed, total, MIP_POSITION)[: mip.rows]] = True
    counts = np.zeros(total, np.int64)
    counts[~is_mip], counts[is_mip] = np.diff(text.row_offsets), np.diff(mip.row_offsets)
    of_mip = np.repeat(is_mip, counts)
    index = np.empty(len(of_mip), np.int64)
    index[~of_mip] = np.arange(len(text.pieces.kind))
    index[of_mip] = len(text.pieces.kind) + np.arange(len(mip.pieces.kind))
    return Plan(np.concatenate([[0], np.cumsum(counts)]), _concat(text.pieces, mip.pieces).take(index))


# --- documents --------------------------------------------------------------------------------------------------------


def _document_pieces(starts: np.ndarray, recipe: Recipe) -> Pieces:
    settings = _settings(recipe)
    count = _cut(starts, settings, False, *_columns(_empty(0)))
    pieces = _empty(count)
    _cut(starts, settings, True, *_columns(pieces))
    return pieces


@njit(cache=True)
def _cut(
    document_starts: np.ndarray,
    settings: tuple[Any, ...],
    write: bool,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    spans: np.ndarray,
    closed: np.ndarray,
    keys: np.ndarray,
) -> int:
    """Cut every document into pieces of at most a row; count them, and write them if ``write``."""
    seed, length, mask_share, rate, short, single, table = settings
    lengths = np.zeros(MAX_SPANS, np.int64)
    piece = 0
    for document in range(len(document_starts) - 1):
        position, end = document_starts[document], document_starts[document + 1] - 1
        part = 0
        while position < end:
            key = make_key(seed, document, part, PIECE)
            is_mask = draw(make_key(seed, document, part, ROW_KIND), 0) < mask_share
            left, ends = end - position, False
            if is_mask:
                taken, count = piece_budget(key, length, left, rate, short, single, table, lengths)
            else:
                ends = left <= length - 2
                taken, count = min(left, length - 1), 1
            if write:
                kinds[piece] = MASK if is_mask else GMASK
                starts[piece], tokens[piece], spans[piece] = position, taken, count
                closed[piece], keys[piece] = ends, key
            position += taken
            piece += 1
            part += 1
    return piece


def _pack(pieces: Pieces, capacity: int) -> Plan:
    """Pack pieces best-fit into rows; they stand in a row in the order in which they were given."""
    sizes = pieces.size()
    bins = best_fit(sizes, capacity)
    order = np.argsort(bins, kind="stable")
    counts = np.bincount(bins) if len(bins) else np.zeros(0, np.int64)
    packed = pieces.take(order)
    before = np.cumsum(sizes[order]) - sizes[order]
    firsts = np.cumsum(counts) - counts
    packed.place[:] = before - np.repeat(before[firsts], counts)
    return Plan(np.concatenate([[0], np.cumsum(counts)]), packed)


def _shuffle_rows(plan: Plan, seed: int) -> Plan:
    """Rows in a seeded order: best fit puts long documents first and short ones last."""
    order = permutation(seed, plan.rows, ROW_ORDER)
    counts = np.diff(plan.row_offsets)[order]
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    index = np.repeat(plan.row_offsets[:-1][order], counts) + within
    return Plan(np.concatenate([[0], ends]), plan.pieces.take(index))
