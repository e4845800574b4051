"""Parquet files of documents (zstd), our own exchange format between stages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.files import atomic_path

COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1
"""Level 3 costs twice the time of level 1 for files that are a tenth to a fifth smaller (docs/lab-notes.md)."""
_ALL_DIFFERENT = ("id", "text")


class ParquetWriter:
    """Appends record batches to one parquet file; one row group a block, so that readers stay within a block's size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression=COMPRESSION,
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=[field.name for field in schema if not _is_different(field)],
            write_statistics=[field.name for field in schema if not pa.types.is_string(field.type)],
        )
        self._schema = schema
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append ``batch`` (of the writer's schema) as one row group; an empty batch writes nothing."""
        if batch.num_rows:
            self._writer.write_table(pa.Table.from_batches([batch], self._schema), row_group_size=batch.num_rows)
            self.rows += batch.num_rows

    def close(self) -> None:
        """Write the footer."""
        self._writer.close()


def _is_different(field: pa.Field) -> bool:
    """Whether a dictionary finds nothing in a column, but costs a hash of every value."""
    return field.name in _ALL_DIFFERENT or pa.types.is_floating(field.type)


@contextlib.contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[ParquetWriter]:
    """Write ``path`` atomically: it appears, whole, when the block ends without an error."""
    with atomic_path(path) as temporary:
        writer = ParquetWriter(temporary, schema)
        try:
            yield writer
        finally:
            writer.close()


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the row groups of a parquet file that we wrote, one record batch each, in order."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns, use_threads=False).combine_chunks().to_batches()
