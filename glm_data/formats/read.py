"""Any document file, read as blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from glm_data.documents import document_id, document_ids
from glm_data.errors import InputError, UsageError, did_you_mean
from glm_data.formats.blocks import (
    DEFAULT_MAX_RECORD_BYTES,
    BadRecordError,
    Block,
    BlockBuilder,
    Document,
    Record,
    Records,
    Unreadable,
    excerpt,
)
from glm_data.formats.extract import CONTENT, NOT_FLAT, Extracted, extract_texts
from glm_data.formats.parquet_files import read_parquet
from glm_data.formats.records import decode_document, decode_json, name_source, to_document
from glm_data.formats.sniff import FORMATS, sniff
from glm_data.formats.splitting import read_records
from glm_data.formats.text_files import read_text
from glm_data.stage import InputFile

_MOST_SEEN, _LONGEST_SEEN = 4096, 1 << 10
"""Rests that are remembered, and bytes of one that may well come again."""
_FLAT, _DESCRIBED, _WHOLE = 0, 1, 2
"""How a document is made: in columns, or from what is left of the record, or from all of it."""
_decoder = msgspec.json.Decoder(list[dict[str, Any]])


def read_blocks(
    item: InputFile, format: str = "auto", *, max_record_bytes: int = DEFAULT_MAX_RECORD_BYTES
) -> Iterator[Block]:
    """Yield the documents of a file in blocks of about 2 MB, with the records that could not be read.

    ``format`` is one of :data:`FORMATS` or ``auto``. Every record of the file is in exactly one block, as a document or
    as unreadable; a file that ends too early adds one unreadable record. Memory is bounded by ``max_record_bytes``, not
    by the file. Raises :class:`UsageError` for an unknown format and :class:`InputError` if the file cannot be opened.
    """
    if format not in ("auto", *FORMATS):
        cure = did_you_mean(format, FORMATS) or f" Formats: auto, {', '.join(FORMATS)}."
        raise UsageError(f"unknown format '{format}'.{cure}")
    try:
        yield from _read(item, sniff(Path(item.path)) if format == "auto" else format, max_record_bytes)
    except OSError as error:
        raise InputError(f"'{item.path}' cannot be read ({error.strerror or error}); check the file.") from None


def _read(item: InputFile, format: str, max_record_bytes: int) -> Iterator[Block]:
    path = Path(item.path)
    if format == "parquet":
        return read_parquet(path, item.name, max_record_bytes)
    if format == "text":
        return _blocks(read_text(path, item.name, max_record_bytes), _Decoder(item.name))
    return _blocks(read_records(path, format, max_record_bytes), _Decoder(item.name))


def _blocks(items: Iterator[Records | Document | Unreadable], decoder: _Decoder) -> Iterator[Block]:
    builder = BlockBuilder()
    for item in items:
        if not isinstance(item, Records):
            if builder.add_one(item):
                yield builder.take()
            continue
        first = 0
        while first < len(item.bounds):
            part = item.bounds[first : first + builder.room]
            if decoder.decode(item._replace(bounds=part, number=item.number + first), builder):
                yield builder.take()
            first += len(part)
    if builder:
        yield builder.take()


class _Decoder:
    """Decodes the records of one file; what is left of a record without its text is often the same, and looked up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[bytes, Document] = {}

    def decode(self, records: Records, builder: BlockBuilder) -> bool:
        """Add ``records`` to the block, many at a time; whether it is full now."""
        found = extract_texts(records)
        sizes, is_full = np.diff(found.texts.bounds).astype(np.int32), False
        columns = self._columns(found, records.number)
        rows = self._describe(found, records.number)
        kinds = np.where(found.fields != NOT_FLAT, _FLAT, _WHOLE)
        kinds[[place for place, row in rows.items() if row is not None]] = _DESCRIBED
        for first, end in itertools.pairwise([0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), kinds.size]):
            texts = found.texts.data[found.texts.bounds[first] : found.texts.bounds[end]].data
            if kinds[first] == _FLAT:
                is_full |= builder.add_columns([c[first:end] for c in columns], texts, sizes[first:end])
            elif kinds[first] == _DESCRIBED:
                described = [cast(Document, rows[place]) for place in range(first, end)]
                is_full |= builder.add(described, texts, sizes[first:end])
            else:
                for place in range(first, end):
                    is_full |= builder.add_one(self._decode_whole(records.at(place)))
        return is_full

    def _columns(self, found: Extracted, number: int) -> list[pa.Array]:
        """The columns but for texts of the documents that are flat; no object is made for any of them."""
        count, said = found.fields.size, found.sources.strings().dictionary_encode()
        values = said.dictionary.to_pylist()
        names = [name_source(value, self._name, is_wudao) for is_wudao in (False, True) for value in values]
        places = said.indices.to_numpy() + np.where(found.fields == CONTENT, len(values), 0)
        sources = pa.array(names, pa.string()).take(pa.array(places))
        ids, langs = document_ids(self._name, number, count), pa.repeat("", count)
        return [ids, sources, langs, found.metas.strings()]

    def _describe(self, found: Extracted, number: int) -> dict[int, Document | None]:
        """By place, the documents that are not flat, but for their texts; None where anything is wrong, which is told
        better of the whole record."""
        rows: dict[int, Document | None] = {}
        left: dict[int, bytes] = {}
        for place in np.flatnonzero(found.fields == NOT_FLAT).tolist():
            rest, rows[place] = found.rests.at(place), None
            if (seen := self._seen.get(rest)) is not None:
                rows[place] = Document(document_id(self._name, number + place), "", *seen[2:])
            elif rest:
                left[place] = rest
        for (place, rest), record in zip(left.items(), _decode_together(list(left.values())), strict=True):
            row = None if record is None else self._row(record, number + place)
            has_room = len(rest) <= _LONGEST_SEEN and len(self._seen) < _MOST_SEEN
            if row is not None and has_room and row.id == document_id(self._name, number + place):
                self._seen[rest] = row
            rows[place] = row
        return rows

    def _row(self, record: dict[str, Any], number: int) -> Document | None:
        try:
            return to_document(record, self._name, number)
        except BadRecordError:
            return None

    def _decode_whole(self, record: Record) -> Document | Unreadable:
        try:
            return decode_document(record.data, self._name, record.number)
        except BadRecordError as error:
            return Unreadable(record.number, record.offset, error.reason, error.detail, excerpt(record.data))


def _decode_together(records: Sequence[bytes]) -> Sequence[dict[str, Any] | None]:
    """JSON objects decoded by one call, unless one of them is unsound; None for those that are.

    The scan that took the texts out has matched brackets and quotes, so that none of them can reach into the next.
    """
    try:
        decoded: list[dict[str, Any]] = _decoder.decode(b"[%b]" % b",".join(records))
        return decoded
    except (msgspec.DecodeError, ValueError, RecursionError):
        return [_decode_alone(record) for record in records]


def _decode_alone(record: bytes) -> dict[str, Any] | None:
    try:
        decoded = decode_json(record)
    except BadRecordError:
        return None
    return decoded if type(decoded) is dict else None
