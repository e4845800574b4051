"""The two passes over a file: find grams of evaluation items, then keep, cut or drop its documents.

::

    _work/index.npz                 grams and items (:mod:`glm_data.decontaminate.index`)
    _work/find/00000.npy            int32[n, 2]: document, gram, distinct and ascending: first pass over input 0
    _work/common.npy                bool[grams]: in too many documents to be evidence
    data/part-00000.parquet         documents kept, cut where items were found
    dropped/part-00000.parquet      documents dropped, with ``reason``
    ledger/part-00000.parquet       LEDGER: what was found where, and what came of it
    unreadable/part-00000.jsonl     what could not be read
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import documents
from glm_data.config import from_mapping
from glm_data.decontaminate.cut import Cut, apply_action
from glm_data.decontaminate.index import Index, load_index
from glm_data.decontaminate.options import DecontaminateOptions
from glm_data.decontaminate.search import Hits, Regions, search
from glm_data.files import atomic_path, write_bytes
from glm_data.formats import Block, Unreadable, read_blocks
from glm_data.formats.parquet import ParquetWriter, parquet_writer
from glm_data.stage import OutputFile, ShardRecord, ShardTask, output_file
from glm_data.text.grams import find_grams

Array = npt.NDArray[Any]

WORK, INDEX, COMMON, FIND = "_work", "index.npz", "common.npy", "find"
QUOTE_BYTES = 400
"""Of the first gram of a region, at most, in the ledger."""

LEDGER = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("benchmark", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("containment", pa.float64(), nullable=False),
        pa.field("start", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
    ]
)
"""A row for each stretch of a document that an item was found by: ``start`` is its first byte in the document's text,
``text`` its first gram, ``action`` ``cut`` or the reason why the document was dropped."""


@dataclass(frozen=True)
class Given:
    """What both passes need beside their task."""

    options: DecontaminateOptions
    work: Path
    index: Index


def given_of(task: ShardTask) -> Given:
    """Options, work folder and index of a task."""
    options = from_mapping(task.options["decontaminate"], DecontaminateOptions, "options of a decontamination task")
    work = Path(task.options["work"])
    return Given(options, work, load_index(work / INDEX, task.options["run"]))


# --- first pass -------------------------------------------------------------------------------------------------------


def find_shard(task: ShardTask) -> ShardRecord:
    """Shard function: which grams of the index stand in which documents of one input."""
    given = given_of(task)
    options, index = given.options, given.index
    found: list[Array] = []
    rows, unreadable = 0, Counter[str]()
    for block in _blocks(task, options):
        found.append(_grams_by_document(block.documents.column("text"), index, rows))
        rows += block.documents.num_rows
        for item in block.unreadable:
            unreadable[item.reason] += item.count
    name = f"{task.shard:05d}.npy"
    save(Path(task.folder) / name, np.concatenate([np.empty((0, 2), np.int32), *found]))
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=rows + unreadable.total(),
        kept=rows,
        unreadable=dict(sorted(unreadable.items())),
        files=(output_file(Path(task.folder), name),),
    )


def _blocks(task: ShardTask, options: DecontaminateOptions) -> Iterator[Block]:
    return read_blocks(task.input, options.format, max_record_bytes=options.max_record_bytes)


def _grams_by_document(texts: pa.Array, index: Index, first: int) -> Array:
    places = find_grams(texts, index.lookup)
    pairs = np.unique(places.texts.astype(np.int64) << 32 | places.grams)
    return np.stack([(pairs >> 32) + first, pairs & 0xFFFFFFFF], axis=1).astype(np.int32)


def common_grams(work: Path, shards: int, grams: int, most: int) -> Array:
    """Which grams stand in more than ``most`` documents of all inputs: ``bool[grams]``."""
    documents_of = np.zeros(grams, np.int64)
    for shard in range(shards):
        documents_of += np.bincount(load(work / FIND / f"{shard:05d}.npy")[:, 1], minlength=grams)
    return documents_of > most


def save(path: Path, array: Array) -> None:
    """Write an array as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def load(path: Path) -> Array:
    """Read an array that :func:`save` wrote."""
    array: Array = np.load(path, allow_pickle=False)
    return array


# --- second pass ------------------------------------------------------------------------------------------------------


def output_shard(task: ShardTask) -> ShardRecord:
    """Shard function: keep, cut or drop the documents of one input, and note why."""
    given = given_of(task)
    touched = np.unique(load(given.work / FIND / f"{task.shard:05d}.npy")[:, 0])
    common = load(given.work / COMMON)
    counts, reasons = Counter[str](), Counter[str]()
    lost: list[Unreadable] = []
    first = 0
    with _Parts(Path(task.folder), task.shard) as parts:
        for block in _blocks(task, given.options):
            lost += block.unreadable
            beyond = first + block.documents.num_rows
            inside = touched[slice(*np.searchsorted(touched, [first, beyond]))] - first
            judged = _judge_block(block.documents, inside, given, common, counts)
            _count(block.documents, judged, counts, reasons)
            parts.write(judged)
            first = beyond
    unreadable = Counter[str]()
    for item in lost:
        unreadable[item.reason] += item.count
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=first + unreadable.total(),
        kept=parts.rows["data"],
        dropped=dict(sorted(reasons.items())),
        unreadable=dict(sorted(unreadable.items())),
        counts=dict(sorted(counts.items())),
        files=(*parts.measure(), *_write_unreadable(task, lost)),
    )


class _Judged(NamedTuple):
    """A block's documents, parted, and its rows of the ledger."""

    kept: pa.RecordBatch
    dropped: pa.RecordBatch
    ledger: pa.RecordBatch
    cut_sources: list[str]


def _judge_block(block: pa.RecordBatch, inside: Array, given: Given, common: Array, counts: Counter[str]) -> _Judged:
    """Judge the rows ``inside`` of a block; all others are kept as they are."""
    texts = block.column("text").take(pa.array(inside))
    hits, regions = search(texts, given.index, given.options.containment, common)
    _count_hits(hits, given.index, counts)
    cuts = {int(inside[row]): cut for row, cut in _cut_all(texts, regions, given.options).items()}
    dropped = {row: cut.reason for row, cut in cuts.items() if cut.reason}
    keep = np.ones(block.num_rows, bool)
    keep[list(dropped)] = False
    column = block.column("text").to_pylist() if len(cuts) > len(dropped) else None
    kept = block
    if column is not None:
        for row, cut in cuts.items():
            column[row] = cut.text
        place = block.schema.get_field_index("text")
        kept = block.set_column(place, block.schema.field(place), pa.array(column, block.schema.field(place).type))
    gone = block.take(pa.array(sorted(dropped), pa.int64()))
    gone = gone.append_column("reason", pa.array([dropped[row] for row in sorted(dropped)], pa.string()))
    cut_rows = pa.array(sorted(set(cuts) - set(dropped)), pa.int64())
    return _Judged(
        kept=kept.filter(pa.array(keep)) if dropped else kept,
        dropped=gone,
        ledger=_ledger(block, inside, texts, hits, regions, cuts, given.index),
        cut_sources=block.column("source").take(cut_rows).to_pylist(),
    )


def _cut_all(texts: pa.Array, regions: Regions, options: DecontaminateOptions) -> dict[int, Cut]:
    """What becomes of every text in which something was found."""
    cuts = {}
    for row in np.unique(regions.texts).tolist():
        own = regions.texts == row
        order = np.argsort(regions.starts[own], kind="stable")
        cuts[row] = apply_action(texts[row].as_py(), regions.starts[own][order], regions.ends[own][order], options)
    return cuts


def _ledger(
    block: pa.RecordBatch, inside: Array, texts: pa.Array, hits: Hits, regions: Regions, cuts: dict[int, Cut],
    index: Index,
) -> pa.RecordBatch:  # fmt: skip
    rows = inside[regions.texts] if regions.texts.size else regions.texts
    shares = hits.covered[hits.is_hit] / index.sizes[hits.items[hits.is_hit]]
    share_of = dict(zip(zip(hits.texts[hits.is_hit], hits.items[hits.is_hit], strict=True), shares, strict=True))
    quotes = [
        _quote(texts[text], start, end)
        for text, start, end in zip(
            regions.texts.tolist(), regions.starts.tolist(), regions.firsts.tolist(), strict=True
        )
    ]
    taken = pa.array(rows, pa.int64())
    columns = [
        block.column("id").take(taken),
        block.column("source").take(taken),
        index.benchmarks[index.benchmark_of[regions.items]].tolist(),
        index.ids[regions.items].tolist(),
        [share_of[pair] for pair in zip(regions.texts, regions.items, strict=True)],
        regions.starts,
        regions.ends - regions.starts,
        quotes,
        [cuts[row].reason or "cut" for row in rows.tolist()],
    ]
    arrays = [
        pa.array(column, field.type) if not isinstance(column, pa.Array) else column
        for column, field in zip(columns, LEDGER, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=LEDGER)


def _quote(text: pa.StringScalar, start: int, end: int) -> str:
    data = bytes(text.as_buffer()[start : min(end, start + QUOTE_BYTES)])
    return data.decode("utf-8", "ignore")


def _count_hits(hits: Hits, index: Index, counts: Counter[str]) -> None:
    """Documents by benchmark: with an item in them, only near one, or spared for want of grams that are not common."""
    if not hits.texts.size:
        return
    benchmarks = index.benchmark_of[hits.items]
    pairs, place = np.unique(np.stack([hits.texts, benchmarks]), axis=1, return_inverse=True)
    is_hit = np.bincount(place.ravel(), hits.is_hit, pairs.shape[1]) > 0
    is_spared = (np.bincount(place.ravel(), hits.is_spared, pairs.shape[1]) > 0) & ~is_hit
    for name, chosen in (("hit", is_hit), ("spared", is_spared), ("near", ~is_hit & ~is_spared)):
        for benchmark, documents_of in enumerate(np.bincount(pairs[1][chosen]).tolist()):
            if documents_of:
                counts[f"{name}/{index.benchmarks[benchmark]}"] += documents_of


def _count(block: pa.RecordBatch, judged: _Judged, counts: Counter[str], reasons: Counter[str]) -> None:
    reasons.update(judged.dropped.column("reason").to_pylist())
    for prefix, batch in (("in", block), ("kept", judged.kept), ("dropped", judged.dropped)):
        for entry in pc.value_counts(batch.column("source")).to_pylist():
            counts[f"{prefix}/{entry['values']}"] += entry["counts"]
    counts.update(f"cut/{source}" for source in judged.cut_sources)
    for name, batch in (("text_bytes_in", block), ("text_bytes_kept", judged.kept)):
        counts[name] += pc.sum(pc.binary_length(batch.column("text"))).as_py() or 0


class _Parts:
    """The files of a shard: ``data`` always, the others if there is something to put in."""

    def __init__(self, folder: Path, shard: int) -> None:
        self._folder, self._shard = folder, shard
        self._stack = contextlib.ExitStack()
        self._writers: dict[str, ParquetWriter] = {}
        self.rows = Counter({"data": 0})

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and "data" not in self._writers:
            self._writer("data", documents.SCHEMA)
        self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]

    def write(self, judged: _Judged) -> None:
        """Write what a block became."""
        for name, batch in (("data", judged.kept), ("dropped", judged.dropped), ("ledger", judged.ledger)):
            if name == "data" or batch.num_rows:
                self._writer(name, batch.schema).write(batch)
                self.rows[name] += batch.num_rows

    def measure(self) -> tuple[OutputFile, ...]:
        """The finished files, in order of name."""
        return tuple(output_file(self._folder, self._name(name), rows) for name, rows in sorted(self.rows.items()))

    def _name(self, name: str) -> str:
        return f"{name}/part-{self._shard:05d}.parquet"

    def _writer(self, name: str, schema: pa.Schema) -> ParquetWriter:
        if name not in self._writers:
            self._writers[name] = self._stack.enter_context(parquet_writer(self._folder / self._name(name), schema))
        return self._writers[name]


def _write_unreadable(task: ShardTask, lost: list[Unreadable]) -> tuple[OutputFile, ...]:
    if not lost:
        return ()
    name, folder = f"unreadable/part-{task.shard:05d}.jsonl", Path(task.folder)
    lines = [msgspec.json.encode({"file": task.input.name, **msgspec.structs.asdict(item)}) + b"\n" for item in lost]
    write_bytes(folder / name, b"".join(lines))
    return (output_file(folder, name, len(lost)),)
