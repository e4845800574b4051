"""Rows as arrays, and what derives from them: targets, positions, loss mask, segments.

A row of ``L`` tokens holds pieces; a piece is ``(start, sep, end, kind)``::

    start ........................ sep ............................ end
    part A: text with masks        part B: <sop> span <sop> span ...
    attended both ways             attended left to right, sees all of part A

``[MASK]`` (kind 1), golden vector of GLM-130B's collator, tokens 11 .. 22 with spans 18-20 and 13-14::

    tokens   11 12 [M] 15 16 17 [M] 21 22 | <sop> 18 19   20  | <sop> 13   14
    targets                               |   18  19 20 <eop> |   13  14 <eop>
    position  0  1  2   3  4  5  6   7  8 |    6   6  6    6  |    2   2    2

``[gMASK]`` (kind 0): prefix, [gMASK], <sop>, suffix; positions run on; the last target, which no later token follows,
is the piece's *tail*. MIP (kind 2): prompt, [MASK], <sop>, target; positions run on; the last target is <eop>.
``[sMASK]`` (kind 3) is laid out as [MASK] is, with spans of whole sentences.

A span is ``(mask, start, length)``: where its mask stands, where its part B starts (its ``<sop>``), and its part-B
length including ``<sop>``; spans stand in part-B order. Targets, positions, loss mask and segments derive from these
in :func:`assemble` alone: loader, verifier, viewer and exporter share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glm_data.kernels import compiled

GMASK, MASK, MIP, SMASK = range(4)
KINDS = ("gmask", "mask", "mip", "smask")


class MisfitRowError(ValueError):
    """Pieces, spans and tails of a row that do not fit together; ``index`` is the row's place among those read."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the pieces, spans and tails of row {index} do not fit together")
        self.index = index


def ragged_index(offsets: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``int64[len(index) + 1]`` offsets of the entries ``index`` of a ragged column, and where their values stand."""
    counts = np.diff(offsets)[index]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return ends, ragged(offsets[:-1][index], counts, ends)


def ragged(first: np.ndarray, counts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """``int64[n]``: ``first[i]``, ``first[i] + 1``, …, ``counts[i]`` of them for each ``i``; ``ends`` are the sums of
    the counts, from 0."""
    return np.arange(ends[-1]) + np.repeat(first - ends[:-1], counts)


@dataclass(frozen=True)
class Rows:
    """``R`` rows in compressed form; ragged columns are flat arrays with ``offsets[R + 1]``."""

    tokens: np.ndarray
    """``int32 or uint16 [R, L]``: the model's input, padding included."""
    piece_offsets: np.ndarray
    pieces: np.ndarray
    """``int32[P, 4]``: (start, sep, end, kind)."""
    span_offsets: np.ndarray
    spans: np.ndarray
    """``int32[S, 3]``: (mask, start, length), in part-B order."""
    tail_offsets: np.ndarray
    tails: np.ndarray
    """``int32[T]``: the last target of each [gMASK] piece, in piece order."""

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, index: np.ndarray) -> Rows:
        """The rows ``index``, in that order."""
        columns = []
        for offsets, values in (
            (self.piece_offsets, self.pieces),
            (self.span_offsets, self.spans),
            (self.tail_offsets, self.tails),
        ):
            ends, flat = ragged_index(offsets, index)
            columns += [ends, values[flat]]
        return Rows(self.tokens[index], *columns)

    def row_pieces(self, row: int) -> np.ndarray:
        """``int32[p, 4]``: the pieces of one row."""
        return self.pieces[self.piece_offsets[row] : self.piece_offsets[row + 1]]

    def row_spans(self, row: int) -> np.ndarray:
        """``int32[s, 3]``: the spans of one row."""
        return self.spans[self.span_offsets[row] : self.span_offsets[row + 1]]

    def row_tails(self, row: int) -> np.ndarray:
        """``int32[t]``: the tails of one row."""
        return self.tails[self.tail_offsets[row] : self.tail_offsets[row + 1]]


@dataclass(frozen=True)
class Assembled:
    """What a model needs beside the tokens, each ``[R, L]``."""

    targets: np.ndarray
    """``int32``: what is to be predicted at this place; 0 where nothing is."""
    position_ids: np.ndarray
    """``int32``: restarts at 0 in every piece; in [MASK] and [sMASK] pieces part B repeats its mask's position."""
    loss_mask: np.ndarray
    """``uint8``: 1 where a target counts."""
    segments: np.ndarray
    """``uint16``: the piece's number from 1 within its row, 0 on padding."""


def concat(left: Rows, right: Rows) -> Rows:
    """The rows of both, of one length."""

    def joined(offsets: str, values: str) -> tuple[np.ndarray, np.ndarray]:
        first, second = getattr(left, offsets), getattr(right, offsets)
        return np.concatenate([first, first[-1] + second[1:]]), np.concatenate(
            [getattr(left, values), getattr(right, values)]
        )

    return Rows(
        np.concatenate([left.tokens, right.tokens]),
        *joined("piece_offsets", "pieces"),
        *joined("span_offsets", "spans"),
        *joined("tail_offsets", "tails"),
    )


def assemble(rows: Rows, eop: int) -> Assembled:
    """Derive targets, positions, loss mask and segments from tokens, pieces, spans and tails."""
    shape = rows.tokens.shape
    out = Assembled(*(np.zeros(shape, kind) for kind in (np.int32, np.int32, np.uint8, np.uint16)))
    _assemble(
        rows.tokens, rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans, rows.tail_offsets, rows.tails,
        eop, out.targets, out.position_ids, out.loss_mask, out.segments,
    )  # fmt: skip
    return out


@compiled
def _assemble(
    tokens: np.ndarray,
    piece_offsets: np.ndarray,
    pieces: np.ndarray,
    span_offsets: np.ndarray,
    spans: np.ndarray,
    tail_offsets: np.ndarray,
    tails: np.ndarray,
    eop: int,
    targets: np.ndarray,
    positions: np.ndarray,
    loss: np.ndarray,
    segments: np.ndarray,
) -> None:
    for row in range(tokens.shape[0]):
        span, tail = span_offsets[row], tail_offsets[row]
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            start, sep, end, kind = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3]
            segment = piece - piece_offsets[row] + 1
            own_positions, own_segments = positions[row, start:end], segments[row, start:end]
            for place in range(end - start):  # from 0, over slices: four times as fast as places of the row
                own_positions[place] = place
                own_segments[place] = segment
            while span < span_offsets[row + 1] and sep <= spans[span, 1] < end:
                first, last = spans[span, 1], spans[span, 1] + spans[span, 2] - 1
                for place in range(first, last + 1):
                    loss[row, place] = 1
                    if kind in (MASK, SMASK):
                        positions[row, place] = spans[span, 0] - start
                    if place < last:
                        targets[row, place] = tokens[row, place + 1]
                targets[row, last] = eop
                if kind == GMASK:
                    targets[row, last] = tails[tail]
                    tail += 1
                span += 1


def check_fit(rows: Rows) -> None:
    """Raise :class:`MisfitRowError` for rows that no packer writes; compiled code trusts pieces and spans after it."""
    wrong = _first_wrong(
        rows.tokens.shape[1], rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans, rows.tail_offsets
    )
    if wrong >= 0:
        raise MisfitRowError(wrong)


@compiled
def _first_wrong(
    length: int,
    piece_offsets: np.ndarray,
    pieces: np.ndarray,
    span_offsets: np.ndarray,
    spans: np.ndarray,
    tail_offsets: np.ndarray,
) -> int:
    """The first row whose pieces leave it or overlap, whose spans do not fill every part B, or whose tails are not one
    a [gMASK] piece; else -1."""
    for row in range(len(piece_offsets) - 1):
        span, tails, free = span_offsets[row], tail_offsets[row + 1] - tail_offsets[row], 0
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            start, sep, end, kind = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2], pieces[piece, 3]
            if start < free or sep <= start or end <= sep or end > length or kind > SMASK:
                return row
            place, first = sep, span
            while span < span_offsets[row + 1] and place < end:
                if spans[span, 1] != place or spans[span, 2] < 1:
                    return row
                if spans[span, 0] < start or spans[span, 0] >= sep:
                    return row
                place += spans[span, 2]
                span += 1
            if place != end:
                return row
            if kind in (GMASK, MIP) and (span - first != 1 or spans[first, 0] != sep - 1):
                return row
            tails -= kind == GMASK
            free = end
        if tails != 0 or span != span_offsets[row + 1]:
            return row
    return -1
