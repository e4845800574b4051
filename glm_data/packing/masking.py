"""Masking: the text of pieces laid out as rows, in the mask set of any epoch, and rows led back to that text.

:func:`lay_out` and :func:`restore` are each other's inverse. So the mask sets of later epochs need nothing but the
packed row itself: restore it, draw again, lay it out (:func:`remask`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from glm_data.kernels import compiled
from glm_data.packing.placing import (
    choose_sentences,
    mask_key,
    place_in_sentences,
    place_spans,
    sentence_ends,
    suffix_length,
)
from glm_data.packing.rows import GMASK, MASK, MIP, SMASK, MisfitRowError, Rows, check_fit, concat, ragged_index
from glm_data.packing.spans import most_spans, sentence_spans, sort_few


@dataclass(frozen=True)
class Specials:
    """The ids a row needs beside text."""

    mask: int
    gmask: int
    smask: int
    sop: int
    eop: int
    eos: int
    pad: int


@dataclass(frozen=True)
class MaskRule:
    """What a mask set is drawn by, beside the keys of the pieces; a number for all rows, or ``[R]`` one a row."""

    gmask_least: float | np.ndarray
    """Least share of a [gMASK] piece to generate."""
    mask_rate: float | np.ndarray
    """Least share of an [sMASK] piece to mask."""
    in_sentences: bool | np.ndarray
    """Whether [MASK] spans keep within sentences."""
    sentence_table: np.ndarray
    """``uint8[ids]``: bits of :mod:`glm_data.packing.placing`; empty where no rule asks for sentences."""

    def of(self, rows: np.ndarray) -> MaskRule:
        """The rule of the rows ``rows``."""

        def part(knob: Any) -> Any:
            return knob[rows] if isinstance(knob, np.ndarray) else knob

        knobs = part(self.gmask_least), part(self.mask_rate), part(self.in_sentences)
        return MaskRule(*knobs, self.sentence_table)


@dataclass(frozen=True)
class PieceTexts:
    """The pieces of ``R`` rows before they are masked; ``P`` in all."""

    piece_offsets: np.ndarray
    """``int64[R + 1]``."""
    kind: np.ndarray
    """``uint8[P]``."""
    place: np.ndarray
    """``int32[P]``: where in its row the piece starts."""
    key: np.ndarray
    """``uint64[P]``: what its mask sets are drawn from."""
    closed: np.ndarray
    """``bool[P]``: a [gMASK] piece whose text ends with it; else its last token is the tail."""
    text: np.ndarray
    """``int32[N]``: source tokens, piece after piece; of MIP the prompt and the target."""
    starts: np.ndarray
    """``int64[P + 1]``: where each piece starts in ``text``."""
    prompt: np.ndarray
    """``int32[P]``: tokens of the prompt, MIP only."""
    lengths: np.ndarray
    """``int64[S]``: rising span lengths of each [MASK] piece."""
    length_offsets: np.ndarray
    """``int64[P + 1]``."""


def lay_out(
    texts: PieceTexts,
    epoch: int | np.ndarray,
    rule: MaskRule,
    ids: Specials,
    seq_length: int,
    token_type: npt.DTypeLike = np.int32,
) -> Rows:
    """The rows of ``texts`` with the mask set of ``epoch`` (one for all, or ``int64[R]``); ``seq_length`` places a row,
    tokens of ``token_type``.

    Raises :class:`~glm_data.packing.rows.MisfitRowError` for texts that do not fit between their places, as only
    damaged rows have them.
    """
    rows, pieces = len(texts.piece_offsets) - 1, len(texts.kind)
    span_offsets = np.zeros(rows + 1, np.int64)
    least, rate, in_sentences, epochs = (
        np.ascontiguousarray(np.broadcast_to(np.asarray(value, kind), rows))
        for value, kind in (
            (rule.gmask_least, np.float64),
            (rule.mask_rate, np.float64),
            (rule.in_sentences, np.bool_),
            (epoch, np.int64),
        )
    )
    spans = np.zeros((_most_spans(texts, rate), 3), np.int32)
    tail_starts = np.concatenate([[0], np.cumsum(texts.kind == GMASK)])
    out = Rows(
        tokens=np.empty((rows, seq_length), token_type),
        piece_offsets=texts.piece_offsets,
        pieces=np.zeros((pieces, 4), np.int32),
        span_offsets=span_offsets,
        spans=spans,
        tail_offsets=tail_starts[texts.piece_offsets],
        tails=np.zeros(int(tail_starts[-1]), np.int32),
    )
    count = _lay_out(
        (out.tokens, out.pieces, span_offsets, spans, out.tails),
        (texts.piece_offsets, texts.kind, texts.place, texts.key, texts.closed),
        (texts.text, texts.starts, texts.prompt, texts.lengths, texts.length_offsets),
        (epochs, least, rate, in_sentences, rule.sentence_table),
        (ids.mask, ids.gmask, ids.smask, ids.sop, ids.eop, ids.pad),
    )
    if count < 0:
        raise MisfitRowError(-1 - count)
    return Rows(out.tokens, out.piece_offsets, out.pieces, span_offsets, spans[:count], out.tail_offsets, out.tails)


def _most_spans(texts: PieceTexts, rate: np.ndarray) -> int:
    """An upper bound of the spans of all pieces."""
    most = len(texts.kind) + len(texts.lengths)
    sentences = np.flatnonzero(texts.kind == SMASK)
    if len(sentences):
        rates = np.repeat(rate, np.diff(texts.piece_offsets))[sentences]
        tokens = np.diff(texts.starts)[sentences]
        most += sum(map(sentence_spans, tokens.tolist(), rates.tolist()))
    return most


@compiled
def _lay_out(
    out: tuple[Any, ...],
    pieces: tuple[Any, ...],
    sources: tuple[Any, ...],
    rule: tuple[Any, ...],
    ids: tuple[Any, ...],
) -> int:
    """Fill in the rows; returns the number of spans, or ``-1 - row`` for the first row that cannot be."""
    tokens, piece_out, span_offsets, spans, tails = out
    piece_offsets, kinds, places, keys, closed = pieces
    text, text_starts, prompts, all_lengths, length_offsets = sources
    epochs, leasts, rates, all_in_sentences, table = rule
    mask_id, gmask_id, smask_id, sop_id, eop_id, pad_id = ids
    drawn = np.zeros((3, most_spans(tokens.shape[1])), np.int64)  # lengths, starts, order
    scratch = np.zeros((3, tokens.shape[1] + 2), np.int32)
    span, tail = 0, 0
    for row in range(tokens.shape[0]):
        least, settings, free = leasts[row], (rates[row], all_in_sentences[row], table), 0
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            kind, place, key = kinds[piece], places[piece], mask_key(keys[piece], epochs[row])
            source = text[text_starts[piece] : text_starts[piece + 1]]
            limit = places[piece + 1] if piece + 1 < piece_offsets[row + 1] else tokens.shape[1]
            known = all_lengths[length_offsets[piece] : length_offsets[piece + 1]]
            if not _fits(kind, len(source), known, rates[row], closed[piece], prompts[piece], limit - place):
                return -1 - row
            tokens[row, free:place] = pad_id
            count = 1
            if kind in (MASK, SMASK):
                count = _draw_spans(key, kind, source, known, settings, drawn, scratch)
                blank = mask_id if kind == MASK else smask_id
                sep, end = lay_out_mask(
                    tokens[row], place, source, count, drawn[0], drawn[1], drawn[2], blank, sop_id, spans, span
                )
            elif kind == GMASK:
                prefix = len(source) - suffix_length(key, len(source), least)
                last = len(source) if closed[piece] else len(source) - 1
                sep, end = lay_out_suffix(
                    tokens[row], place, source[:prefix], source[prefix:last], gmask_id, sop_id, spans, span
                )
                tails[tail] = eop_id if closed[piece] else source[last]
                tail += 1
            else:
                prompt, target = source[: prompts[piece]], source[prompts[piece] :]
                sep, end = lay_out_suffix(tokens[row], place, prompt, target, mask_id, sop_id, spans, span)
            span, free = span + count, end
            piece_out[piece, 0], piece_out[piece, 1], piece_out[piece, 2], piece_out[piece, 3] = place, sep, end, kind
        tokens[row, free:] = pad_id
        span_offsets[row + 1] = span
    return span


@compiled
def _fits(kind: int, tokens: int, known: np.ndarray, rate: float, closed: bool, prompt: int, room: int) -> bool:
    """Whether a piece can be laid out in ``room`` places, with a token between any two spans."""
    if tokens < 1:
        return False
    if kind == MASK:
        count = len(known)
        if count < 1 or known[0] < 1:
            return False
        return known.sum() + count - 1 <= tokens and tokens + 2 * count <= room
    if kind == SMASK:
        most = sentence_spans(tokens, rate)
        return tokens + 2 * most <= room
    if kind == GMASK:
        return tokens + 1 + closed <= room
    return prompt <= tokens and tokens + 2 <= room


@compiled
def _draw_spans(
    key: np.uint64,
    kind: int,
    source: np.ndarray,
    known: np.ndarray,
    settings: tuple[Any, ...],
    drawn: np.ndarray,
    scratch: np.ndarray,
) -> int:
    """The spans of a [MASK] piece with the lengths ``known``, or of an [sMASK] piece; returns how many."""
    rate, in_sentences, table = settings
    lengths, starts, order = drawn[0], drawn[1], drawn[2]
    if kind == SMASK or in_sentences:
        sentence_ends(source, table, scratch[0])
    if kind == SMASK:
        most = sentence_spans(len(source), rate)
        return choose_sentences(
            key, len(source), most, rate, scratch[0], lengths, starts, order, scratch[1], scratch[2]
        )
    count = len(known)
    lengths[:count] = known
    if in_sentences:
        place_in_sentences(key, len(source), count, lengths, starts, order, scratch[0], scratch[1])
    else:
        place_spans(key, len(source), count, lengths, starts, order)
    return count


@compiled
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
    """Write a [MASK] or [sMASK] piece of ``text`` at ``row[start:]``; returns (sep, end).

    ``starts[i], lengths[i]`` are the masked stretches of ``text`` in rising order, ``order`` their order in part B; the
    spans are written to ``spans[span : span + count]``.
    """
    place, source = start, 0
    masks = np.empty(count, np.int64)
    for index in range(count):
        kept = starts[index] - source
        for offset in range(kept):
            row[place + offset] = text[source + offset]
        place += kept
        masks[index] = place
        row[place] = mask_id
        place += 1
        source = starts[index] + lengths[index]
    for offset in range(len(text) - source):
        row[place + offset] = text[source + offset]
    sep = place + len(text) - source
    place = sep
    for index in range(count):
        which = order[index]
        length, first = lengths[which], starts[which]
        spans[span + index, 0] = masks[which]
        spans[span + index, 1] = place
        spans[span + index, 2] = length + 1
        row[place] = sop_id
        for offset in range(length):
            row[place + 1 + offset] = text[first + offset]
        place += length + 1
    return sep, place


@compiled
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


# --- and back ---------------------------------------------------------------------------------------------------------


def restore(rows: Rows, eop: int, keys: np.ndarray | None = None) -> PieceTexts:
    """The text that ``rows`` were laid out from, masks undone; ``keys`` is ``uint64[P]`` if they are to be laid out
    again. Raises :class:`~glm_data.packing.rows.MisfitRowError` for rows that no packer writes."""
    check_fit(rows)
    pieces, kind = len(rows.pieces), rows.pieces[:, 3].astype(np.uint8)
    span_of = np.concatenate([[0], np.cumsum(spans_of(rows))])
    mask_spans = np.where(kind == MASK, np.diff(span_of), 0)
    texts = PieceTexts(
        piece_offsets=rows.piece_offsets,
        kind=kind,
        place=rows.pieces[:, 0],
        key=np.zeros(pieces, np.uint64) if keys is None else keys,
        closed=np.zeros(pieces, np.bool_),
        text=np.empty(int((rows.pieces[:, 2] - rows.pieces[:, 0]).sum()), np.int32),
        starts=np.zeros(pieces + 1, np.int64),
        prompt=np.zeros(pieces, np.int32),
        lengths=np.zeros(int(mask_spans.sum()), np.int64),
        length_offsets=np.concatenate([[0], np.cumsum(mask_spans)]),
    )
    count = _restore(
        (rows.tokens, rows.piece_offsets, rows.pieces, span_of, rows.spans, rows.tails),
        (texts.closed, texts.text, texts.starts, texts.prompt, texts.lengths, texts.length_offsets),
        eop,
    )
    columns = {name: getattr(texts, name) for name in texts.__dataclass_fields__}
    return PieceTexts(**{**columns, "text": texts.text[:count]})


def spans_of(rows: Rows) -> np.ndarray:
    """``int64[P]``: the spans of each piece; those of a row stand in the order of its pieces."""
    length = rows.tokens.shape[1]
    piece_row = np.repeat(np.arange(len(rows)), np.diff(rows.piece_offsets))
    span_row = np.repeat(np.arange(len(rows)), np.diff(rows.span_offsets))
    ends = np.searchsorted(span_row * length + rows.spans[:, 1], piece_row * length + rows.pieces[:, 2], "left")
    return np.diff(np.concatenate([[0], ends]))


@compiled
def _restore(rows: tuple[Any, ...], out: tuple[Any, ...], eop: int) -> int:
    tokens, piece_offsets, pieces, span_of, spans, tails = rows
    closed, text, starts, prompts, lengths, length_offsets = out
    rising = np.zeros(tokens.shape[1] + 1, np.int64)
    at, tail = 0, 0
    for row in range(tokens.shape[0]):
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            place, sep, kind = pieces[piece, 0], pieces[piece, 1], pieces[piece, 3]
            first, count = span_of[piece], span_of[piece + 1] - span_of[piece]
            _by_mask(spans, first, count, rising)
            for index in range(count):
                mask, start, length = spans[rising[index], 0], spans[rising[index], 1], spans[rising[index], 2]
                for source in range(place, mask):
                    text[at] = tokens[row, source]
                    at += 1
                if kind == MIP:
                    prompts[piece] = at - starts[piece]
                for source in range(start + 1, start + length):
                    text[at] = tokens[row, source]
                    at += 1
                place = max(place, mask + 1)
            for source in range(place, sep):
                text[at] = tokens[row, source]
                at += 1
            if kind == GMASK:
                closed[piece] = tails[tail] == eop
                if not closed[piece]:
                    text[at] = tails[tail]
                    at += 1
                tail += 1
            if kind == MASK:
                own = lengths[length_offsets[piece] : length_offsets[piece + 1]]
                for index in range(count):
                    own[index] = spans[first + index, 2] - 1
                sort_few(own, count)
            starts[piece + 1] = at
    return at


@compiled
def _by_mask(spans: np.ndarray, first: int, count: int, rising: np.ndarray) -> None:
    """Fill ``rising`` with the spans in the order of their masks."""
    for index in range(count):
        slot = index
        while slot > 0 and spans[rising[slot - 1], 0] > spans[first + index, 0]:
            rising[slot] = rising[slot - 1]
            slot -= 1
        rising[slot] = first + index


def remask(rows: Rows, keys: np.ndarray, epoch: int | np.ndarray, rule: MaskRule, ids: Specials) -> Rows:
    """``rows`` with the mask set of ``epoch``: what the packer would have written. Rows of epoch 0 stay as they are.

    ``keys`` is ``uint64[P]``, ``epoch`` one for all rows or ``int64[R]``. Pieces stand at the same places in every
    epoch; only [sMASK] pieces may end earlier or later, within the room that was planned for them.
    """
    epochs, length = np.broadcast_to(np.asarray(epoch, np.int64), len(rows)), rows.tokens.shape[1]
    later = np.flatnonzero(epochs)
    if len(later) == len(rows):
        return lay_out(restore(rows, ids.eop, keys), epochs, rule, ids, length)
    own_keys = keys[ragged_index(rows.piece_offsets, later)[1]]
    anew = lay_out(restore(rows.take(later), ids.eop, own_keys), epochs[later], rule.of(later), ids, length)
    order = np.arange(len(rows))
    order[later] = len(rows) + np.arange(len(later))
    return concat(rows, anew).take(order)


def invert(rows: Rows, row: int, eop: int) -> list[np.ndarray]:
    """The source token ids of each piece of a row, masks undone; of MIP the prompt and the target.

    Raises :class:`~glm_data.packing.rows.MisfitRowError` for a row that no packer writes.
    """
    texts = restore(rows.take(np.array([row])), eop)
    return [texts.text[first:last] for first, last in pairwise(texts.starts.tolist())]
