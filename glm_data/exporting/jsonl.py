"""JSON lines: one row a line, readable with eyes and by anything."""

from __future__ import annotations

from pathlib import Path

import msgspec

from glm_data.exporting.columns import batches, dense
from glm_data.files import atomic_path
from glm_data.loading.rows import PackedRows
from glm_data.packing.rows import KINDS


def write_jsonl(pack: PackedRows, first: int, last: int, path: Path) -> int:
    """Write the rows ``first`` to ``last - 1``; returns their targets.

    A line holds ``row``, ``pieces`` (``{"kind", "start", "sep", "end"}``) and the dense columns as lists.
    """
    row, targets, encoder = first, 0, msgspec.json.Encoder()
    with atomic_path(path) as temporary, temporary.open("wb") as out:
        for batch in batches(pack, first, last):
            columns = {name: values.tolist() for name, values in dense(batch).items()}
            targets += int(batch.loss_mask.sum())
            for at, pieces in enumerate(batch.pieces):
                named = [
                    {"kind": KINDS[kind], "start": start, "sep": sep, "end": end}
                    for start, sep, end, kind in pieces.tolist()
                ]
                line = {"row": row, "pieces": named, **{name: values[at] for name, values in columns.items()}}
                out.write(encoder.encode(line) + b"\n")
                row += 1
    return targets
