"""The files that one step of de-duplication leaves for the next, below ``OUT/_work``.

::

    layout.json                    inputs and their numbers of documents
    sign/00000/documents.parquet   id, source, bytes, weight          one row a document of input 0, in order
               documents.arrow     a parsed copy of an input that is not parquet (:mod:`glm_data.dedupe.spool`)
               unreadable.jsonl    records of it that could not be read, if any
               priority.npy        uint64[documents], lower is better
               exact.npy           uint64[documents], first half of the exact keys, ascending
               exact_rest.npy      (second half, row) in the order of exact.npy
               keys-000.npy        uint64, ascending: band keys of a run of documents
               rows-000.npy        uint32: the document of each
    exact/00000.npy                (copy, stands for it) of key range 0, by document index
    bands/00000.npy                uint64 star edges (first << 32 | other) of key range 0
          00000-giant.npy          GIANT rows: buckets of boilerplate
    copies.npy                     all copies, ascending
    candidates.npy, labels.npy     documents that have an edge, ascending, and their component
    sets/00000/hashes.bin          uint64: shingle sets of the candidates of input 0, one after the other
               offsets.npy         int64[candidates + 1]
               signatures.npy      uint32[candidates, permutations]
    units.npy, unit_offsets.npy    candidates by unit
    select/00000.npy               REMOVAL rows of unit 0
    lines/, cuts/                  keys of lines and what is cut, if asked for (:mod:`glm_data.dedupe.lines`)
    removals.npy                   REMOVAL rows of the run, copies included, by removed document
    copies_of.npy                  uint32[documents]: multiplicity of the kept, 0 for the removed

Arrays are ``.npy`` so that steps map them and read only what they need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from glm_data.config import from_mapping, to_mapping
from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.signatures import Lsh, best_lsh
from glm_data.errors import InputError
from glm_data.files import atomic_path, write_json
from glm_data.stage import InputFile, ShardTask

WORK = "_work"
LAYOUT, UNREADABLE = "layout.json", "unreadable.jsonl"
MOST_DOCUMENTS = 1 << 32
"""Two document indices share a 64-bit edge."""

EXACT, NEAR, CONTAINED = 1, 2, 3
RULES = {EXACT: "exact", NEAR: "near", CONTAINED: "contained"}
REMOVAL = np.dtype(
    [("removed", "<u4"), ("kept", "<u4"), ("shared", "<u4"), ("size", "<u4"), ("kept_size", "<u4"), ("rule", "u1")]
)
"""One removed document: the kept one it repeats, shingles they share, sizes of both shingle sets, and the rule."""
EXACT_REST = np.dtype([("low", "<u8"), ("row", "<u4")])
_NONE: Mapping[str, Any] = {}
GIANT = np.dtype([("size", "<u4"), ("first", "<u4")])
"""A bucket of very many documents, and the first of them."""
COPY = np.dtype([("copy", "<u4"), ("original", "<u4")])

Array = npt.NDArray[Any]


class Layout(msgspec.Struct, frozen=True):
    """The inputs in order, and how many documents each holds; documents are numbered through all of them."""

    inputs: tuple[InputFile, ...]
    rows: tuple[int, ...]
    earlier: int = 0
    """How many of the inputs, the last ones, are index files of earlier runs: compared with, never removed."""

    @property
    def starts(self) -> Array:
        """``int64[inputs + 1]``: index of each input's first document, and their number."""
        return np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64)

    @property
    def own_starts(self) -> Array:
        """As :attr:`starts`, of the inputs of this run alone."""
        return self.starts[: len(self.inputs) - self.earlier + 1]

    @property
    def own_documents(self) -> int:
        """Documents of this run: those of a lower index."""
        return int(self.own_starts[-1])

    @property
    def documents(self) -> int:
        """Documents of all inputs."""
        return sum(self.rows)

    def split(self, ascending: Array) -> list[tuple[int, Array]]:
        """Part ascending document indices by input: ``(input, rows in it)`` for the inputs that have any."""
        bounds = np.searchsorted(ascending, self.starts)
        pieces = ((i, ascending[bounds[i] : bounds[i + 1]] - self.starts[i]) for i in range(len(self.rows)))
        return [(i, rows) for i, rows in pieces if rows.size]


class Context(NamedTuple):
    """What every shard function of this room needs beside its task."""

    options: DedupeOptions
    work: Path

    @property
    def layout(self) -> Layout:
        """Inputs and numbers of documents, known once all inputs are signed."""
        return msgspec.json.decode((self.work / LAYOUT).read_bytes(), type=Layout)


def context(task: ShardTask) -> Context:
    """Options and work folder of a task."""
    options = from_mapping(task.options["dedupe"], DedupeOptions, "options of a de-duplication task")
    return Context(options, Path(task.options["work"]))


def make_task(
    shard: int, folder: Path, work: Path, source: InputFile, options: DedupeOptions, extra: Mapping[str, Any] = _NONE
) -> ShardTask:
    """A task of one of this room's steps; ``folder`` is the step's stage folder, ``work`` the run's work folder."""
    settings = {**extra, "dedupe": to_mapping(options), "work": str(work)}
    return ShardTask(shard=shard, folder=str(folder), input=source, options=settings)


def lsh_of(options: DedupeOptions) -> Lsh:
    """The shape of locality-sensitive hashing that the options ask for."""
    if options.permutations:
        return best_lsh(options.threshold, options.permutations, options.seed)
    return Lsh(options.bands, options.rows, options.seed)


def write_layout(work: Path, layout: Layout) -> None:
    """Commit the layout; raises :class:`InputError` for more documents than an index can name."""
    if layout.documents >= MOST_DOCUMENTS:
        raise InputError(f"{layout.documents:,} documents are more than one run can compare ({MOST_DOCUMENTS:,}).")
    nowhere = tuple(msgspec.structs.replace(item, path="") for item in layout.inputs)  # as it was for any other folder
    write_json(work / LAYOUT, msgspec.structs.replace(layout, inputs=nowhere))


def save(path: Path, array: Array) -> None:
    """Write an array as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)


def load(path: Path) -> Array:
    """Map an array that :func:`save` wrote."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(array) if array.size else np.zeros(array.shape, array.dtype)


def key_range(part: int, parts: int) -> tuple[int, int]:
    """The 64-bit keys of partition ``part`` of ``parts``: first, and one beyond the last."""
    return part * 2**64 // parts, (part + 1) * 2**64 // parts


def slice_of(ascending: Array, part: int, parts: int) -> slice:
    """Where the keys of a partition lie in an ascending array."""
    first, beyond = key_range(part, parts)
    stop = ascending.size if beyond >= 2**64 else int(np.searchsorted(ascending, np.uint64(beyond)))
    return slice(int(np.searchsorted(ascending, np.uint64(first))), stop)


def input_folder(work: Path, step: str, shard: int) -> Path:
    """Folder of one input's files of a step."""
    return work / step / f"{shard:05d}"


def runs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """The runs of band keys that signing wrote for one input: files of keys and of rows."""
    number = 0
    while (keys := folder / f"keys-{number:03d}.npy").exists():
        yield keys, folder / f"rows-{number:03d}.npy"
        number += 1


def concatenate(parts: Sequence[Array], kind: Any) -> Array:
    """Concatenate arrays of one type, none of them included."""
    return np.concatenate(parts) if parts else np.empty(0, kind)
