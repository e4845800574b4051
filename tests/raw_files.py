"""Raw input files for tests of the formats and of the filter."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import zstandard

from glm_data.formats import Block, Unreadable, read_blocks
from glm_data.formats.blocks import Record, Records
from glm_data.stage import InputFile


def write(path: Path, data: bytes) -> InputFile:
    """Write a file, compressed as its name says, and describe it as an input."""
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    path.write_bytes(data)
    return as_input(path)


def as_input(path: Path) -> InputFile:
    return InputFile(name=path.name, path=str(path), bytes=path.stat().st_size, digest="")


def jsonl(records: Iterable[object]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)


def records(lines: list[bytes]) -> Records:
    """Records that lie one after the other."""
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    return Records(b"".join(lines), np.stack([ends - [len(line) for line in lines], ends], 1), 0, 0)


def each(found: Iterable[Records | Unreadable]) -> Iterator[Record | Unreadable]:
    """What a splitter found, one by one."""
    for item in found:
        yield from [item] if isinstance(item, Unreadable) else item.each()


def read(item: InputFile, format: str = "auto", **limits: int) -> tuple[list[dict[str, str]], list[Unreadable]]:
    """All documents and all unreadable records of a file."""
    blocks: list[Block] = list(read_blocks(item, format, **limits))
    documents = [row for block in blocks for row in block.documents.to_pylist()]
    return documents, [item for block in blocks for item in block.unreadable]


def texts(item: InputFile, format: str = "auto", **limits: int) -> list[str]:
    return [row["text"] for row in read(item, format, **limits)[0]]


def reasons(item: InputFile, format: str = "auto", **limits: int) -> list[str]:
    return [unreadable.reason for unreadable in read(item, format, **limits)[1]]
