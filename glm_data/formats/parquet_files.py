"""Parquet files of any origin that have a column of text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data import documents
from glm_data.formats.blocks import BadRecordError, Block, BlockBuilder, Unreadable
from glm_data.formats.records import TEXT_FIELDS, to_document

_EMPTY = ((),) * len(documents.SCHEMA)


def read_parquet(path: Path, name: str, max_record_bytes: int) -> Iterator[Block]:
    """Yield blocks of a parquet file.

    Our own files (those with all columns of :data:`documents.SCHEMA`) keep every column as it is; rows of others are
    taken like JSON records: ``text`` or ``content`` is the text, what names no source goes to ``meta``.
    """
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        yield _lost(0, "corrupt", f"the parquet file cannot be opened: {_one_line(error)}", 1)
        return
    with file:
        columns = file.schema_arrow.names
        if file.metadata.num_rows == 0 and _is_own(file.schema_arrow):
            return  # a stage kept nothing of this shard: nothing is missing
        if file.metadata.num_rows == 0:
            yield _lost(0, "empty", "the file holds no row", 1)
        elif not set(TEXT_FIELDS) & set(columns):
            detail = f"no column {', '.join(TEXT_FIELDS)}; its columns: {', '.join(columns)}"
            yield _lost(0, "no_text", detail, file.metadata.num_rows)
        else:
            yield from _read_rows(file, name, max_record_bytes)


def _read_rows(file: pq.ParquetFile, name: str, max_record_bytes: int) -> Iterator[Block]:
    own = _is_own(file.schema_arrow)
    first = 0
    try:
        for batch in file.iter_batches(batch_size=_batch_rows(file.metadata), use_threads=False):
            if own:
                yield _own_block(batch, first, max_record_bytes)
            else:
                yield _foreign_block(batch, first, name, max_record_bytes)
            first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        detail = f"the parquet file is damaged from row {first} on: {_one_line(error)}"
        yield _lost(first, "corrupt", detail, file.metadata.num_rows - first)


def _batch_rows(metadata: Any) -> int:
    """Rows that make about a block of text."""
    size = sum(int(metadata.row_group(group).total_byte_size) for group in range(metadata.num_row_groups))
    return max(1, min(documents.BLOCK_ROWS, documents.BLOCK_BYTES * int(metadata.num_rows) // max(1, size)))


def _is_own(schema: pa.Schema) -> bool:
    return all(field.name in schema.names and schema.field(field.name).type == field.type for field in documents.SCHEMA)


def _own_block(batch: pa.RecordBatch, first: int, max_record_bytes: int) -> Block:
    others = [name for name in batch.schema.names if name not in documents.SCHEMA.names]
    batch = batch.select(documents.SCHEMA.names + others)
    schema = pa.schema([*documents.SCHEMA, *(batch.schema.field(name) for name in others)])
    faults = [_fault(batch, row, max_record_bytes) for row in _suspects(batch, max_record_bytes)]
    found = {row: fault for row, fault in faults if fault is not None}
    unreadable = [Unreadable(first + row, first + row, *fault, "") for row, fault in found.items()]
    keep = np.ones(batch.num_rows, bool)
    keep[list(found)] = False
    rows = batch.filter(pa.array(keep)) if found else batch
    return Block(pa.RecordBatch.from_arrays(rows.columns, schema=schema), tuple(unreadable))


def _suspects(batch: pa.RecordBatch, max_record_bytes: int) -> list[int]:
    """Rows that may be faulty: all of them if anything about the batch is."""
    columns = [batch.column(name) for name in documents.SCHEMA.names]
    try:
        for column in columns:
            column.validate(full=True)
    except pa.ArrowInvalid:
        return list(range(batch.num_rows))
    sizes = pc.fill_null(pc.binary_length(batch.column("text")), 0).to_numpy()
    nulls = np.any([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=0)
    return [int(row) for row in np.flatnonzero((sizes > max_record_bytes) | nulls)]


def _fault(batch: pa.RecordBatch, row: int, max_record_bytes: int) -> tuple[int, tuple[str, str] | None]:
    for name in documents.SCHEMA.names:
        data = batch.column(name)[row].as_buffer()
        if data is None:
            return row, ("wrong_type", f"'{name}' is null, not a string")
        if data.size > max_record_bytes:
            return row, ("too_long", f"the record is longer than {max_record_bytes} bytes")
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            return row, ("invalid_utf8", f"invalid UTF-8 in '{name}': {error.reason}")
    return row, None


def _foreign_block(batch: pa.RecordBatch, first: int, name: str, max_record_bytes: int) -> Block:
    builder = BlockBuilder()
    for row in range(batch.num_rows):
        number = first + row
        try:
            record = {field: batch.column(field)[row].as_py() for field in batch.schema.names}
            document = to_document(record, name, number)
            if len(document.text.encode()) > max_record_bytes:
                raise BadRecordError("too_long", f"the record is longer than {max_record_bytes} bytes")
            builder.add_one(document)
        except UnicodeDecodeError as error:
            builder.add_one(Unreadable(number, number, "invalid_utf8", f"invalid UTF-8: {error.reason}", ""))
        except BadRecordError as error:
            builder.add_one(Unreadable(number, number, error.reason, error.detail, ""))
    return builder.take()


def _lost(first: int, reason: str, detail: str, count: int) -> Block:
    return Block(documents.make_block(*_EMPTY), (Unreadable(first, first, reason, detail, "", max(1, count)),))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
