"""Any document file, read as blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from glm_data.errors import InputError, UsageError, did_you_mean
from glm_data.formats.arrays import ArraySplitter
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
from glm_data.formats.lines import LineSplitter
from glm_data.formats.parquet_files import read_parquet
from glm_data.formats.records import decode_document
from glm_data.formats.sniff import FORMATS, sniff
from glm_data.formats.streams import BrokenStreamError, read_chunks
from glm_data.formats.text_files import read_text
from glm_data.stage import InputFile


class Splitter(Protocol):
    """Cuts a stream into records; what comes from the stream's end may be missing something."""

    def feed(self, chunk: bytes) -> Iterator[Record | Unreadable]:
        """Yield the records that ``chunk`` completes."""

    def finish(self, broken: BrokenStreamError | None) -> Iterator[Record | Unreadable]:
        """Yield what the end of the stream leaves."""


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
        return _blocks(read_text(path, item.name, max_record_bytes))
    splitter: Splitter = ArraySplitter(max_record_bytes) if format == "wudao" else LineSplitter(max_record_bytes)
    return _blocks(_decode(_split(path, splitter), item.name))


def _split(path: Path, splitter: Splitter) -> Iterator[Record | Unreadable]:
    broken = None
    try:
        for chunk in read_chunks(path):
            yield from splitter.feed(chunk)
    except BrokenStreamError as error:
        broken = error
    yield from splitter.finish(broken)


def _decode(records: Iterator[Record | Unreadable], name: str) -> Iterator[Document | Unreadable]:
    for record in records:
        if isinstance(record, Unreadable):
            yield record
            continue
        try:
            yield decode_document(record.data, name, record.number)
        except BadRecordError as error:
            place = (record.number, record.offset)
            yield Unreadable(*place, error.reason, error.detail, excerpt(record.data))


def _blocks(rows: Iterator[Document | Unreadable]) -> Iterator[Block]:
    builder = BlockBuilder()
    for row in rows:
        if builder.add_unreadable(row) if isinstance(row, Unreadable) else builder.add(row, _bytes_of(row.text)):
            yield builder.take()
    if builder:
        yield builder.take()


def _bytes_of(text: str) -> int:
    """About the size of ``text`` in UTF-8, without encoding it."""
    return len(text) if text.isascii() else 3 * len(text)
