"""Third pass: what stays, input by input, and the table of what went."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import documents
from glm_data.dedupe.index import INDEX, index_rows, index_schema, sketch_of
from glm_data.dedupe.lines import cut_units, read_cuts
from glm_data.dedupe.options import DedupeOptions, parse_repeats
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
_REPEATS = pa.field("repeats", pa.uint32(), nullable=False)
_COLUMNS = ("duplicates", "repeats")
_EARLIER = pa.field("earlier", pa.string())
"""Where ``duplicates.parquet`` has it, the key of the earlier run that kept the document; null for one of this run."""


def output_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the kept documents of one input; the task after the last input writes ``duplicates.parquet``."""
    layout = context(task).layout
    return write_table(task) if task.shard == len(layout.inputs) - layout.earlier else write_kept(task)


def write_kept(task: ShardTask) -> ShardRecord:
    """Write the kept documents of one input in its order, with their multiplicity in the column ``duplicates``."""
    given = context(task)
    start, stop = given.layout.starts[task.shard : task.shard + 2]
    counts: Counter[str] = Counter()
    emptied = 0
    cuts = read_cuts(given.work, given.layout, task.shard)
    blocks = _kept_blocks(task, given, load(given.work / "copies_of.npy")[start:stop], counts)
    name = f"data/part-{task.shard:05d}.parquet"
    first = next(blocks, (_no_documents(given.options), np.empty(0, np.int64)))
    with parquet_writer(Path(task.folder) / name, first[0].schema) as writer, _index_writer(task, given) as index:
        for block, rows in itertools.chain([first], blocks):
            index(block)
            left = cut_lines(block, rows, cuts, given.options.lines == "paragraph") if cuts.size else block
            emptied += block.num_rows - left.num_rows
            _count(left, "kept", "text_bytes_kept", counts)
            writer.write(left)
    files, reasons = _copy_unreadable(task, given)
    files += [output_file(Path(task.folder), name, writer.rows)]
    if given.options.export_index:
        files += [output_file(Path(task.folder), _index_name(task), writer.rows + emptied)]
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=int(stop - start) + sum(reasons.values()),
        kept=writer.rows,
        dropped={**_dropped(given, given.layout, task.shard), **({"lines": emptied} if emptied else {})},
        unreadable=reasons,
        counts=dict(counts),
        files=tuple(files),
    )


def _kept_blocks(
    task: ShardTask, given: Context, multiplicity: Array, counts: Counter[str]
) -> Iterator[tuple[pa.RecordBatch, Array]]:
    row = 0
    for batch in read_again(given.work, task.shard, task.input, given.options):
        found = np.asarray(multiplicity[row : row + batch.num_rows])
        _count(batch, "in", "text_bytes_in", counts)
        old = [name for name in _COLUMNS if name in batch.schema.names]
        columns = batch.drop_columns(old) if old else batch
        kept = columns.filter(pa.array(found > 0))
        yield _with_counts(kept, found[found > 0], given.options), row + np.flatnonzero(found)
        row += batch.num_rows


def _with_counts(batch: pa.RecordBatch, multiplicity: Array, options: DedupeOptions) -> pa.RecordBatch:
    """Append ``duplicates`` and, where asked for, ``repeats``."""
    schema, columns = batch.schema.remove_metadata(), list(batch.columns)
    added = {_MULTIPLICITY: multiplicity}
    if options.rehydrate:
        added[_REPEATS] = repeats(multiplicity, options.rehydrate)
    for field, values in added.items():
        schema = schema.append(field)
        columns.append(pa.array(values, pa.uint32()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _no_documents(options: DedupeOptions) -> pa.RecordBatch:
    return _with_counts(pa.RecordBatch.from_pylist([], schema=documents.SCHEMA), np.empty(0, np.uint32), options)


def repeats(multiplicity: Array, table: str) -> Array:
    """``uint32[documents]``: how often documents of some multiplicity are to be used, by a table of ``rehydrate``."""
    sizes, uses = np.array(parse_repeats(table), np.uint32).T
    return uses[np.searchsorted(sizes, multiplicity, side="right") - 1]


def cut_lines(batch: pa.RecordBatch, rows: Array, cuts: Array, paragraphs: bool) -> pa.RecordBatch:
    """Cut units out of the texts of ``batch``, whose documents are ``rows`` of their input; drop what that empties."""
    cuts = cuts[np.searchsorted(cuts["document"], rows[0]) :] if rows.size else cuts[:0]
    cuts = cuts[np.isin(cuts["document"], rows)]
    if not cuts.size:
        return batch
    texts = cut_units(batch.column("text"), np.searchsorted(rows, cuts["document"]), cuts["unit"], paragraphs)
    place = batch.schema.get_field_index("text")
    changed = batch.set_column(place, batch.schema.field("text"), texts)
    was_cut = np.isin(rows, cuts["document"])
    is_left = ~was_cut | np.asarray(pc.greater(pc.binary_length(pc.utf8_trim_whitespace(texts)), 0))
    return changed.filter(pa.array(is_left))


def _index_name(task: ShardTask) -> str:
    return f"{INDEX}/part-{task.shard:05d}.parquet"


@contextlib.contextmanager
def _index_writer(task: ShardTask, given: Context) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yield a function that adds kept documents to the index of this input, if the run is to have one."""
    if not given.options.export_index:
        yield lambda batch: None
        return
    sketch = sketch_of(given.options)
    with parquet_writer(Path(task.folder) / _index_name(task), index_schema(sketch)) as writer:
        yield lambda batch: writer.write(index_rows(batch.column("id"), batch.column("text"), sketch))


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
    layout, removals = given.layout, load(given.work / "removals.npy")
    kept = np.unique(removals["kept"])
    kept_ids = read_ids(given.work, layout, kept)
    schema = DUPLICATES.append(_EARLIER) if layout.earlier else DUPLICATES
    with parquet_writer(Path(task.folder) / DUPLICATES_NAME, schema) as writer:
        for first in range(0, removals.size, _ROWS):
            part = np.asarray(removals[first : first + _ROWS])
            removed_ids = read_ids(given.work, layout, part["removed"])
            partners = kept_ids.take(pa.array(np.searchsorted(kept, part["kept"])))
            columns = _table_columns(part, removed_ids, partners)
            columns += [_earlier(part["kept"], layout)] if layout.earlier else []
            writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))
    files = (output_file(Path(task.folder), DUPLICATES_NAME, int(removals.size)),)
    return ShardRecord(shard=task.shard, input=task.input.name, files=files)


def _table_columns(part: Array, removed_ids: pa.Array, kept_ids: pa.Array) -> list[pa.Array]:
    shared, size, kept_size = (part[name].astype(np.float64) for name in ("shared", "size", "kept_size"))
    rules = pa.array([RULES.get(rule, "") for rule in range(max(RULES) + 1)]).take(pa.array(part["rule"]))
    return [removed_ids, kept_ids, pa.array(shared / (size + kept_size - shared)), pa.array(shared / size), rules]


def _earlier(kept: Array, layout: Layout) -> pa.Array:
    """The key in the name of the input that each document is of, if that is an index of an earlier run."""
    own = len(layout.inputs) - layout.earlier
    keys = [None] * own + [item.name.split("/")[1] for item in layout.inputs[own:]]
    return pa.array(keys, pa.string()).take(pa.array(np.searchsorted(layout.starts, kept, side="right") - 1))


def read_ids(work: Path, layout: Layout, ascending: Array) -> pa.Array:
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
