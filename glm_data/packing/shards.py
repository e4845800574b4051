"""Packed shards: Arrow IPC stream files, one batch each, that HF datasets, NumPy and our loader map without copying.

======  ===============================  =======================================================================
column  type                             meaning
======  ===============================  =======================================================================
tokens  fixed_size_list<uint16|int32>    the model's input; uint16 when the padded vocabulary allows
pieces  list<uint16>                     (start, sep, end, kind) a piece
spans   list<uint16>                     (mask, start, length) a span, in part-B order
tails   list<int32>                      the last target of each [gMASK] piece
origin  list<uint32>                     (document, offset, tokens) a slice; ``documents.parquet`` names them
======  ===============================  =======================================================================

The stream format (not the file format) is what ``datasets`` maps; with one batch a shard the token buffer is one block
at a recorded offset, so that three lines of NumPy read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data.files import atomic_path, digest_value, write_json
from glm_data.packing.rows import Rows

TOKEN_TYPES = {"uint16": (np.uint16, pa.uint16()), "int32": (np.int32, pa.int32())}


def token_type(vocab_size: int) -> str:
    """``"uint16"`` when every id below ``vocab_size`` fits, else ``"int32"``."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def shard_name(index: int, count: int) -> str:
    """The file name of a shard, as HF datasets writes it."""
    return f"data-{index:05d}-of-{count:05d}.arrow"


def schema(seq_length: int, kind: str) -> pa.Schema:
    """The Arrow schema of a shard of rows of ``seq_length`` tokens of type ``kind``."""
    return pa.schema(
        [
            pa.field("tokens", pa.list_(TOKEN_TYPES[kind][1], seq_length)),
            pa.field("pieces", pa.list_(pa.uint16())),
            pa.field("spans", pa.list_(pa.uint16())),
            pa.field("tails", pa.list_(pa.int32())),
            pa.field("origin", pa.list_(pa.uint32())),
        ]
    )


def to_batch(rows: Rows, origin_offsets: np.ndarray, origins: np.ndarray, kind: str) -> pa.RecordBatch:
    """One record batch of ``rows``; ``origins`` is ``int64[n, 3]`` with ``origin_offsets`` of ``int64[R + 1]``."""
    numpy_type, arrow_type = TOKEN_TYPES[kind]
    seq_length = rows.tokens.shape[1]
    flat = pa.array(rows.tokens.reshape(-1).astype(numpy_type, copy=False), arrow_type)
    columns = [
        pa.FixedSizeListArray.from_arrays(flat, seq_length),
        _lists(rows.piece_offsets, rows.pieces, pa.uint16()),
        _lists(rows.span_offsets, rows.spans, pa.uint16()),
        _lists(rows.tail_offsets, rows.tails, pa.int32()),
        _lists(origin_offsets, origins, pa.uint32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema(seq_length, kind))


def _lists(offsets: np.ndarray, values: np.ndarray, kind: pa.DataType) -> pa.Array:
    width = values.shape[1] if values.ndim == 2 else 1
    flat = pa.array(values.reshape(-1).astype(kind.to_pandas_dtype()), kind)
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


def write_hf_sidecars(folder: Path, names: list[str], seq_length: int, kind: str) -> list[str]:
    """Write ``state.json`` and ``dataset_info.json`` so that ``datasets.load_from_disk(folder)`` maps the shards."""

    def listing(value: str, length: int = -1) -> dict[str, Any]:
        return {"feature": {"dtype": value, "_type": "Value"}, "length": length, "_type": "List"}

    features = {
        "tokens": listing(kind, seq_length),
        "pieces": listing("uint16"),
        "spans": listing("uint16"),
        "tails": listing("int32"),
        "origin": listing("uint32"),
    }
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": digest_value([names, features])[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(folder / "state.json", state)
    write_json(folder / "dataset_info.json", {"citation": "", "description": "", "features": features})
    return ["state.json", "dataset_info.json"]
