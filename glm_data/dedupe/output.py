"""Third pass: what stays, input by input, and the table of what went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import documents
from glm_data.dedupe.spool import read_again
from glm_data.dedupe.work import RULES, UNREADABLE, Array, Context, Layout, context, input_folder, load
from glm_data.files import write_bytes
from glm_data.formats import Unreadable
from glm_data.formats.parquet import parquet_writer, read_batches
from glm_data.stage import OutputFile, ShardRecord, ShardTask, output_file

DUPLICATES = pa.schema(
    [
        ("removed", pa.string()),
        ("kept", pa.string()),
        ("jaccard", pa.float64()),
        ("containment", pa.float64()),
        ("rule", pa.string()),
    ]
)
"""``duplicates.parquet``: for every removed document the kept one it repeats, and how much; ``containment`` is the
share of the removed document's shingles that the kept one has."""
DUPLICATES_NAME = "duplicates.parquet"
_ROWS = 65536
_MULTIPLICITY = pa.field("duplicates", pa.uint32(), nullable=False)


def output_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the kept documents of one input; the task after the last input writes ``duplicates.parquet``."""
    layout = context(task).layout
    return write_table(task) if task.shard == len(layout.inputs) else write_kept(task)


def write_kept(task: ShardTask) -> ShardRecord:
    """Write the kept documents of one input in its order, with their multiplicity in the column ``duplicates``."""
    given = context(task)
    start, stop = given.layout.starts[task.shard : task.shard + 2]
    counts: Counter[str] = Counter()
    blocks = _kept_blocks(task, given, load(given.work / "copies_of.npy")[start:stop], counts)
    name = f"data/part-{task.shard:05d}.parquet"
    first = next(blocks, pa.RecordBatch.from_pylist([], schema=documents.SCHEMA.append(_MULTIPLICITY)))
    with parquet_writer(Path(task.folder) / name, first.schema) as writer:
        writer.write(first)
        for block in blocks:
            writer.write(block)
    files, reasons = _copy_unreadable(task, given)
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=int(stop - start) + sum(reasons.values()),
        kept=writer.rows,
        dropped=_dropped(given, given.layout, task.shard),
        unreadable=reasons,
        counts=dict(counts),
        files=(output_file(Path(task.folder), name, writer.rows), *files),
    )


def _kept_blocks(
    task: ShardTask, given: Context, multiplicity: Array, counts: Counter[str]
) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in read_again(given.work, task.shard, task.input, given.options):
        found = np.asarray(multiplicity[row : row + batch.num_rows])
        row += batch.num_rows
        _count(batch, "in", "text_bytes_in", counts)
        if "duplicates" in batch.schema.names:
            batch = batch.drop_columns(["duplicates"])
        schema = batch.schema.remove_metadata().append(_MULTIPLICITY)
        columns = [*batch.columns, pa.array(found)]
        kept = pa.RecordBatch.from_arrays(columns, schema=schema).filter(pa.array(found > 0))
        _count(kept, "kept", "text_bytes_kept", counts)
        yield kept


def _count(batch: pa.RecordBatch, prefix: str, size: str, counts: Counter[str]) -> None:
    for entry in pc.value_counts(batch.column("source")).to_pylist():
        counts[f"{prefix}/{entry['values']}"] += entry["counts"]
    counts[size] += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0


def _dropped(given: Context, layout: Layout, shard: int) -> dict[str, int]:
    removals = load(given.work / "removals.npy")
    start, stop = np.searchsorted(removals["removed"], layout.starts[shard : shard + 2])
    rules = np.bincount(removals["rule"][start:stop], minlength=max(RULES) + 1)
    return {name: int(rules[rule]) for rule, name in RULES.items() if rules[rule]}


def _copy_unreadable(task: ShardTask, given: Context) -> tuple[list[OutputFile], dict[str, int]]:
    """Hand on what signing could not read: the files and the number of records by reason."""
    source = input_folder(given.work, "sign", task.shard) / UNREADABLE
    if not source.exists():
        return [], {}
    data = source.read_bytes()
    reasons: Counter[str] = Counter()
    for line in data.splitlines():
        item = msgspec.json.decode(line, type=Unreadable)
        reasons[item.reason] += item.count
    name = f"unreadable/part-{task.shard:05d}.jsonl"
    write_bytes(Path(task.folder) / name, data)
    return [output_file(Path(task.folder), name, data.count(b"\n"))], dict(reasons)


def write_table(task: ShardTask) -> ShardRecord:
    """Write ``duplicates.parquet``, a row a removed document in the order of the inputs."""
    given = context(task)
    removals = load(given.work / "removals.npy")
    kept = np.unique(removals["kept"])
    kept_ids = _ids(given.work, given.layout, kept)
    with parquet_writer(Path(task.folder) / DUPLICATES_NAME, DUPLICATES) as writer:
        for first in range(0, removals.size, _ROWS):
            part = np.asarray(removals[first : first + _ROWS])
            removed_ids = _ids(given.work, given.layout, part["removed"])
            partners = kept_ids.take(pa.array(np.searchsorted(kept, part["kept"])))
            writer.write(_table_rows(part, removed_ids, partners))
    files = (output_file(Path(task.folder), DUPLICATES_NAME, int(removals.size)),)
    return ShardRecord(shard=task.shard, input=task.input.name, files=files)


def _table_rows(part: Array, removed_ids: pa.Array, kept_ids: pa.Array) -> pa.RecordBatch:
    shared, size, kept_size = (part[name].astype(np.float64) for name in ("shared", "size", "kept_size"))
    rules = pa.array([RULES.get(rule, "") for rule in range(max(RULES) + 1)]).take(pa.array(part["rule"]))
    columns = [removed_ids, kept_ids, pa.array(shared / (size + kept_size - shared)), pa.array(shared / size), rules]
    return pa.RecordBatch.from_arrays(columns, schema=DUPLICATES)


def _ids(work: Path, layout: Layout, ascending: Array) -> pa.Array:
    """Ids of documents by ascending index; reads the ids of one block at a time."""
    found = []
    for shard, rows in layout.split(ascending.astype(np.int64)):
        first = 0
        for batch in read_batches(input_folder(work, "sign", shard) / "documents.parquet", ["id"]):
            a, b = np.searchsorted(rows, [first, first + batch.num_rows])
            if b > a:
                found.append(batch.column("id").take(pa.array(rows[a:b] - first)))
            first += batch.num_rows
    return pa.concat_arrays(found) if found else pa.array([], pa.string())
