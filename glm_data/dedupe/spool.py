"""The documents of an input, read again: from the input if that is parquet, else from a parsed copy made on the way.

Parsing JSON costs several times what comparing the texts does, so the first pass keeps what it parsed as an Arrow file
for the two passes that follow; the copy goes when the run is finished. It is not compressed: writing it so takes a
sixth of the time that LZ4 does, and reading it maps it and touches only what is looked at.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from glm_data import documents
from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.work import Array, input_folder
from glm_data.files import atomic_path
from glm_data.formats import read_blocks, sniff
from glm_data.stage import InputFile

SPOOL = "documents.arrow"

Keep = Callable[[pa.RecordBatch], None]


def is_spooled(source: InputFile, options: DedupeOptions) -> bool:
    """Whether the first pass over ``source`` keeps a parsed copy."""
    if not options.spool:
        return False
    return (sniff(Path(source.path)) if options.format == "auto" else options.format) != "parquet"


@contextlib.contextmanager
def spooling(path: Path) -> Iterator[Keep]:
    """Yield a function that appends a block to the copy at ``path``; the file appears, whole, when the block ends."""
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, documents.SCHEMA) as writer,
    ):
        yield writer.write_batch


def read_again(work: Path, shard: int, source: InputFile, options: DedupeOptions) -> Iterator[pa.RecordBatch]:
    """Yield the documents of input ``shard`` in blocks, in order; unreadable records are left out."""
    spool = input_folder(work, "sign", shard) / SPOOL
    if not spool.exists():
        yield from (block.documents for block in read_blocks(source, options.format))
        return
    with pa.memory_map(str(spool)) as mapped:
        reader = pa.ipc.open_file(mapped)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)


def read_rows(work: Path, shard: int, source: InputFile, options: DedupeOptions, rows: Array) -> Iterator[pa.Array]:
    """Yield the texts of some rows (ascending) of input ``shard``, a block at a time."""
    first = done = 0
    for batch in read_again(work, shard, source, options) if rows.size else ():
        inside = rows[done : done + int((rows[done:] < first + batch.num_rows).sum())] - first
        if inside.size:
            yield batch.column("text").take(pa.array(inside))
        first += batch.num_rows
        done += inside.size
        if done == rows.size:
            return


def remove_bulk(work: Path) -> None:
    """Remove what only served the passes of a run that is finished: parsed copies, shingle sets and keys of lines."""
    for step in ("sets", "lines"):
        shutil.rmtree(work / step, ignore_errors=True)
    for path in (work / "sign").glob(f"*/{SPOOL}"):
        path.unlink(missing_ok=True)
