"""What a reader yields: a block of documents, and the records it could not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import documents
from glm_data.text.machine import LANES

DEFAULT_MAX_RECORD_BYTES = 32 << 20
"""Longest record that is read into memory; the longest novels are about 5 MB."""

_EXCERPT_BYTES = 160
_SLACK = bytes(LANES + 8)
"""Behind the texts of a block, so that kernels which look at so many bytes at once need no copy."""
_NO_COLUMNS = [pa.array([], pa.string())] * (len(documents.SCHEMA) - 1)


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


class Records(NamedTuple):
    """The undecoded bytes of some records in a row, in one buffer."""

    data: bytes
    bounds: npt.NDArray[np.int64]
    """``int64[records, 2]``: where each begins and ends in ``data``."""
    number: int
    """Number of the first one in the file."""
    offset: int
    """Where ``data`` begins in the decompressed file."""

    def each(self) -> Iterator[Record]:
        """Yield them one by one."""
        yield from map(self.at, range(len(self.bounds)))

    def at(self, place: int) -> Record:
        """The record at a place in :attr:`bounds`."""
        start, end = self.bounds[place].tolist()
        return Record(self.number + place, self.offset + start, self.data[start:end])


def cut_records(records: Records, limit: int) -> Iterator[Records | Unreadable]:
    """Yield ``records``, those of more than ``limit`` bytes as unreadable."""
    bounds, first = records.bounds, 0
    too_long = np.flatnonzero(bounds[:, 1] - bounds[:, 0] > limit).tolist()
    for place in (*too_long, len(bounds)):
        if place > first:
            yield records._replace(bounds=bounds[first:place], number=records.number + first)
        if place < len(bounds):
            start = int(bounds[place, 0])
            detail = f"the record is longer than {limit} bytes"
            beginning = excerpt(records.data[start : start + _EXCERPT_BYTES])
            yield Unreadable(records.number + place, records.offset + start, "too_long", detail, beginning)
        first = place + 1


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
        self._pieces: list[Sequence[pa.Array]] = []
        """Columns but for texts."""
        self._rows: list[Document] = []
        """Those behind the last piece."""
        self._texts: list[bytes | memoryview] = []
        self._sizes: list[npt.NDArray[np.int32]] = []
        self._unreadable: list[Unreadable] = []
        self._documents = self._bytes = 0

    @property
    def room(self) -> int:
        """How many rows the block may still take."""
        return documents.BLOCK_ROWS - self._documents

    def add_columns(self, columns: Sequence[pa.Array], texts: bytes | memoryview, sizes: npt.NDArray[np.int32]) -> bool:
        """As :meth:`add`, of documents whose other columns, in the order of the schema, are given as arrays."""
        self._close_rows()
        self._pieces.append(columns)
        return self._grow(texts, sizes, pc.sum(pc.binary_length(columns[-1])).as_py())

    def add(self, rows: Sequence[Document], texts: bytes | memoryview, sizes: npt.NDArray[np.int32]) -> bool:
        """Add documents whose texts are, one after the other, ``texts`` in UTF-8; whether the block is full now.

        ``sizes: int32[rows]`` are the bytes of each text; ``text`` of the rows is not looked at.
        """
        self._rows += rows
        return self._grow(texts, sizes, sum(len(row.meta.encode()) for row in rows))

    def add_one(self, item: Document | Unreadable) -> bool:
        """Add a document with its own text, or a record that is unreadable; whether the block is full now."""
        if isinstance(item, Unreadable):
            self._unreadable.append(item)
            return len(self._unreadable) >= documents.BLOCK_ROWS
        text = item.text.encode()
        return self.add([item], text, np.array([len(text)], np.int32))

    def __bool__(self) -> bool:
        return bool(self._documents or self._unreadable)

    def take(self) -> Block:
        """Make a block of what was collected and begin the next one."""
        self._close_rows()
        ids, *others = (pa.concat_arrays(parts) for parts in zip(_NO_COLUMNS, *self._pieces, strict=True))
        columns = [ids, _text_column(self._texts, self._sizes), *others]
        block = Block(pa.RecordBatch.from_arrays(columns, schema=documents.SCHEMA), tuple(self._unreadable))
        self._pieces, self._texts, self._sizes, self._unreadable = [], [], [], []
        self._documents = self._bytes = 0
        return block

    def _grow(self, texts: bytes | memoryview, sizes: npt.NDArray[np.int32], meta_bytes: int) -> bool:
        self._texts.append(texts)
        self._sizes.append(sizes)
        self._documents += len(sizes)
        self._bytes += len(texts) + meta_bytes
        return self._bytes >= documents.BLOCK_BYTES or self.room <= 0

    def _close_rows(self) -> None:
        if self._rows:
            ids, _, *others = (pa.array(column, pa.string()) for column in zip(*self._rows, strict=True))
            self._pieces.append([ids, *others])
            self._rows = []


def _text_column(texts: Sequence[bytes | memoryview], sizes: Sequence[npt.NDArray[np.int32]]) -> pa.Array:
    count = sum(map(len, sizes))
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(np.concatenate([*sizes, offsets[:0]]), out=offsets[1:])
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(b"".join([*texts, _SLACK])))
