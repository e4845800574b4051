"""Writer of documents as zstd-compressed JSON lines, which our own readers give back unchanged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import zstandard

from glm_data.files import atomic_path

COMPRESSION_LEVEL = 3


class JsonlWriter:
    """Appends record batches to one ``.jsonl.zst`` file, a line a row; ``meta`` is written as the object it holds."""

    def __init__(self, file: BinaryIO) -> None:
        compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL, write_checksum=True)
        self._stream = compressor.stream_writer(file, closefd=False)
        self._encoder = msgspec.json.Encoder()
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append the rows of ``batch``."""
        lines = bytearray()
        for row in batch.to_pylist():
            self._encoder.encode_into(_with_meta(row), lines, len(lines))
            lines += b"\n"
        self._stream.write(lines)
        self.rows += batch.num_rows

    def close(self) -> None:
        """End the frame."""
        self._stream.flush(zstandard.FLUSH_FRAME)


def _with_meta(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "meta": msgspec.Raw(row["meta"].encode())} if "meta" in row else row


@contextlib.contextmanager
def jsonl_writer(path: Path) -> Iterator[JsonlWriter]:
    """Write ``path`` atomically: it appears, whole, when the block ends without an error."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = JsonlWriter(file)
        try:
            yield writer
        finally:
            writer.close()
