"""Dense columns as Arrow IPC stream files: a folder that ``datasets.load_from_disk`` maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data.exporting.columns import DENSE, batches, dense
from glm_data.files import atomic_path
from glm_data.formats import hf_folder
from glm_data.loading.batch import Batch
from glm_data.loading.rows import PackedRows


def schema(seq_length: int) -> pa.Schema:
    """Arrow types of the dense columns of rows of ``seq_length`` tokens."""
    return pa.schema([pa.field(name, pa.list_(pa.from_numpy_dtype(_TYPES[name]), seq_length)) for name in DENSE])


_TYPES = {
    "input_ids": np.int32,
    "targets": np.int32,
    "position_ids": np.int32,
    "loss_mask": np.uint8,
    "segments": np.uint16,
}


def write_arrow(pack: PackedRows, first: int, last: int, path: Path) -> int:
    """Write the rows ``first`` to ``last - 1``; returns their targets."""
    targets, kind = 0, schema(pack.seq_length)
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, kind) as writer,
    ):
        for batch in batches(pack, first, last):
            writer.write_batch(_to_arrow(batch, kind))
            targets += int(batch.loss_mask.sum())
    return targets


def _to_arrow(batch: Batch, kind: pa.Schema) -> pa.RecordBatch:
    length = batch.tokens.shape[1]
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1).astype(_TYPES[name], copy=False)), length)
        for name, values in dense(batch).items()
    ]
    return pa.RecordBatch.from_arrays(columns, schema=kind)


def write_sidecars(folder: Path, names: list[str], seq_length: int) -> list[str]:
    """Write the two files by which ``datasets`` knows the folder; returns their names."""
    features: dict[str, Any] = {
        name: {
            "feature": {"dtype": np.dtype(_TYPES[name]).name, "_type": "Value"},
            "length": seq_length,
            "_type": "List",
        }
        for name in DENSE
    }
    return hf_folder.write_sidecars(folder, names, features)
