"""The index of evaluation items: their grams, and for each the items that hold it.

Within a benchmark an item that repeats another gram by gram is left out, and a gram of more than ``common_items`` items
(an instruction before every question) is left out of all of them. An item shorter than a gram is known by its short
grams, all of which must be found; one too short even for those cannot be looked for, and is counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.decontaminate.items import Evaluation, Item, read_items
from glm_data.files import atomic_path
from glm_data.text.grams import Lookup, Shape, gram_hashes, make_lookup

Array = npt.NDArray[Any]
_CHUNK = 2048
_SECOND = np.uint64(0xE7037ED1A0B428DB)
_ARRAYS = ("hashes", "offsets", "postings", "sizes", "short", "benchmark_of", "ids", "benchmarks", "counts", "shape")

COUNTS = ("items", "copies", "too_short", "common", "common_grams", "short", "grams")
"""What is counted of a benchmark: items in its files; of these left out as copies, as too short, for want of a gram
that is not common; common grams; items known by short grams; distinct grams in the index."""


@dataclass(frozen=True, eq=False)
class Index:
    """Grams by number, in the order of their hashes, and items by number."""

    shape: Shape
    hashes: Array
    """``uint64[grams]``, ascending."""
    offsets: Array
    """``int64[grams + 1]``: the items of gram ``g`` are ``postings[offsets[g]:offsets[g + 1]]``."""
    postings: Array
    sizes: Array
    """``int32[items]``: distinct grams of each item."""
    short: Array
    """``bool[items]``: known by short grams."""
    benchmark_of: Array
    """``int32[items]``: place of each item's benchmark in ``benchmarks``."""
    ids: Array
    benchmarks: Array
    counts: Array
    """``int64[benchmarks, COUNTS]``."""

    @functools.cached_property
    def lookup(self) -> Lookup:
        """The hashes with their filter."""
        return make_lookup(self.shape, self.hashes)


def build_index(evaluation: Evaluation, shape: Shape, common_items: int) -> Index:
    """Read all items and index them; raises as :func:`glm_data.decontaminate.items.read_items`."""
    parts = [_index_benchmark(name, evaluation, shape, common_items) for name in evaluation.benchmarks]
    starts = np.cumsum([0, *(part.sizes.size for part in parts)])
    hashes = np.concatenate([part.hashes for part in parts])
    items = np.concatenate([part.items + start for part, start in zip(parts, starts, strict=False)])
    order = np.lexsort((items, hashes))
    distinct, first = np.unique(hashes[order], return_index=True)
    return Index(
        shape=shape,
        hashes=distinct,
        offsets=np.append(first, hashes.size).astype(np.int64),
        postings=items[order].astype(np.int32),
        sizes=np.concatenate([part.sizes for part in parts]),
        short=np.concatenate([part.short for part in parts]),
        benchmark_of=np.repeat(np.arange(len(parts), dtype=np.int32), [part.sizes.size for part in parts]),
        ids=np.array([id for part in parts for id in part.ids], np.str_),
        benchmarks=np.array(evaluation.benchmarks, np.str_),
        counts=np.array([part.counts for part in parts], np.int64),
    )


class _Part(NamedTuple):
    """One benchmark's index: (hash, item) pairs and the items that are left."""

    hashes: Array
    items: Array
    sizes: Array
    short: Array
    ids: list[str]
    counts: list[int]


def _index_benchmark(name: str, evaluation: Evaluation, shape: Shape, common_items: int) -> _Part:
    ids: list[str] = []
    found = [
        _grams_of(chunk, shape, ids)
        for source in evaluation.sources
        if source.benchmark == name
        for chunk in _chunks(read_items(source))
    ]
    hashes, items, is_short = (np.concatenate(column) for column in zip(*found, strict=True))
    total = len(ids)
    has_full = np.bincount(items[~is_short], minlength=total) > 0
    wanted = ~(is_short & has_full[items])
    hashes, items = _distinct(hashes[wanted], items[wanted])
    has_any = np.bincount(items, minlength=total) > 0
    stays = _first_of_copies(hashes, items, total)
    copies = int(np.count_nonzero(has_any & ~stays))
    hashes, items = hashes[stays[items]], items[stays[items]]
    _, place, shared_by = np.unique(hashes, return_inverse=True, return_counts=True)
    rare = shared_by[place] <= common_items
    hashes, items = hashes[rare], items[rare]
    sizes = np.bincount(items, minlength=total)
    left = np.flatnonzero(sizes)
    number = np.cumsum(sizes > 0) - 1
    counts = [
        total, copies, int(np.count_nonzero(~has_any)), int(np.count_nonzero(stays & has_any)) - left.size,
        int(np.count_nonzero(shared_by > common_items)), int(np.count_nonzero(~has_full[left])),
        int(np.count_nonzero(shared_by <= common_items)),
    ]  # fmt: skip
    return _Part(
        hashes, number[items], sizes[left].astype(np.int32), ~has_full[left], [ids[item] for item in left], counts
    )


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _grams_of(chunk: list[Item], shape: Shape, ids: list[str]) -> tuple[Array, Array, Array]:
    """Hash, item and shortness of every gram of some items, whose ids are appended to ``ids``."""
    first = len(ids)
    ids += [item.id for item in chunk]
    item_of = np.repeat(np.arange(first, len(ids)), [len(item.texts) for item in chunk])
    grams = gram_hashes(pa.array([text for item in chunk for text in item.texts], pa.large_string()), shape)
    counts = np.diff(grams.offsets)
    return grams.hashes, np.repeat(item_of, counts), np.repeat(grams.short, counts)


def _distinct(hashes: Array, items: Array) -> tuple[Array, Array]:
    """Distinct pairs, by hash, then item."""
    order = np.lexsort((items, hashes))
    hashes, items = hashes[order], items[order]
    is_new = np.ones(hashes.size, bool)
    is_new[1:] = (hashes[1:] != hashes[:-1]) | (items[1:] != items[:-1])
    return hashes[is_new], items[is_new]


def _first_of_copies(hashes: Array, items: Array, total: int) -> Array:
    """Which items have a set of grams that no earlier one has: ``bool[total]``."""
    keys = np.zeros((total, 2), np.uint64)
    np.add.at(keys[:, 0], items, hashes)
    np.add.at(keys[:, 1], items, (hashes ^ hashes >> np.uint64(31)) * _SECOND)
    _, first = np.unique(keys, axis=0, return_index=True)
    stays = np.zeros(total, bool)
    stays[first] = True
    return stays & (np.bincount(items, minlength=total) > 0)


def save_index(path: Path, index: Index) -> None:
    """Write an index atomically; the same bytes for the same index."""
    arrays = {name: np.asarray(getattr(index, name)) for name in _ARRAYS}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@functools.lru_cache(maxsize=1)
def load_index(path: Path, key: str) -> Index:
    """Read an index that :func:`save_index` wrote, once a process; ``key`` tells runs apart that use one folder."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in _ARRAYS}
    words, characters, short = found.pop("shape").tolist()
    return Index(shape=Shape(int(words), int(characters), short), **found)
