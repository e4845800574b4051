"""Single records found by their id in the files of stages: what cannot hold an id is not read."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.formats import read_blocks
from glm_data.manifest import InputFile


def find_row(paths: Sequence[Path], id: str, column: str = "id") -> dict[str, Any] | None:
    """The row in which ``column`` is ``id``, of the first of some files (parquet or our JSON lines) that has it."""
    return next(find_rows(paths, id, column), None)


def find_rows(paths: Sequence[Path], id: str, column: str = "id") -> Iterator[dict[str, Any]]:
    """All rows in which ``column`` is ``id``, with ``_file`` and ``_row``, their place."""
    for path in paths:
        blocks = _parquet_blocks(path, [id], column) if path.suffix == ".parquet" else _other_blocks(path)
        for first, block in blocks:
            for row in pc.indices_nonzero(pc.equal(block.column(column), id)).to_pylist():
                yield {**block.slice(row, 1).to_pylist()[0], "_file": path.name, "_row": first + row}


def _parquet_blocks(path: Path, ids: Sequence[str], column: str) -> Iterator[tuple[int, pa.Table]]:
    """Row groups in which one of ``ids`` (ascending) can stand by the statistics of ``column``, and their first row."""
    try:
        with pq.ParquetFile(path) as file:
            place, first = file.schema_arrow.get_field_index(column), 0
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                statistics = group.column(place).statistics if place >= 0 else None
                if place >= 0 and _may_hold(statistics, ids):
                    yield first, file.read_row_group(number, use_threads=False)
                first += group.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read ({' '.join(str(error).split())}); run its stage again.") from None


def _may_hold(statistics: Any, ids: Sequence[str]) -> bool:
    if statistics is None or not statistics.has_min_max:
        return True
    at = bisect_left(ids, statistics.min)
    return at < len(ids) and bool(ids[at] <= statistics.max)


def _other_blocks(path: Path) -> Iterator[tuple[int, pa.RecordBatch]]:
    first = 0
    for block in read_blocks(InputFile(name=path.name, path=str(path), bytes=0, digest="")):
        yield first, block.documents
        first += block.documents.num_rows


def find_unreadable(paths: Sequence[Path], id: str) -> dict[str, Any] | None:
    """What a stage kept of an unreadable record: file, record, offset, reason, detail, excerpt."""
    name, _, number = id.rpartition("#")
    if not number.isdecimal():
        return None
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                item: dict[str, Any] = msgspec.json.decode(line, type=dict)
                if item.get("file", item.get("input")) == name and _covers(item, int(number)):
                    return item
    return None


def _covers(item: dict[str, Any], number: int) -> bool:
    first: int = item["record"]
    return first <= number < first + int(item.get("count", 1))


def find_documents(
    inputs: Sequence[InputFile], ids: Collection[str], format: str = "auto"
) -> dict[str, dict[str, Any]]:
    """The documents of some ids, as rows of :data:`glm_data.documents.SCHEMA`; those not found are left out.

    Inputs after which an id is named are read first, and no further than to the last of their ids; others only for
    ids that are still missing, as a stage's outputs keep the names of what the stage read.
    """
    found: dict[str, dict[str, Any]] = {}
    named = {id.rpartition("#")[0] for id in ids}
    for item in sorted(inputs, key=lambda item: (item.name not in named, item.name)):
        missing = sorted(set(ids) - found.keys())
        own = [id for id in missing if id.rpartition("#")[0] == item.name]
        if not missing:
            break
        for block in _document_blocks(item, missing, format):
            rows = block.filter(pc.is_in(block.column("id"), pa.array(missing))).to_pylist()
            found.update((row["id"], row) for row in rows)
            if own and found.keys() >= set(own):
                break
    return found


def _document_blocks(item: InputFile, ids: Sequence[str], format: str) -> Iterator[Any]:
    path = Path(item.path)
    columns = set(pq.read_schema(path).names) if path.suffix == ".parquet" else set()
    if "id" not in columns:
        yield from (block.documents for block in read_blocks(item, format))
    elif "text" in columns:
        yield from (block for _, block in _parquet_blocks(path, ids, "id"))
