"""What a reader yields: a block of documents, and the records it could not read."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from glm_data import documents

DEFAULT_MAX_RECORD_BYTES = 32 << 20
"""Longest record that is read into memory; the longest novels are about 5 MB."""

_EXCERPT_BYTES = 160


class Unreadable(msgspec.Struct, frozen=True):
    """A record that could not be read. ``reason`` is one of

    ``malformed_json``, ``invalid_utf8``, ``lone_surrogate``, ``wrong_type`` (not an object, or its text not a string),
    ``no_text`` (no such field), ``too_long``, ``too_deep``, ``truncated`` (the file ends too early), ``corrupt`` (its
    compression or container is damaged), ``empty`` (the file holds nothing).
    """

    record: int
    """Number in the file, from 0: the next readable one has a higher number."""
    offset: int
    """First byte of the record in the decompressed file; the row in parquet."""
    reason: str
    detail: str
    excerpt: str
    """The record's first bytes, with what is not UTF-8 replaced."""
    count: int = 1
    """Records that are lost here: more than one only for parquet, where the number of rows is known."""


class Block(NamedTuple):
    """Some documents of a file, and the unreadable records met on the way to them."""

    documents: pa.RecordBatch
    """Of :data:`glm_data.documents.SCHEMA`, and further columns if the file is parquet of ours that has more."""
    unreadable: tuple[Unreadable, ...]


class Record(NamedTuple):
    """The undecoded bytes of one record, and its place."""

    number: int
    offset: int
    data: bytes


class Document(NamedTuple):
    """One row of a block."""

    id: str
    text: str
    source: str
    lang: str
    meta: str


class BadRecordError(Exception):
    """A record cannot become a document; internal to the readers, which turn it into :class:`Unreadable`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def excerpt(data: bytes | bytearray) -> str:
    """The beginning of ``data`` as text, for people."""
    return bytes(data[:_EXCERPT_BYTES]).decode("utf-8", "replace").rstrip("\r")


class BlockBuilder:
    """Collects documents and unreadable records until they make a block."""

    def __init__(self) -> None:
        self._rows: list[Document] = []
        self._texts: list[bytes | memoryview] = []
        self._unreadable: list[Unreadable] = []
        self._bytes = 0

    def add(self, row: Document, text: bytes | memoryview) -> bool:
        """Add a document whose text is ``text`` in UTF-8, whatever ``row.text``; whether the block is full now."""
        self._rows.append(row)
        self._texts.append(text)
        self._bytes += len(text)
        return self._bytes >= documents.BLOCK_BYTES or len(self._rows) >= documents.BLOCK_ROWS

    def add_unreadable(self, item: Unreadable) -> bool:
        """Keep an unreadable record; whether the block is full now."""
        self._unreadable.append(item)
        return len(self._unreadable) >= documents.BLOCK_ROWS

    def __bool__(self) -> bool:
        return bool(self._rows or self._unreadable)

    def take(self) -> Block:
        """Make a block of what was collected and begin the next one."""
        ids, _, sources, langs, metas = zip(*self._rows, strict=True) if self._rows else ((),) * len(documents.SCHEMA)
        columns = [pa.array(column, pa.string()) for column in (ids, sources, langs, metas)]
        columns.insert(1, _text_column(self._texts))
        block = Block(pa.RecordBatch.from_arrays(columns, schema=documents.SCHEMA), tuple(self._unreadable))
        self._rows, self._texts, self._unreadable, self._bytes = [], [], [], 0
        return block


def _text_column(texts: list[bytes | memoryview]) -> pa.Array:
    offsets = np.zeros(len(texts) + 1, np.int32)
    np.cumsum([len(text) for text in texts], out=offsets[1:])
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))
