"""A packed row as text: part A with its masks, part B in its order, and where every token came from.

A *cell* is what a reader sees as one: a token, or the byte pieces of one character together. Cells that look alike and
stand one behind the other are a *stretch*, which is painted at one go. Everything about single tokens stands in lists
with one entry a place of the row, up to the last piece's end.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from glm_data.loading.provenance import Documents, slices_of
from glm_data.loading.rows import PackedRows
from glm_data.packing.rows import KINDS, Rows, assemble
from glm_data.viewer.styled import reveal
from tokenizer import SPECIAL_PIECES, Tokenizer

BLANKS = {"gmask": "gMASK", "mask": "MASK", "mip": "MASK", "smask": "sMASK"}
"""The mask of each kind of piece."""

BYTES = "bytes"
_BYTE_PIECE = len("<0x0A>")


class Stretch(NamedTuple):
    """Cells of one look; :mod:`glm_data.viewer.styled` has the styles."""

    place: int
    """Of the first token."""
    tokens: int
    """In a cell: 1 but for a character spelt in bytes, which is a stretch of its own."""
    texts: list[str]
    """Of each cell."""
    style: str

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


class Blank(msgspec.Struct, frozen=True, kw_only=True):
    """A span: the mask that it stands for, and its tokens in part B."""

    mask: int
    start: int
    """Place of its ``<sop>``."""
    length: int
    """Tokens in part B, ``<sop>`` included."""
    position: int
    """That the model reads its tokens at, from the piece's start: of all of them, or of the first where they run on."""
    text: list[Stretch]
    """Of the tokens behind ``<sop>``."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a row."""

    kind: str
    start: int
    sep: int
    end: int
    part_a: list[Stretch]
    """Each mask is one with the style of its kind."""
    blanks: list[Blank]
    """In part-B order."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a document, or a MIP sample, in the row."""

    document: int
    """Number in ``documents.parquet``."""
    id: str
    source: str
    lang: str
    template: str
    offset: int
    """Of its first token among the document's."""
    tokens: int


class RowView(msgspec.Struct, frozen=True, kw_only=True):
    """A row to be painted."""

    row: int
    rows: int
    """Of the whole pack."""
    epoch: int
    length: int
    used: int
    targets: int
    pieces: list[Piece]
    origins: list[Origin]
    tokens: list[int]
    names: dict[int, str]
    """The piece of every id that the row holds, as SentencePiece writes it."""
    positions: list[int]
    wanted: list[int]
    """The target at every place; -1 where none counts."""
    origin_of: list[int]
    """Which of ``origins`` every place is of; -1 for masks, ``<sop>`` and places between pieces."""
    offset_of: list[int]
    """Number of the token in its document."""


_style_of = itemgetter(1)


class Vocabulary:
    """What the pieces of a tokenizer look like, each worked out once."""

    def __init__(self, model: Tokenizer) -> None:
        self.model = model
        self._looks: dict[int, tuple[str, str]] = {}

    def look(self, id: int) -> tuple[str, str]:
        """Text and style of a piece; the style of a byte's is :data:`BYTES`, and it has no text of its own."""
        if id not in self._looks:
            self._looks[id] = self._work_out(id)
        return self._looks[id]

    def _work_out(self, id: int) -> tuple[str, str]:
        name = self.model.piece(id)
        if id < len(SPECIAL_PIECES) or id >= self.model.pieces:
            return name, "special"
        if len(name) == _BYTE_PIECE and name.startswith("<0x"):
            return "", BYTES
        return _look(self.model.piece_bytes(id).decode("utf-8", "replace"), "")


def _look(text: str, style: str) -> tuple[str, str]:
    """Text as it is shown, with the styles that its parts have."""
    spans = reveal(text)
    kinds = {kind for span in spans for kind in span.style.split()}
    return "".join(span.text for span in spans), " ".join([style, *sorted(kinds)]).strip()


def view_row(pack: PackedRows, words: Vocabulary, documents: Documents, row: int, epoch: int = 0) -> RowView:
    """The row number ``row`` in the mask set of ``epoch``; :class:`InputError` if it is damaged."""
    rows = pack.whole_rows([row], epoch)
    end = int(rows.pieces[:, 2].max()) if len(rows.pieces) else 0
    tokens, arrays = rows.tokens[0], assemble(rows, pack.specials["eop"])
    pieces = [_piece(tokens, bounds, own, words) for bounds, own in _with_spans(rows)]
    origins, origin_of, offset_of = _origins(pack, documents, rows, row, end)
    counts = arrays.loss_mask[0, :end] > 0
    return RowView(
        row=row,
        rows=len(pack),
        epoch=epoch,
        length=len(tokens),
        used=sum(piece.end - piece.start for piece in pieces),
        targets=sum(blank.length for piece in pieces for blank in piece.blanks),
        pieces=pieces,
        origins=origins,
        tokens=tokens[:end].tolist(),
        names={id: words.model.piece(id) for id in np.unique(tokens[:end]).tolist()},
        positions=arrays.position_ids[0, :end].tolist(),
        wanted=np.where(counts, arrays.targets[0, :end], -1).tolist(),
        origin_of=origin_of.tolist(),
        offset_of=offset_of.tolist(),
    )


def _with_spans(rows: Rows) -> Iterator[tuple[list[int], list[list[int]]]]:
    """Bounds and kind of each piece of the one row, and its spans in part-B order."""
    spans = rows.row_spans(0).tolist()
    for bounds in rows.row_pieces(0).tolist():
        yield bounds, [span for span in spans if bounds[1] <= span[1] < bounds[2]]


def _piece(tokens: np.ndarray, bounds: Sequence[int], spans: list[list[int]], words: Vocabulary) -> Piece:
    start, sep, end, kind = bounds
    name = KINDS[kind]
    part_a: list[Stretch] = []
    place = start
    for mask in sorted(span[0] for span in spans):
        part_a += [*stretches_of(tokens, place, mask, words), Stretch(mask, 1, [f"[{BLANKS[name]}]"], name)]
        place = mask + 1
    part_a += stretches_of(tokens, place, sep, words)
    blanks = [_blank(tokens, span, start, name, words) for span in spans]
    return Piece(kind=name, start=start, sep=sep, end=end, part_a=part_a, blanks=blanks)


def _blank(tokens: np.ndarray, span: Sequence[int], start: int, kind: str, words: Vocabulary) -> Blank:
    mask, first, length = span
    position = (mask if kind in ("mask", "smask") else first) - start
    text = list(stretches_of(tokens, first + 1, first + length, words))
    return Blank(mask=mask, start=first, length=length, position=position, text=text)


def stretches_of(tokens: np.ndarray, first: int, last: int, words: Vocabulary) -> Iterator[Stretch]:
    """The places ``first`` to ``last - 1`` of ``tokens``; byte pieces of one character stand together."""
    place = first
    for style, looks in groupby(map(words.look, tokens[first:last].tolist()), _style_of):
        texts = [text for text, _ in looks]
        if style == BYTES:
            yield from _characters(tokens, place, place + len(texts), words)
        else:
            yield Stretch(place, 1, texts, style)
        place += len(texts)


def _characters(tokens: np.ndarray, first: int, last: int, words: Vocabulary) -> Iterator[Stretch]:
    """The characters that the byte pieces at ``first`` to ``last - 1`` spell; what is no character as U+FFFD."""
    held = codecs.getincrementaldecoder("utf-8")("replace")
    for place, id in enumerate(tokens[first:last].tolist(), 1 + first):
        text = held.decode(words.model.piece_bytes(id), final=place == last)
        if text:
            shown, style = _look(text, BYTES)
            yield Stretch(first, place - first, [shown], style)
            first = place


def _origins(
    pack: PackedRows, documents: Documents, rows: Rows, row: int, end: int
) -> tuple[list[Origin], np.ndarray, np.ndarray]:
    """The slices of a row, and for each place up to ``end`` its slice (-1: none) and its token in the document."""
    slices = slices_of(pack, row)
    named = documents.named(item.document for item in slices)
    origin_of, offset_of = np.full(end, -1), np.full(end, -1)
    for number, (bounds, spans) in enumerate(_with_spans(rows)):
        places = _text_places(bounds, spans)
        own = [(index, item) for index, item in enumerate(slices) if item.piece == number]
        whose = np.concatenate([np.full(len(item.ids), index) for index, item in own])
        where = np.concatenate([item.offset + np.arange(len(item.ids)) for _, item in own])
        origin_of[places], offset_of[places] = whose[: len(places)], where[: len(places)]
    told = [
        Origin(document=item.document, **_words(named[item.document]), offset=item.offset, tokens=len(item.ids))
        for item in slices
    ]
    return told, origin_of, offset_of


def _words(named: dict[str, Any]) -> dict[str, str]:
    return {name: named[name] or "" for name in ("id", "source", "lang", "template")}


def _text_places(bounds: Sequence[int], spans: list[list[int]]) -> np.ndarray:
    """``int64[n]``: the places of a piece that hold its text, in the order of the text."""
    parts, place = [], bounds[0]
    for mask, first, length in sorted(spans):
        parts += [np.arange(place, mask), np.arange(first + 1, first + length)]
        place = mask + 1
    return np.concatenate([*parts, np.arange(place, bounds[1])])
