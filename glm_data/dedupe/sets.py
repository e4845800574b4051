"""Second pass over an input, for candidates only: their shingle sets and signatures; and units of work from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glm_data.dedupe.index import read_sets
from glm_data.dedupe.sign import is_earlier
from glm_data.dedupe.signatures import signatures
from glm_data.dedupe.spool import read_rows
from glm_data.dedupe.work import Array, Layout, concatenate, context, input_folder, load, lsh_of, save
from glm_data.files import atomic_path
from glm_data.stage import ShardRecord, ShardTask, output_file
from glm_data.text.shingles import distinct_sorted, shingle_texts

UNIT_HASHES = 1 << 22
"""Shingles after which a unit of work is closed (32 MB); a larger component is a unit of its own."""
_WEIGHT_OF_DOCUMENT = 64
"""What a document adds to its unit beside its shingles: its signature."""


class Sets(NamedTuple):
    """Shingle sets of some documents, with their signatures."""

    hashes: Array
    """``uint64``: the sets one after the other, each ascending."""
    offsets: Array
    """``int64[documents + 1]``."""
    signatures: Array
    """``uint32[documents, permutations]``."""


def sets_shard(task: ShardTask) -> ShardRecord:
    """Shard function: shingle sets of one input's candidates."""
    work, layout = context(task).work, context(task).layout
    rows = candidate_rows(work, layout, task.shard)
    folder = input_folder(work, "sets", task.shard)
    sizes, minima = [], []
    with atomic_path(folder / "hashes.bin") as temporary, temporary.open("wb") as handle:
        for sets in _sets_of_index(task, rows) if is_earlier(task) else _sets_of_input(task, rows):
            sets.hashes.tofile(handle)
            sizes.append(np.diff(sets.offsets))
            minima.append(sets.signatures)
    offsets = np.concatenate([[0], np.cumsum(concatenate(sizes, np.int64))]).astype(np.int64)
    save(folder / "offsets.npy", offsets)
    save(folder / "signatures.npy", concatenate(minima, np.uint32))
    names = [f"{folder.name}/{name}" for name in ("hashes.bin", "offsets.npy", "signatures.npy")]
    files = tuple(output_file(Path(task.folder), name) for name in names)
    counts = {"candidates": int(rows.size), "shingles": int(offsets[-1])}
    return ShardRecord(shard=task.shard, input=task.input.name, counts=counts, files=files)


def _sets_of_input(task: ShardTask, rows: Array) -> Iterator[Sets]:
    options, work = context(task)
    for texts in read_rows(work, task.shard, task.input, options, rows):
        found = distinct_sorted(shingle_texts(texts, **options.shingling))
        yield Sets(*found, signatures(found, lsh_of(options)))


def _sets_of_index(task: ShardTask, rows: Array) -> Iterator[Sets]:
    for sets, minima in read_sets(Path(task.input.path), rows):
        yield Sets(np.asarray(sets.flatten()), np.asarray(sets.offsets).astype(np.int64), minima)


def candidate_rows(work: Path, layout: Layout, shard: int) -> Array:
    """Rows of one input that are candidates, ascending."""
    candidates = load(work / "candidates.npy")
    start, stop = np.searchsorted(candidates, layout.starts[shard : shard + 2])
    return candidates[start:stop].astype(np.int64) - layout.starts[shard]


def load_sets(work: Path, layout: Layout, documents: Array) -> Sets:
    """Sets and signatures of some candidates, by ascending document index."""
    hashes, sizes, minima = [], [], []
    for shard, rows in layout.split(documents.astype(np.int64)):
        folder = input_folder(work, "sets", shard)
        places = np.searchsorted(candidate_rows(work, layout, shard), rows)
        offsets = load(folder / "offsets.npy")
        stored = np.asarray(np.memmap(folder / "hashes.bin", np.uint64, "r"))  # whose slices cost little
        hashes += [stored[offsets[place] : offsets[place + 1]] for place in places]
        sizes.append(offsets[places + 1] - offsets[places])
        minima.append(load(folder / "signatures.npy")[places])
    offsets = np.concatenate([[0], np.cumsum(concatenate(sizes, np.int64))]).astype(np.int64)
    return Sets(concatenate(hashes, np.uint64), offsets, concatenate(minima, np.uint32))


def load_sizes(work: Path, layout: Layout, documents: Array) -> Array:
    """``int64[documents]``: how many shingles some candidates have, by ascending document index."""
    sizes = []
    for shard, rows in layout.split(documents.astype(np.int64)):
        places = np.searchsorted(candidate_rows(work, layout, shard), rows)
        sizes.append(np.diff(load(input_folder(work, "sets", shard) / "offsets.npy"))[places])
    return concatenate(sizes, np.int64)


def join_sets(first: Sets, second: Sets) -> Sets:
    """The documents of both, those of ``first`` before."""
    return Sets(
        np.concatenate([first.hashes, second.hashes]),
        np.concatenate([first.offsets, first.offsets[-1] + second.offsets[1:]]),
        np.concatenate([first.signatures, second.signatures]),
    )


def pack_units(labels: Array, sizes: Array, limit: int = UNIT_HASHES) -> tuple[Array, Array]:
    """Put whole components together to units of work.

    Args:
        labels: component of every candidate, by candidate.
        sizes: shingles of every candidate.
        limit: shingles after which a unit is closed.

    Returns:
        ``(order, offsets)``: candidates ``order[offsets[i]:offsets[i + 1]]`` are unit ``i``, ascending inside.
    """
    by_component = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_component], prepend=-1))
    if not starts.size:
        return by_component, np.zeros(1, np.int64)
    weight = np.add.reduceat(sizes[by_component] + _WEIGHT_OF_DOCUMENT, starts)
    unit = (np.cumsum(weight) - weight) // limit
    first_component = np.flatnonzero(np.diff(unit, prepend=-1))
    offsets = np.append(starts[first_component], labels.size).astype(np.int64)
    pieces = [np.sort(by_component[a:b]) for a, b in itertools.pairwise(offsets)]
    return np.concatenate(pieces), offsets
