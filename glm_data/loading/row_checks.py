"""The format's rules for packed rows, checked by compiled code: the first rule that each row breaks, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from glm_data.kernels import compiled
from glm_data.packing.rows import GMASK, MASK, SMASK, Rows

FAULTS = (
    "",
    "a token outside the vocabulary of {vocab}",
    "no piece",
    "pieces overlap or leave the row",
    "a piece of a kind that does not exist",
    "more than one kind of piece",
    "the number of tails is not that of the [gMASK] pieces",
    "a token in the padding",
    "the spans of the piece at {place} do not fill its part B",
    "a span of the piece at {place} does not begin with <sop>",
    "a span of the piece at {place} does not point at its mask",
    "the mask of the piece at {place} does not end its part A",
    "two masks of the piece at {place} touch",
    "a mask of the piece at {place} has no span",
)
_GOOD, _VOCABULARY, _EMPTY, _OVERLAP, _KIND, _MIXED, _TAILS, _PADDING = range(8)
_PART_B, _SOP, _MASK, _END, _TOUCH, _LOOSE = range(8, len(FAULTS))


def row_faults(rows: Rows, specials: Mapping[str, int], vocab: int, *, one_kind: bool) -> tuple[np.ndarray, np.ndarray]:
    """``int8[R]``: the number in :data:`FAULTS` of the first rule that a row breaks, 0 for none; ``int32[R]``: where.

    ``one_kind`` says that a row may hold pieces of one kind only (running text).
    """
    fault, place = np.zeros(len(rows), np.int8), np.zeros(len(rows), np.int32)
    ids = tuple(specials[name] for name in ("pad", "sop", "mask", "gmask", "smask"))
    _check(
        rows.tokens.astype(np.int32, copy=False),
        (rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans, rows.tail_offsets),
        ids,
        vocab,
        one_kind,
        fault,
        place,
    )
    return fault, place


@compiled
def _check(
    tokens: np.ndarray,
    columns: tuple[Any, ...],
    ids: tuple[Any, ...],
    vocab: int,
    one_kind: bool,
    fault: np.ndarray,
    place: np.ndarray,
) -> None:
    piece_offsets, pieces, span_offsets, spans, tail_offsets = columns
    for row in range(tokens.shape[0]):
        own = pieces[piece_offsets[row] : piece_offsets[row + 1]]
        masks = spans[span_offsets[row] : span_offsets[row + 1]]
        fault[row] = _check_shape(tokens[row], own, tail_offsets[row + 1] - tail_offsets[row], ids[0], vocab, one_kind)
        span = 0
        for piece in range(len(own)):
            if fault[row] != 0:
                break
            fault[row], span = _check_piece(tokens[row], own[piece], masks, span, ids)
            place[row] = own[piece, 0]
        if fault[row] == 0 and span != len(masks):
            fault[row] = _PART_B


@compiled
def _check_shape(row: np.ndarray, pieces: np.ndarray, tails: int, pad: int, vocab: int, one_kind: bool) -> int:
    """Tokens within the vocabulary; pieces in order, of known kinds, with padding between them and a tail a [gMASK]."""
    for token in row:
        if token < 0 or token >= vocab:
            return _VOCABULARY
    if len(pieces) == 0:
        return _EMPTY
    free = 0
    for piece in range(len(pieces)):
        start, sep, end, kind = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3]
        if start < free or sep <= start or end <= sep or end > len(row):
            return _OVERLAP
        if kind > SMASK:
            return _KIND
        if one_kind and kind != pieces[0, 3]:
            return _MIXED
        tails -= kind == GMASK
        for at in range(free, start):
            if row[at] != pad:
                return _PADDING
        free = end
    for at in range(free, len(row)):
        if row[at] != pad:
            return _PADDING
    return _TAILS if tails != 0 else _GOOD


@compiled
def _check_piece(
    row: np.ndarray, piece: np.ndarray, spans: np.ndarray, span: int, ids: tuple[Any, ...]
) -> tuple[int, int]:
    """The rules of one piece; ``span`` is its first span. Returns the fault and the span behind its last."""
    start, sep, end, kind = piece[0], piece[1], piece[2], piece[3]
    _, sop, mask_id, gmask_id, smask_id = ids
    blank = gmask_id if kind == GMASK else smask_id if kind == SMASK else mask_id
    at, first = sep, span
    while at < end and span < len(spans):
        mask, begin, length = spans[span, 0], spans[span, 1], spans[span, 2]
        if begin != at or length < 1 or begin + length > end:
            return _PART_B, span
        if row[begin] != sop:
            return _SOP, span
        if mask < start or mask >= sep or row[mask] != blank:
            return _MASK, span
        at += length
        span += 1
    if at != end:
        return _PART_B, span
    if kind not in (MASK, SMASK):
        return (_GOOD if span - first == 1 and spans[first, 0] == sep - 1 else _END), span
    found = 0
    for place in range(start, sep):
        if row[place] == blank:
            found += 1
            if place + 1 < sep and row[place + 1] == blank:
                return _TOUCH, span
    return (_GOOD if found == span - first else _LOOSE), span
