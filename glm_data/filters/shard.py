"""The filter's shard function: one input file becomes kept, dropped and unreadable parts, with every count.

::

    data/part-00000.parquet          documents kept, with their language (or .jsonl.zst)
    dropped/part-00000.parquet       documents dropped, with ``reason``, ``value`` and ``broken``
    unreadable/part-00000.jsonl      file, record, offset, reason, detail, excerpt of what could not be read
    signals/part-00000.parquet       every document's verdict, source, language and signals, in the order of the file
    border/part-00000.jsonl          for each rule, the documents nearest to its bound on both sides

All but the first are there only if there is something to put in.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa

from glm_data import documents
from glm_data.files import atomic_path
from glm_data.filters.block import filter_block
from glm_data.filters.border import Example, limits_of, nearest
from glm_data.filters.options import FilterOptions
from glm_data.filters.rules import Profile, load_profile
from glm_data.formats import Unreadable, read_blocks
from glm_data.formats.jsonl import JsonlWriter, jsonl_writer
from glm_data.formats.parquet import ParquetWriter, parquet_writer
from glm_data.stage import InputFile, OutputFile, ShardRecord, ShardTask, output_file

_encoder = msgspec.json.Encoder()
_SIGNAL_ROWS = 1 << 14


class FilterTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task's options: those of the stage, and the profile they name, so that workers need no file of it."""

    options: FilterOptions
    profile: Profile
    digests: dict[str, str] = {}
    """Of the models and lists that the options name."""


def warm_up() -> None:
    """Load kernels, tables and patterns, once for the worker processes that are forked from this one."""
    block = documents.make_block(["a", "b"], ["A line, \n", "一行。"], ["a"] * 2, [""] * 2, ["{}"] * 2)
    filter_block(block, FilterOptions(), load_profile("bilingual"))


def filter_shard(task: ShardTask) -> ShardRecord:
    """Read, clean, judge and write one input file; memory stays within a few blocks."""
    settings = msgspec.convert(task.options, FilterTask)
    options = settings.options
    reasons, unreadable, counts = Counter[str](), Counter[str](), Counter[str]()
    examples: list[Example] = []
    with _Parts(Path(task.folder), task.shard, options.output_format) as parts:
        for block in read_blocks(task.input, options.format, max_record_bytes=options.max_record_bytes):
            parts.write_unreadable(task.input, block.unreadable)
            for item in block.unreadable:
                unreadable[item.reason] += item.count
            filtered = filter_block(block.documents, options, settings.profile, settings.digests, limits_of(examples))
            parts.write_kept(filtered.kept)
            parts.write_dropped(filtered.dropped)
            if options.keep_signals:
                parts.write_signals(filtered.signals)
            examples = nearest([*examples, *filtered.examples])
            reasons.update(filtered.reasons)
            counts.update(filtered.counts)
        parts.write_examples(examples)
    kept = parts.rows["data"]
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=kept + reasons.total() + unreadable.total(),
        kept=kept,
        dropped=dict(sorted(reasons.items())),
        unreadable=dict(sorted(unreadable.items())),
        counts=dict(sorted(counts.items())),
        files=parts.measure(),
    )


class _Parts:
    """The files of a shard: opened when there is something to write, whole when the block ends."""

    def __init__(self, folder: Path, shard: int, output_format: str) -> None:
        self._folder, self._format = folder, output_format
        self._names = {
            "data": f"data/part-{shard:05d}.{output_format}",
            "dropped": f"dropped/part-{shard:05d}.parquet",
            "unreadable": f"unreadable/part-{shard:05d}.jsonl",
            "signals": f"signals/part-{shard:05d}.parquet",
            "border": f"border/part-{shard:05d}.jsonl",
        }
        self._stack = contextlib.ExitStack()
        self._kept: ParquetWriter | JsonlWriter | None = None
        self._dropped: ParquetWriter | None = None
        self._unreadable: BinaryIO | None = None
        self._signals: ParquetWriter | None = None
        self._held: list[pa.RecordBatch] = []
        self.rows = Counter({"data": 0})
        """Rows of the files that exist."""

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self._kept is None:
            self._kept = self._open_kept(documents.SCHEMA)
        if kind is None:
            self._flush_signals()
        self._stack.__exit__(kind, *rest)  # type: ignore[arg-type]

    def write_kept(self, batch: pa.RecordBatch) -> None:
        if self._kept is None:
            self._kept = self._open_kept(batch.schema)
        self._kept.write(batch)
        self.rows["data"] += batch.num_rows

    def write_dropped(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if self._dropped is None:
            path = self._folder / self._names["dropped"]
            self._dropped = self._stack.enter_context(parquet_writer(path, batch.schema))
        self._dropped.write(batch)
        self.rows["dropped"] += batch.num_rows

    def write_unreadable(self, item: InputFile, found: Iterable[Unreadable]) -> None:
        for unreadable in found:
            if self._unreadable is None:
                path = self._stack.enter_context(atomic_path(self._folder / self._names["unreadable"]))
                self._unreadable = self._stack.enter_context(path.open("wb"))
            self._unreadable.write(_encoder.encode({"file": item.name, **msgspec.structs.asdict(unreadable)}) + b"\n")
            self.rows["unreadable"] += 1

    def write_signals(self, batch: pa.RecordBatch) -> None:
        """Append signals; row groups hold those of many blocks, as each has many columns."""
        if not batch.num_rows:
            return
        self._held.append(batch)
        self.rows["signals"] += batch.num_rows
        if sum(held.num_rows for held in self._held) >= _SIGNAL_ROWS:
            self._flush_signals()

    def _flush_signals(self) -> None:
        rows = pa.Table.from_batches(self._held).combine_chunks().to_batches() if self._held else []
        for batch in rows:
            if self._signals is None:
                path = self._folder / self._names["signals"]
                self._signals = self._stack.enter_context(parquet_writer(path, batch.schema))
            self._signals.write(batch)
        self._held = []

    def write_examples(self, examples: Iterable[Example]) -> None:
        lines = [_encoder.encode(example) + b"\n" for example in examples]
        if lines:
            path = self._stack.enter_context(atomic_path(self._folder / self._names["border"]))
            path.write_bytes(b"".join(lines))
            self.rows["border"] = len(lines)

    def measure(self) -> tuple[OutputFile, ...]:
        """The finished files, in order of name."""
        return tuple(output_file(self._folder, self._names[kind], rows) for kind, rows in sorted(self.rows.items()))

    def _open_kept(self, schema: pa.Schema) -> ParquetWriter | JsonlWriter:
        path = self._folder / self._names["data"]
        if self._format == "parquet":
            return self._stack.enter_context(parquet_writer(path, schema))
        return self._stack.enter_context(jsonl_writer(path))
