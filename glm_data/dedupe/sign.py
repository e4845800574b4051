"""First pass over an input: exact keys, band keys and priorities of its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data import documents
from glm_data.dedupe.index import read_index
from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.priority import priorities
from glm_data.dedupe.signatures import Lsh, band_keys, signatures
from glm_data.dedupe.spool import SPOOL, Keep, is_spooled, spooling
from glm_data.dedupe.work import EXACT_REST, UNREADABLE, Array, concatenate, context, input_folder, lsh_of, save
from glm_data.files import write_bytes
from glm_data.formats import Unreadable, read_blocks
from glm_data.formats.parquet import parquet_writer
from glm_data.stage import OutputFile, ShardRecord, ShardTask, output_file
from glm_data.text.shingles import distinct_sorted, keyed_shingles, shingle_texts

DOCUMENTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("bytes", pa.uint64()), ("weight", pa.uint32())])
RUN_DOCUMENTS = 1 << 18
"""Documents whose band keys are sorted together: bounds memory to about 100 MB."""


class Signed(NamedTuple):
    """What one block of documents comes to."""

    exact: Array
    """``uint64[documents, 2]``."""
    bands: Array
    """``uint64[documents, bands]``."""
    priority: Array
    """``uint64[documents]``, lower is better (:mod:`glm_data.dedupe.priority`)."""
    documents: pa.RecordBatch
    """Of :data:`DOCUMENTS`."""


def sign_block(batch: pa.RecordBatch, options: DedupeOptions, lsh: Lsh) -> Signed:
    """Keys and priorities of a block of documents; only this function looks at the text."""
    text = batch.column("text")
    shingles, keys = keyed_shingles(text, **options.shingling)
    sizes = pc.cast(pc.binary_length(text), pa.uint64())
    columns = [batch.column("id"), batch.column("source"), sizes, weights(batch)]
    return Signed(
        keys,
        band_keys(signatures(shingles, lsh), lsh),
        priorities(batch, options),
        pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS),
    )


def weights(batch: pa.RecordBatch) -> pa.Array:
    """How many documents each row stands for: its ``duplicates`` of an earlier run, or 1."""
    if "duplicates" in batch.schema.names:
        return pc.cast(batch.column("duplicates"), pa.uint32())
    return pa.array(np.ones(batch.num_rows, np.uint32))


def sign_shard(task: ShardTask) -> ShardRecord:
    """Shard function: sign one input, or take over what an earlier run left of one."""
    return sign_earlier(task) if is_earlier(task) else sign_input(task)


def warm_up() -> None:
    """Load what every step needs, once for the worker processes that are forked from this one."""
    block = documents.make_block(["a"], ["b"], ["c"], ["d"], ["{}"])
    options = DedupeOptions()
    sign_block(block, options, lsh_of(options))
    distinct_sorted(shingle_texts(block.column("text")))


def is_earlier(task: ShardTask) -> bool:
    """Whether a task's input is an index file of an earlier run (``against``)."""
    return bool(task.options.get("earlier", False))


def sign_earlier(task: ShardTask) -> ShardRecord:
    """Keys of what an earlier run kept, out of its index; nothing goes before it."""
    options, work = context(task)
    folder = input_folder(work, "sign", task.shard)
    pending, exact = _Runs(folder), []
    with parquet_writer(folder / "documents.parquet", DOCUMENTS) as writer:
        for block in read_index(Path(task.input.path)):
            exact.append(block.keys)
            pending.add(band_keys(block.signatures, lsh_of(options)))
            nothing = pa.array(np.zeros(len(block.ids), np.uint32))
            columns = [block.ids, pa.array([""] * len(block.ids), pa.string()), pc.cast(nothing, pa.uint64()), nothing]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=DOCUMENTS))
    save(folder / "priority.npy", np.zeros(writer.rows, np.uint64))
    names = ["documents.parquet", "priority.npy", *pending.finish(), *_write_exact(folder, exact)]
    files = _describe(task, folder, names)
    return ShardRecord(shard=task.shard, input=task.input.name, records=writer.rows, kept=writer.rows, files=files)


def sign_input(task: ShardTask) -> ShardRecord:
    """Keys and priorities of an input's documents."""
    options, work = context(task)
    folder = input_folder(work, "sign", task.shard)
    unreadable: list[Unreadable] = []
    exact, priority = [], []
    pending = _Runs(folder)
    with parquet_writer(folder / "documents.parquet", DOCUMENTS) as writer, _spool(task, options, folder) as spool:
        for batch in _documents(task, options, unreadable):
            signed = sign_block(batch, options, lsh_of(options))
            spool(batch)
            writer.write(signed.documents)
            exact.append(signed.exact)
            priority.append(signed.priority)
            pending.add(signed.bands)
    save(folder / "priority.npy", concatenate(priority, np.uint64))
    names = ["documents.parquet", "priority.npy", *pending.finish(), *_write_exact(folder, exact)]
    names += [SPOOL] if is_spooled(task.input, options) else []
    names += _write_unreadable(folder, task.input.name, unreadable)
    reasons: Counter[str] = Counter()
    for item in unreadable:
        reasons[item.reason] += item.count
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=writer.rows + reasons.total(),
        kept=writer.rows,
        unreadable=dict(reasons),
        files=_describe(task, folder, names),
    )


def _spool(task: ShardTask, options: DedupeOptions, folder: Path) -> AbstractContextManager[Keep]:
    return spooling(folder / SPOOL) if is_spooled(task.input, options) else nullcontext(lambda batch: None)


def _documents(task: ShardTask, options: DedupeOptions, unreadable: list[Unreadable]) -> Iterator[pa.RecordBatch]:
    for block in read_blocks(task.input, options.format):
        unreadable.extend(block.unreadable)
        if block.documents.num_rows:
            yield block.documents


def _write_unreadable(folder: Path, name: str, unreadable: list[Unreadable]) -> list[str]:
    if not unreadable:
        return []
    rows = (msgspec.json.encode({"input": name, **msgspec.to_builtins(item)}) + b"\n" for item in unreadable)
    write_bytes(folder / UNREADABLE, b"".join(rows))
    return [UNREADABLE]


class _Runs:
    """Collects band keys and writes them as sorted runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blocks: list[Array] = []
        self._first = self._documents = 0
        self._names: list[str] = []

    def add(self, bands: Array) -> None:
        self._blocks.append(bands)
        self._documents += bands.shape[0]
        if self._documents >= RUN_DOCUMENTS:
            self._write()

    def finish(self) -> list[str]:
        if self._blocks:
            self._write()
        return self._names

    def _write(self) -> None:
        bands = np.concatenate(self._blocks)
        keys = bands.ravel()
        order = stable_order(keys)
        rows = (order // bands.shape[1] + self._first).astype(np.uint32)
        number = len(self._names) // 2
        for name, array in ((f"keys-{number:03d}.npy", keys[order]), (f"rows-{number:03d}.npy", rows)):
            save(self._folder / name, array)
            self._names.append(name)
        self._first += self._documents
        self._blocks, self._documents = [], 0


def stable_order(keys: Array) -> Array:
    """``np.argsort(keys, kind="stable")``, ``int64[n]``, of hashes ``uint64[n]``, in a fifth of its time (lab notes).

    Places take the lowest bits of keys, numbers alone are sorted, and what is equal in the bits above is sorted again.
    """
    bits = np.uint64(max(keys.size - 1, 1).bit_length())
    packed = np.sort(keys >> bits << bits | np.arange(keys.size, dtype=np.uint64))
    order = (packed & ~(~np.uint64(0) << bits)).astype(np.int64)
    packed >>= bits
    is_tied = np.zeros(keys.size + 1, bool)
    np.equal(packed[1:], packed[:-1], out=is_tied[1:-1])
    places = np.flatnonzero(is_tied[1:] | is_tied[:-1])
    tied = order[places]
    order[places] = tied[np.lexsort((tied, keys[tied]))]
    return order


def _write_exact(folder: Path, blocks: list[Array]) -> list[str]:
    keys = concatenate(blocks, np.uint64).reshape(-1, 2)
    order = stable_order(keys[:, 0])
    rest = np.empty(order.size, EXACT_REST)
    rest["low"], rest["row"] = keys[order, 1], order
    save(folder / "exact.npy", keys[order, 0])
    save(folder / "exact_rest.npy", rest)
    return ["exact.npy", "exact_rest.npy"]


def _describe(task: ShardTask, folder: Path, names: list[str]) -> tuple[OutputFile, ...]:
    relative = folder.relative_to(task.folder)
    return tuple(output_file(Path(task.folder), str(relative / name)) for name in names)
