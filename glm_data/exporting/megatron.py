"""Megatron-LM's indexed data set: a ``.bin`` of values and an ``.idx`` that says where sequences and documents are.

The index, all little-endian::

    9 bytes   b"MMIDIDX\\0\\0"
    uint64    version: 1
    uint8     type of a value: 1 uint8, 4 int32, 8 uint16
    uint64    S, the number of sequences
    uint64    D + 1: the number of documents, and one
    int32[S]  values of each sequence
    int64[S]  byte in the .bin at which it begins
    int64[D + 1]  sequences before each document, and in all

Here a row is a sequence and a document. Every dense column is a data set of its own, so that a GLM collator reads
row ``i`` of each; ``input_ids`` alone is what a plain language model reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glm_data.exporting.columns import batches, dense
from glm_data.files import atomic_path, write_bytes
from glm_data.loading.rows import PackedRows

MAGIC, VERSION = b"MMIDIDX\x00\x00", 1
TYPE_CODES = {"uint8": 1, "int32": 4, "uint16": 8}


def column_type(name: str, token_type: str) -> str:
    """The type of a column's values: tokens and targets as in the pack, places and segments as narrow as they fit."""
    return {"loss_mask": "uint8", "position_ids": "uint16", "segments": "uint16"}.get(name, token_type)


def write_column(pack: PackedRows, name: str, folder: Path) -> tuple[list[str], int]:
    """Write the column ``name`` of all rows as ``<name>.bin`` and ``<name>.idx``.

    Returns their names and how many targets the rows have.
    """
    kind, targets = column_type(name, pack.manifest.facts["token_type"]), 0
    with atomic_path(folder / f"{name}.bin") as temporary, temporary.open("wb") as out:
        for batch in batches(pack, 0, len(pack)):
            out.write(dense(batch)[name].astype(f"<{np.dtype(kind).str[1:]}").tobytes())
            targets += int(batch.loss_mask.sum())
    write_bytes(folder / f"{name}.idx", index(len(pack), pack.seq_length, kind))
    return [f"{name}.bin", f"{name}.idx"], targets


def index(rows: int, seq_length: int, kind: str) -> bytes:
    """The bytes of an ``.idx`` for ``rows`` documents of one sequence of ``seq_length`` values of type ``kind``."""
    starts = np.arange(rows, dtype="<i8") * (seq_length * np.dtype(kind).itemsize)
    head = (
        np.array([VERSION], "<u8").tobytes() + bytes([TYPE_CODES[kind]]) + np.array([rows, rows + 1], "<u8").tobytes()
    )
    lengths, documents = np.full(rows, seq_length, "<i4"), np.arange(rows + 1, dtype="<i8")
    return b"".join([MAGIC, head, lengths.tobytes(), starts.tobytes(), documents.tobytes()])
