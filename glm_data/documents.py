"""The document: what every corpus stage reads and writes.

A document is one row of a block; a block is a ``pyarrow.RecordBatch`` of a few thousand documents (1-4 MB of text).

========  ===========  ==========================================================================
column    type         meaning
========  ===========  ==========================================================================
id        string       ``"<input name>#<record number>"``, such as ``"pile/00.jsonl.zst#123"``
text      string       the text, byte-identical to the input until a cleaning step changes it
source    string       where it is from: a Pile component, ``WuDao/<dataType>``, or the file's name
lang      string       ``zh-Hans``, ``zh-Hant``, ``en``, ``ja``, ``ko``, ``mixed``, ``other``; empty before filtering
meta      string       a JSON object with whatever else the record held
========  ===========  ==========================================================================

Stages may append columns (de-duplication adds ``duplicates``); readers keep unknown columns of our own parquet files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)

BLOCK_BYTES = 2 << 20
"""Bytes of ``text`` and ``meta`` after which a reader closes a block."""

BLOCK_ROWS = 4096
"""Documents after which a reader closes a block."""


def document_id(input_name: str, record: int) -> str:
    """Return the id of record number ``record`` (from 0) of the input named ``input_name``."""
    return f"{input_name}#{record}"


def document_ids(input_name: str, first: int, count: int) -> pa.Array:
    """The ids of ``count`` records in a row, from number ``first`` on: a string array."""
    numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(input_name), numbers, "#")


def make_block(
    ids: Sequence[str], texts: Sequence[str], sources: Sequence[str], langs: Sequence[str], metas: Sequence[str]
) -> pa.RecordBatch:
    """Build a block of :data:`SCHEMA` from equally long columns."""
    columns = [pa.array(column, pa.string()) for column in (ids, texts, sources, langs, metas)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
