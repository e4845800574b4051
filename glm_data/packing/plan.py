"""The plan: from lengths alone, which slice of what goes to which piece of which row.

Text documents are taken in a seeded order and joined to one stream with ``<eos>`` after each; every slice of text is
``(start, tokens)`` in that stream. How many tokens a [MASK] piece takes depends on its drawn spans, so the plan draws
and keeps their lengths.

*Running text* (``boundaries: stream``): the stream is walked once, row by row; a row takes what fits. MIP samples are
packed best-fit into rows of their own at seeded places. *Documents* (``boundaries: documents``): every document is one
piece, or several if it is longer than a row; pieces and MIP samples are packed best-fit together, rows are shuffled.
With a ramp MIP samples have rows of their own in both, so that their share can rise from row to row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glm_data.errors import UsageError
from glm_data.kernels import compiled
from glm_data.packing.binning import best_fit
from glm_data.packing.options import Recipe
from glm_data.packing.placing import mask_key, suffix_length
from glm_data.packing.rng import MIP_POSITION, PIECE, ROW_KIND, ROW_ORDER, draw, make_key, permutation, unit_draws
from glm_data.packing.rows import GMASK, MASK, MIP, SMASK
from glm_data.packing.spans import length_table, most_spans, piece_budget, sentence_budget, sort_few, threshold

_MIN_GMASK_TOKENS = 2


@dataclass(frozen=True)
class Pieces:
    """``P`` pieces, not yet or already in rows."""

    kind: np.ndarray
    """``uint8[P]``: GMASK, MASK, MIP or SMASK."""
    place: np.ndarray
    """``int32[P]``: where in its row the piece starts."""
    start: np.ndarray
    """``int64[P]``: where in the text stream its tokens start; for MIP the sample's number."""
    tokens: np.ndarray
    """``int32[P]``: source tokens; for MIP the places it takes."""
    spans: np.ndarray
    """``int32[P]``: masked spans (1 for [gMASK] and MIP); the most there may be for [sMASK]."""
    targets: np.ndarray
    """``int32[P]``: tokens to predict in epoch 0; 0 for [sMASK], where they depend on the text."""
    closed: np.ndarray
    """``bool[P]``: a [gMASK] piece whose text ends with it, so that its last target is <eop>."""
    key: np.ndarray
    """``uint64[P]``: the key of the piece's draws."""
    first_length: np.ndarray
    """``int64[P]``: where the span lengths of a [MASK] piece stand in ``lengths``, rising."""
    lengths: np.ndarray
    """``uint16[S]``: span lengths of these pieces, and of others where these were taken from more."""

    def size(self) -> np.ndarray:
        """``int64[P]``: the places each takes in its row: n + 2 spans, n + 1 (+ 1 if closed), or as given for MIP."""
        blanks = (self.kind == MASK) | (self.kind == SMASK)
        extra = np.where(blanks, 2 * self.spans, np.where(self.kind == GMASK, 1 + self.closed, 0))
        return self.tokens.astype(np.int64) + extra

    def take(self, index: np.ndarray | slice) -> Pieces:
        """The pieces ``index``, in that order."""
        return _pieces([column[index] for column in _columns(self)], self.lengths)


_COLUMNS = {
    "kind": np.uint8,
    "place": np.int32,
    "start": np.int64,
    "tokens": np.int32,
    "spans": np.int32,
    "targets": np.int32,
    "closed": np.bool_,
    "key": np.uint64,
    "first_length": np.int64,
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


def add_mip(text: Plan | Pieces, lengths: np.ndarray, targets: np.ndarray, choice: np.ndarray, recipe: Recipe) -> Plan:
    """All rows: the planned text and the chosen MIP samples.

    ``lengths`` is ``int64[samples]`` (prompt + target + 2 tokens), ``targets`` the places of each that are predicted,
    ``choice`` the samples to use, repeats included. Raises :class:`UsageError` for a ramp that is longer than the pack.
    """
    mip = _mip_pieces(choice, lengths, targets)
    if isinstance(text, Plan):
        return _interleave(text, _pack(mip, recipe.seq_length), recipe)
    if recipe.mip_ramp:
        rows = _shuffle_rows(_pack(text, recipe.seq_length), recipe.seed)
        return _interleave(rows, _pack(mip, recipe.seq_length), recipe)
    return _shuffle_rows(_pack(_joined([text, mip]), recipe.seq_length), recipe.seed)


def _settings(recipe: Recipe) -> tuple[Any, ...]:
    return (
        recipe.seed,
        recipe.seq_length,
        threshold(recipe.mask_share),
        threshold(recipe.sentence_share),
        recipe.mask_rate,
        threshold(recipe.short_share),
        threshold(recipe.single_span_share),
        recipe.gmask_least,
        length_table(recipe.span_mean, recipe.span_longest),
    )


def _room(count: int, lengths: int = 0) -> Pieces:
    """Room for ``count`` pieces and ``lengths`` span lengths, of no value yet."""
    return _pieces([np.empty(count, kind) for kind in _COLUMNS.values()], np.empty(lengths, np.uint16))


def _pieces(columns: Iterable[np.ndarray], lengths: np.ndarray) -> Pieces:
    return Pieces(**dict(zip(_COLUMNS, columns, strict=True)), lengths=lengths)


def _columns(pieces: Pieces) -> tuple[np.ndarray, ...]:
    return tuple(getattr(pieces, name) for name in _COLUMNS)


def _joined(parts: Sequence[Pieces]) -> Pieces:
    """All parts, one after the other."""
    columns = [np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)]
    joined = _pieces(columns, np.concatenate([part.lengths for part in parts]))
    before = np.cumsum([0, *(len(part.lengths) for part in parts[:-1])])
    joined.first_length[:] += np.repeat(before, [len(part.kind) for part in parts])
    return joined


def _mip_pieces(choice: np.ndarray, lengths: np.ndarray, targets: np.ndarray) -> Pieces:
    pieces = _room(len(choice))
    for column in _columns(pieces):
        column[:] = 0
    pieces.kind[:], pieces.spans[:] = MIP, 1
    pieces.start[:], pieces.tokens[:], pieces.targets[:] = choice, lengths[choice], targets[choice]
    return pieces


@compiled
def _draw_kind(key: np.uint64, mask_share: int, sentence_share: int) -> int:
    word = draw(key, 0)
    if word < mask_share:
        return MASK
    return SMASK if word < mask_share + sentence_share else GMASK


@compiled
def _budget(
    kind: int, key: np.uint64, window: int, left: int, ends: bool, settings: tuple[Any, ...], lengths: np.ndarray
) -> tuple[int, int, int]:
    """(tokens, spans, targets) of a piece of ``kind``; ``ends`` is whether a [gMASK] piece is closed.

    The spans of a [MASK] piece stand in ``lengths``, rising: a packed row can be led back to them in that order.
    """
    _, _, _, _, rate, short, single, least, table = settings
    if kind == MASK:
        taken, count = piece_budget(key, window, left, rate, short, single, table, lengths)
        sort_few(lengths, count)
        return taken, count, lengths[:count].sum() + count
    if kind == SMASK:
        taken, count = sentence_budget(window, left, rate)
        return taken, count, 0
    taken = min(left, window - 1)
    return taken, 1, suffix_length(mask_key(key, 0), taken, least) + ends


# --- running text -----------------------------------------------------------------------------------------------------


def _stream_rows(stream_tokens: int, recipe: Recipe) -> Plan:
    settings, offsets = _settings(recipe), [np.zeros(1, np.int64)]
    parts, state = [_room(0)], (0, 0, 0)  # position, row, pieces
    while state[0] < stream_tokens:
        count = _ROWS_AT_ONCE * recipe.windows
        ends, pieces = (
            np.zeros(_ROWS_AT_ONCE, np.int64),
            _room(count, count * _LENGTHS_A_PIECE + most_spans(recipe.seq_length) * recipe.windows),
        )
        position, row, done, used = _walk(
            stream_tokens, recipe.windows, settings, *state, ends, pieces.lengths, *_columns(pieces)
        )
        offsets.append(ends[: row - state[1]])
        parts.append(_filled(pieces, done - state[2], used))
        state = (position, row, done)
    return Plan(np.concatenate(offsets), _joined(parts))


def _filled(pieces: Pieces, count: int, lengths: int) -> Pieces:
    """The first ``count`` pieces with the first ``lengths`` span lengths."""
    return _pieces([column[:count] for column in _columns(pieces)], pieces.lengths[:lengths])


_ROWS_AT_ONCE, _LENGTHS_A_PIECE = 1 << 14, 32
"""How much is planned before memory for more is taken."""


@compiled
def _walk(
    stream: int,
    windows: int,
    settings: tuple[Any, ...],
    position: int,
    row: int,
    done: int,
    ends: np.ndarray,
    all_lengths: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    spans: np.ndarray,
    targets: np.ndarray,
    closed: np.ndarray,
    keys: np.ndarray,
    first_length: np.ndarray,
) -> tuple[int, int, int, int]:
    """Walk the stream row by row from ``position`` on, until ``ends`` or ``all_lengths`` might not hold another row.

    Returns the position, row and pieces to go on from, and the span lengths written. ``ends`` is the number of pieces
    at the end of each row, ``done`` of them before the first.
    """
    seed, length, mask_share, sentence_share = settings[0], settings[1], settings[2], settings[3]
    most = most_spans(length)
    lengths = np.zeros(most, np.int64)
    window, piece, first, used = length // windows, 0, row, 0
    while position < stream and row - first < len(ends) and used + windows * most <= len(all_lengths):
        kind = _draw_kind(make_key(seed, row, 0, ROW_KIND), mask_share, sentence_share)
        if stream - position < _MIN_GMASK_TOKENS:
            kind = MASK
        for index in range(1 if kind == GMASK else windows):
            room = length if kind == GMASK else window
            key = make_key(seed, row, index, PIECE)
            taken, count, goals = _budget(kind, key, room, stream - position, False, settings, lengths)
            if taken == 0:
                break
            kinds[piece], places[piece], starts[piece], closed[piece] = kind, index * window, position, False
            tokens[piece], spans[piece], targets[piece], keys[piece] = taken, count, goals, key
            used = _keep_lengths(kind, lengths, count, all_lengths, used, first_length, piece)
            position += taken
            piece += 1
        ends[row - first] = done + piece
        row += 1
    return position, row, done + piece, used


@compiled
def _keep_lengths(
    kind: int,
    lengths: np.ndarray,
    count: int,
    all_lengths: np.ndarray,
    used: int,
    first_length: np.ndarray,
    piece: int,
) -> int:
    """Write the span lengths of a [MASK] piece; returns how many are written now."""
    first_length[piece] = used
    if kind != MASK:
        return used
    for index in range(count):
        all_lengths[used + index] = lengths[index]
    return used + count


def _interleave(text: Plan, mip: Plan, recipe: Recipe) -> Plan:
    """Put the MIP rows at seeded places between the text rows, which keep their order."""
    total = text.rows + mip.rows
    is_mip = np.zeros(total, bool)
    is_mip[_mip_places(total, mip.rows, recipe)] = True
    counts = np.zeros(total, np.int64)
    counts[~is_mip], counts[is_mip] = np.diff(text.row_offsets), np.diff(mip.row_offsets)
    of_mip = np.repeat(is_mip, counts)
    index = np.empty(len(of_mip), np.int64)
    index[~of_mip] = np.arange(len(text.pieces.kind))
    index[of_mip] = len(text.pieces.kind) + np.arange(len(mip.pieces.kind))
    return Plan(np.concatenate([[0], np.cumsum(counts)]), _joined([text.pieces, mip.pieces]).take(index))


def _mip_places(rows: int, mip: int, recipe: Recipe) -> np.ndarray:
    """``int64[mip]``: which of ``rows`` rows are MIP; with a ramp their share rises linearly over its rows.

    On the ramp row ``i`` of ``n`` is drawn within the ``i``-th ``n``-th of the curve, so that every stretch has its due
    to within a row.
    """
    if not recipe.mip_ramp:
        return permutation(recipe.seed, rows, MIP_POSITION)[:mip]
    if recipe.mip_ramp > rows:
        raise UsageError(f"--mip-ramp {recipe.mip_ramp} is longer than the pack of {rows} rows; give fewer.")
    curve = np.minimum(np.arange(1, rows + 1) / recipe.mip_ramp, 1.0)
    parts = (np.arange(mip) + unit_draws(recipe.seed, mip, MIP_POSITION)) / max(1, mip)
    wanted = np.searchsorted(np.cumsum(curve) / curve.sum(), parts)
    rank = np.arange(mip)
    moved = np.maximum.accumulate(wanted - rank) + rank  # two in one place: the second takes the next one
    return np.minimum(moved, rows - mip + rank)


# --- documents --------------------------------------------------------------------------------------------------------


def _document_pieces(starts: np.ndarray, recipe: Recipe) -> Pieces:
    settings, parts, state = _settings(recipe), [_room(0)], (0, 0, 0)  # document, part, offset within it
    while state[0] < len(starts) - 1:
        pieces = _room(_PIECES_AT_ONCE, _PIECES_AT_ONCE * _LENGTHS_A_PIECE + most_spans(recipe.seq_length))
        document, part, offset, count, used = _cut(starts, settings, *state, pieces.lengths, *_columns(pieces))
        state = (document, part, offset)
        parts.append(_filled(pieces, count, used))
    return _joined(parts)


_PIECES_AT_ONCE = 1 << 16


@compiled
def _cut(
    document_starts: np.ndarray,
    settings: tuple[Any, ...],
    document: int,
    part: int,
    offset: int,
    all_lengths: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    starts: np.ndarray,
    tokens: np.ndarray,
    spans: np.ndarray,
    targets: np.ndarray,
    closed: np.ndarray,
    keys: np.ndarray,
    first_length: np.ndarray,
) -> tuple[int, int, int, int, int]:
    """Cut documents into pieces of at most a row, from ``offset`` in ``document`` on, until the columns or
    ``all_lengths`` might not hold another.

    Returns the document, part and offset to go on from, and the pieces and span lengths written.
    """
    seed, length, mask_share, sentence_share = settings[0], settings[1], settings[2], settings[3]
    most = most_spans(length)
    lengths = np.zeros(most, np.int64)
    piece, used = 0, 0
    while document < len(document_starts) - 1:
        position, end = document_starts[document] + offset, document_starts[document + 1] - 1
        while position < end:
            if piece == len(kinds) or used + most > len(all_lengths):
                return document, part, position - document_starts[document], piece, used
            key = make_key(seed, document, part, PIECE)
            kind = _draw_kind(make_key(seed, document, part, ROW_KIND), mask_share, sentence_share)
            left = end - position
            ends = kind == GMASK and left <= length - 2
            taken, count, goals = _budget(kind, key, length, left, ends, settings, lengths)
            kinds[piece], starts[piece], closed[piece], keys[piece] = kind, position, ends, key
            tokens[piece], spans[piece], targets[piece], places[piece] = taken, count, goals, 0
            used = _keep_lengths(kind, lengths, count, all_lengths, used, first_length, piece)
            position += taken
            piece += 1
            part += 1
        document, part, offset = document + 1, 0, 0
    return document, 0, 0, piece, used


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
