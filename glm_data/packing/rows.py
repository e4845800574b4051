"""Rows as arrays: lay out pieces, derive targets and positions, invert.

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

A span is ``(mask, start, length)``: where its mask stands, where its part B starts (its ``<sop>``), and its part-B
length including ``<sop>``; spans stand in part-B order. Targets, positions, loss mask and segments derive from these
in :func:`assemble` alone: loader, verifier, viewer and exporter share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

GMASK, MASK, MIP = range(3)
KINDS = ("gmask", "mask", "mip")


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
    """``int32``: restarts at 0 in every piece; in [MASK] pieces part B repeats the position of its mask."""
    loss_mask: np.ndarray
    """``uint8``: 1 where a target counts."""
    segments: np.ndarray
    """``uint16``: the piece's number from 1 within its row, 0 on padding."""


def assemble(rows: Rows, eop: int) -> Assembled:
    """Derive targets, positions, loss mask and segments from tokens, pieces, spans and tails."""
    shape = rows.tokens.shape
    out = Assembled(*(np.zeros(shape, kind) for kind in (np.int32, np.int32, np.uint8, np.uint16)))
    _assemble(
        rows.tokens, rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans, rows.tail_offsets, rows.tails,
        eop, out.targets, out.position_ids, out.loss_mask, out.segments,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
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
                    if kind == MASK:
                        positions[row, place] = spans[span, 0] - start
                    if place < last:
                        targets[row, place] = tokens[row, place + 1]
                targets[row, last] = eop
                if kind == GMASK:
                    targets[row, last] = tails[tail]
                    tail += 1
                span += 1


@njit(cache=True)
def lay_out_mask(
    row: np.ndarray,
    start: int,
    text: np.ndarray,
    count: int,
    lengths: np.ndarray,
    starts: np.ndarray,
    order: np.ndarray,
    mask_id: int,
    sop_id: int,
    spans: np.ndarray,
    span: int,
) -> tuple[int, int]:
    """Write a [MASK] piece of ``text`` at ``row[start:]``; returns (sep, end).

    ``starts[i], lengths[i]`` are the masked stretches of ``text`` in rising order, ``order`` their order in part B; the
    spans are written to ``spans[span : span + count]``.
    """
    place, source = start, 0
    masks = np.empty(count, np.int64)
    for index in range(count):
        while source < starts[index]:
            row[place] = text[source]
            place += 1
            source += 1
        masks[index] = place
        row[place] = mask_id
        place += 1
        source += lengths[index]
    while source < len(text):
        row[place] = text[source]
        place += 1
        source += 1
    sep = place
    for index in range(count):
        which = order[index]
        spans[span + index, 0] = masks[which]
        spans[span + index, 1] = place
        spans[span + index, 2] = lengths[which] + 1
        row[place] = sop_id
        for offset in range(lengths[which]):
            row[place + 1 + offset] = text[starts[which] + offset]
        place += lengths[which] + 1
    return sep, place


@njit(cache=True)
def lay_out_suffix(
    row: np.ndarray,
    start: int,
    context: np.ndarray,
    continuation: np.ndarray,
    mask_id: int,
    sop_id: int,
    spans: np.ndarray,
    span: int,
) -> tuple[int, int]:
    """Write context, mask, <sop>, continuation at ``row[start:]`` with one span; returns (sep, end).

    For a [gMASK] piece ``continuation`` excludes the tail; for MIP it is the whole target.
    """
    mask = start + len(context)
    for place in range(len(context)):  # not a slice: numba would spend seconds on compiling the error of one that fails
        row[start + place] = context[place]
    row[mask] = mask_id
    row[mask + 1] = sop_id
    end = mask + 2 + len(continuation)
    for place in range(len(continuation)):
        row[mask + 2 + place] = continuation[place]
    spans[span, 0], spans[span, 1], spans[span, 2] = mask, mask + 1, len(continuation) + 1
    return mask + 1, end


def invert(rows: Rows, row: int) -> list[np.ndarray]:
    """The source token ids of each piece of a row: the masked text restored, or context + continuation (+ tail).

    A [gMASK] piece that ends its document ends with <eop>. For MIP the mask between prompt and target is dropped too.
    Exact for every row that the packer writes.
    """
    tokens, spans = rows.tokens[row].astype(np.int64), rows.row_spans(row).tolist()
    tails = iter(rows.row_tails(row).tolist())
    sources: list[np.ndarray] = []
    for start, sep, end, kind in rows.row_pieces(row).tolist():
        inside = sorted(span for span in spans if start <= span[0] < sep)
        parts, place = [], start
        for mask, first, length in inside:
            parts += [tokens[place:mask], tokens[first + 1 : first + length]]
            place = mask + 1
        parts.append(tokens[place:sep])
        if kind == GMASK:
            parts.append(np.array([next(tails)]))
        sources.append(np.concatenate(parts))
        if max(first + length for _, first, length in inside) != end:
            raise ValueError(f"row {row}: the spans of the piece at {start} do not end at {end}")
    return sources
