"""Packed shards: Arrow IPC stream files, one batch each, that HF datasets, NumPy and our loader map without copying.

=========  ===============================  ====================================================================
column     type                             meaning
=========  ===============================  ====================================================================
tokens     fixed_size_list<uint16|int32>    the model's input; uint16 when the padded vocabulary allows
pieces     list<uint16>                     (start, sep, end, kind) a piece
spans      list<uint16>                     (mask, start, length) a span, in part-B order
tails      list<int32>                      the last target of each [gMASK] piece
origin     list<uint32>                     (document, offset, tokens) a slice; ``documents.parquet`` names them
keys       list<uint64>                     what the mask sets of each piece are drawn from
text_hash  uint64                           xxh3 of the row's source tokens as int32, masks undone
spans_1…   list<uint16>                     the spans of the mask set of epoch 1 and so on, where they were asked for
=========  ===============================  ====================================================================

The stream format (not the file format) is what ``datasets`` maps; with one batch a shard the token buffer is one block
at a recorded offset, so that three lines of NumPy read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data.files import atomic_path
from glm_data.packing.rows import Rows

TOKEN_TYPES = {"uint16": (np.uint16, pa.uint16()), "int32": (np.int32, pa.int32())}


def token_type(vocab_size: int) -> str:
    """``"uint16"`` when every id below ``vocab_size`` fits, else ``"int32"``."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def shard_name(index: int, count: int) -> str:
    """The file name of a shard, as HF datasets writes it."""
    return f"data-{index:05d}-of-{count:05d}.arrow"


def schema(seq_length: int, kind: str, epochs: int = 1) -> pa.Schema:
    """The Arrow schema of a shard of rows of ``seq_length`` tokens of type ``kind`` with ``epochs`` mask sets."""
    lists = {name: pa.list_(value) for name, value in _LISTS.items()}
    later = {later_spans(epoch): pa.list_(pa.uint16()) for epoch in range(1, epochs)}
    columns = {"tokens": pa.list_(TOKEN_TYPES[kind][1], seq_length), **lists, "text_hash": pa.uint64(), **later}
    return pa.schema([pa.field(name, type) for name, type in columns.items()])


_LISTS = {
    "pieces": pa.uint16(),
    "spans": pa.uint16(),
    "tails": pa.int32(),
    "origin": pa.uint32(),
    "keys": pa.uint64(),
}


def later_spans(epoch: int) -> str:
    """The column of the spans of ``epoch``, from 1."""
    return f"spans_{epoch}"


@dataclass(frozen=True)
class ShardRows:
    """Everything that a shard holds."""

    rows: Rows
    """In the mask set of epoch 0."""
    later: tuple[Rows, ...]
    """In those of epochs 1, 2, …; only their spans are stored."""
    origin_offsets: np.ndarray
    origins: np.ndarray
    """``int64[n, 3]`` slices (document, offset, tokens) with ``int64[R + 1]`` offsets."""
    keys: np.ndarray
    """``uint64[P]``."""
    text_hash: np.ndarray
    """``uint64[R]``."""


def to_batch(shard: ShardRows, kind: str) -> pa.RecordBatch:
    """One record batch of a shard; ``kind`` is the type of its tokens."""
    numpy_type, arrow_type = TOKEN_TYPES[kind]
    rows, seq_length = shard.rows, shard.rows.tokens.shape[1]
    flat = pa.array(rows.tokens.reshape(-1).astype(numpy_type, copy=False), arrow_type)
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, seq_length),
        _lists(rows.piece_offsets, rows.pieces, pa.uint16()),
        _lists(rows.span_offsets, rows.spans, pa.uint16()),
        _lists(rows.tail_offsets, rows.tails, pa.int32()),
        _lists(shard.origin_offsets, shard.origins, pa.uint32()),
        _lists(rows.piece_offsets, shard.keys, pa.uint64()),
        pa.array(shard.text_hash, pa.uint64()),
        *(_lists(later.span_offsets, later.spans, pa.uint16()) for later in shard.later),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(seq_length, kind, 1 + len(shard.later)))


def _lists(offsets: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.Array:
    width = values.shape[1] if values.ndim == 2 else 1
    flat = pa.array(values.reshape(-1).astype(str(kind)), kind)
    return pa.ListArray.from_arrays(pa.array((offsets * width).astype(np.int32)), flat)


def write_shard(path: Path, batch: pa.RecordBatch) -> None:
    """Write one batch as an Arrow IPC stream file, atomically."""
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)


def token_offset(path: Path) -> int:
    """The byte at which a shard's token buffer starts, for ``numpy.memmap``."""
    with pa.memory_map(str(path)) as source:
        base = source.read_buffer(1).address
        source.seek(0)
        batch = pa.ipc.open_stream(source).read_next_batch()
        return int(batch.column(0).values.buffers()[1].address - base)


def hf_features(seq_length: int, kind: str, epochs: int) -> dict[str, Any]:
    """The columns of the shards as ``datasets`` writes them down."""
    return {field.name: _feature(field.type) for field in schema(seq_length, kind, epochs)}


def _feature(type: pa.DataType) -> dict[str, Any]:
    """A column as ``datasets`` describes it."""
    if not (pa.types.is_list(type) or pa.types.is_fixed_size_list(type)):
        return {"dtype": str(type), "_type": "Value"}
    length = type.list_size if pa.types.is_fixed_size_list(type) else -1
    return {"feature": _feature(type.value_type), "length": length, "_type": "List"}
