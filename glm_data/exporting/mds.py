"""MDS, the shards of mosaicml-streaming (version 2 of the format): samples with an offset table, and ``index.json``.

A shard, all little-endian::

    uint32            n, the number of samples
    uint32[n + 1]     byte at which each sample begins, and the end of the last one
    JSON              the columns, as in index.json; readers pass over it
    n samples         the sizes (uint32) of its columns of varying size, then all columns' values

Columns stand in the order of their names. ``ndarray:int32:2048`` has fixed type and length and is the values alone;
``ndarray:int32`` of varying shape begins with a byte, ``dimensions << 2 | code of the shape's type``, and the shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glm_data.exporting.columns import DENSE, batches, dense
from glm_data.files import atomic_path, write_bytes
from glm_data.loading.batch import Batch
from glm_data.loading.rows import PackedRows
from glm_data.manifest import OutputFile

SHARD_BYTES = 1 << 26
"""The library's own default size of a shard."""
HASH = "xxh3_128"
INDEX = "index.json"
_TYPES = {"input_ids": "int32", "targets": "int32", "position_ids": "int32", "loss_mask": "uint8", "segments": "uint16"}
_COLUMNS = sorted([*DENSE, "pieces"])


def encodings(seq_length: int) -> dict[str, str]:
    """The encoding of each column, by name."""
    fixed = {name: f"ndarray:{kind}:{seq_length}" for name, kind in _TYPES.items()}
    return {name: fixed.get(name, "ndarray:int32") for name in _COLUMNS}


def rows_per_shard(seq_length: int) -> int:
    """Rows whose dense columns fill a shard of :data:`SHARD_BYTES`."""
    return max(1, SHARD_BYTES // (seq_length * sum(np.dtype(kind).itemsize for kind in _TYPES.values())))


def describe(seq_length: int) -> dict[str, Any]:
    """What a shard and its line in ``index.json`` say about the columns."""
    kinds = encodings(seq_length)
    sizes = [np.dtype(_TYPES[name]).itemsize * seq_length if name in _TYPES else None for name in _COLUMNS]
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": [HASH],
        "size_limit": None,
        "column_names": _COLUMNS,
        "column_encodings": [kinds[name] for name in _COLUMNS],
        "column_sizes": sizes,
    }


def write_shard(pack: PackedRows, first: int, last: int, path: Path) -> int:
    """Write the rows ``first`` to ``last - 1``; returns their targets."""
    samples, targets = [], 0
    for batch in batches(pack, first, last):
        samples += _samples(batch)
        targets += int(batch.loss_mask.sum())
    head = msgspec.json.encode(describe(pack.seq_length), order="sorted")
    ends = np.cumsum([4 + 4 * (len(samples) + 1) + len(head), *map(len, samples)])
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        out.write(np.array([len(samples), *ends], "<u4").tobytes() + head)
        out.writelines(samples)
    return targets


def _samples(batch: Batch) -> list[bytes]:
    columns = {name: values.astype(_TYPES[name], copy=False) for name, values in dense(batch).items()}
    samples = []
    for at, pieces in enumerate(batch.pieces):
        shape = np.array(pieces.shape, np.uint16)
        table = bytes([pieces.ndim << 2 | 1]) + shape.tobytes() + np.ascontiguousarray(pieces, np.int32).tobytes()
        values = (table if name == "pieces" else columns[name][at].tobytes() for name in _COLUMNS)
        samples.append(np.uint32(len(table)).tobytes() + b"".join(values))
    return samples


def write_index(folder: Path, shards: Sequence[OutputFile], seq_length: int) -> None:
    """Write ``index.json`` over finished shards, with the hashes that the library can check."""
    listed = [
        {
            **describe(seq_length),
            "samples": item.rows,
            "raw_data": {"basename": item.name, "bytes": item.bytes, "hashes": {HASH: item.digest}},
            "zip_data": None,
        }
        for item in shards
    ]
    encoded = msgspec.json.encode({"version": 2, "shards": listed}, order="sorted")
    write_bytes(folder / INDEX, msgspec.json.format(encoded, indent=1) + b"\n")
