"""Any document file, read as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glm_data.documents import document_id
from glm_data.errors import InputError, UsageError, did_you_mean
from glm_data.formats.blocks import (
    DEFAULT_MAX_RECORD_BYTES,
    BadRecordError,
    Block,
    BlockBuilder,
    Document,
    Record,
    Unreadable,
    excerpt,
)
from glm_data.formats.extract import extract_texts
from glm_data.formats.parquet_files import read_parquet
from glm_data.formats.records import decode_document
from glm_data.formats.sniff import FORMATS, sniff
from glm_data.formats.splitting import read_records
from glm_data.formats.text_files import read_text
from glm_data.stage import InputFile

Row = tuple[Document, bytes | memoryview] | Unreadable
"""A document with its text as UTF-8, or what could not be read."""
_BATCH_BYTES, _BATCH_RECORDS = 1 << 20, 4096
_MOST_SEEN = 4096


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
        texts = read_text(path, item.name, max_record_bytes)
        return _blocks(row if isinstance(row, Unreadable) else (row, row.text.encode()) for row in texts)
    return _blocks(_decode(read_records(path, format, max_record_bytes), item.name))


def _decode(records: Iterator[Record | Unreadable], name: str) -> Iterator[Row]:
    """Decode records, many at a time, so that their texts are taken out by one call."""
    decoder = _Decoder(name)
    held: list[Record | Unreadable] = []
    size = 0
    for record in records:
        held.append(record)
        size += len(record.data) if isinstance(record, Record) else 0
        if size >= _BATCH_BYTES or len(held) >= _BATCH_RECORDS:
            yield from decoder.decode(held)
            held, size = [], 0
    yield from decoder.decode(held)


class _Decoder:
    """Decodes the records of one file; what is left of a record without its text is often the same, and looked up."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[bytes, Document] = {}

    def decode(self, records: list[Record | Unreadable]) -> Iterator[Row]:
        sound = [record for record in records if isinstance(record, Record)]
        texts, spans = extract_texts([record.data for record in sound])
        place = iter(spans)
        for record in records:
            if isinstance(record, Unreadable):
                yield record
                continue
            start, end, first, last = next(place)
            data = record.data
            document = self._decode_rest(data[:start] + b'""' + data[end:], record.number) if start >= 0 else None
            if document is not None:
                yield document, texts[first:last]
            else:
                yield self._decode_whole(record)

    def _decode_rest(self, rest: bytes, number: int) -> Document | None:
        """The document but for its text, or None if anything is wrong, which is told better of the whole record."""
        seen = self._seen.get(rest)
        if seen is not None:
            return Document(document_id(self._name, number), "", seen.source, seen.lang, seen.meta)
        try:
            document = decode_document(rest, self._name, number)
        except BadRecordError:
            return None
        if len(self._seen) < _MOST_SEEN and document.id == document_id(self._name, number):
            self._seen[rest] = document
        return document

    def _decode_whole(self, record: Record) -> Row:
        try:
            document = decode_document(record.data, self._name, record.number)
        except BadRecordError as error:
            return Unreadable(record.number, record.offset, error.reason, error.detail, excerpt(record.data))
        return document, document.text.encode()


def _blocks(rows: Iterator[Row]) -> Iterator[Block]:
    builder = BlockBuilder()
    for row in rows:
        if builder.add_unreadable(row) if isinstance(row, Unreadable) else builder.add(*row):
            yield builder.take()
    if builder:
        yield builder.take()
