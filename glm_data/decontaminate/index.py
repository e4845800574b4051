"""The index of evaluation items: their grams, and for each the items that hold it.

Within a benchmark an item that repeats another gram by gram is left out, and a gram of more than ``common_items`` items
(an instruction before every question) is left out of all of them. An item shorter than a gram is known by its short
grams, all of which must be found; one too short even for those cannot be looked for, and is counted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.decontaminate.items import Evaluation, Item, read_items
from glm_data.files import atomic_path
from glm_data.text.grams import MOST_TOKENS, Lookup, Shape, gram_hashes, make_lookup

Array = npt.NDArray[Any]
_CHUNK = 2048
_SECOND = np.uint64(0xE7037ED1A0B428DB)
_ARRAYS = (
    "hashes", "offsets", "items", "firsts", "ends", "sizes", "short", "benchmark_of", "ids", "benchmarks", "counts",
    "shape",
)  # fmt: skip
GRAM = np.dtype([("hash", "<u8"), ("item", "<i4"), ("first", "<i4"), ("end", "<i4")])
"""A gram of an item: from its token ``first`` on, before ``end``."""

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
    """``int64[grams + 1]``: gram ``g`` stands in ``items[offsets[g]:offsets[g + 1]]``, and there from token ``firsts``
    to ``ends``."""
    items: Array
    firsts: Array
    ends: Array
    sizes: Array
    """``int32[items]``: tokens of each item that its grams cover."""
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
        """The hashes with their filters."""
        return make_lookup(self.shape, self.hashes, self.short[self.items[self.offsets[:-1]]])


def build_index(evaluation: Evaluation, shape: Shape, common_items: int) -> Index:
    """Read all items and index them; raises as :func:`glm_data.decontaminate.items.read_items`."""
    return index_items({name: _items_of(name, evaluation) for name in evaluation.benchmarks}, shape, common_items)


def _items_of(benchmark: str, evaluation: Evaluation) -> Iterator[Item]:
    for source in evaluation.sources:
        if source.benchmark == benchmark:
            yield from read_items(source)


def index_items(by_benchmark: Mapping[str, Iterable[Item]], shape: Shape, common_items: int) -> Index:
    """Index items, of each benchmark by itself."""
    parts = [_index_benchmark(items, shape, common_items) for items in by_benchmark.values()]
    for start, part in zip(np.cumsum([0, *(part.sizes.size for part in parts)]), parts, strict=False):
        part.grams["item"] += start
    grams = _in_order(np.concatenate([part.grams for part in parts]))
    first = np.flatnonzero(_is_new(grams, "hash"))
    return Index(
        shape=shape,
        hashes=np.ascontiguousarray(grams["hash"][first]),
        offsets=np.append(first, grams.size).astype(np.int64),
        items=np.ascontiguousarray(grams["item"]),
        firsts=np.ascontiguousarray(grams["first"]),
        ends=np.ascontiguousarray(grams["end"]),
        sizes=np.concatenate([part.sizes for part in parts]),
        short=np.concatenate([part.short for part in parts]),
        benchmark_of=np.repeat(np.arange(len(parts), dtype=np.int32), [part.sizes.size for part in parts]),
        ids=np.array([id for part in parts for id in part.ids], np.str_),
        benchmarks=np.array(list(by_benchmark), np.str_),
        counts=np.array([part.counts for part in parts], np.int64),
    )


class _Part(NamedTuple):
    """One benchmark's index: grams (hash, item, first token, end) and the items that are left."""

    grams: Array
    sizes: Array
    short: Array
    ids: list[str]
    counts: list[int]


def _index_benchmark(items: Iterable[Item], shape: Shape, common_items: int) -> _Part:
    ids: list[str] = []
    found = [_grams_of(chunk, shape, ids) for chunk in _chunks(items)] or [_grams_of([], shape, ids)]
    grams, is_short = (np.concatenate(column) for column in zip(*found, strict=True))
    total = len(ids)
    has_full = np.bincount(grams["item"][~is_short], minlength=total) > 0
    grams = _in_order(grams[~(is_short & has_full[grams["item"]])])
    has_any = np.bincount(grams["item"], minlength=total) > 0
    stays = _first_of_copies(grams[_is_new(grams, "hash", "item")], total)
    copies = int(np.count_nonzero(has_any & ~stays))
    grams = grams[stays[grams["item"]]]
    place = np.cumsum(_is_new(grams, "hash")) - 1
    shared_by = np.bincount(place[_is_new(grams, "hash", "item")])
    grams = grams[shared_by[place] <= common_items]
    sizes = covered(grams["item"], grams["first"], grams["end"], total)
    left = np.flatnonzero(sizes)
    grams["item"] = (np.cumsum(sizes > 0) - 1)[grams["item"]]
    counts = [
        total, copies, int(np.count_nonzero(~has_any)), int(np.count_nonzero(stays)) - left.size,
        int(np.count_nonzero(shared_by > common_items)), int(np.count_nonzero(~has_full[left])),
        int(np.count_nonzero(shared_by <= common_items)),
    ]  # fmt: skip
    return _Part(grams, sizes[left].astype(np.int32), ~has_full[left], [ids[item] for item in left], counts)


def covered(keys: Array, firsts: Array, ends: Array, total: int) -> Array:
    """How many tokens the stretches ``firsts`` to ``ends`` of each key, from 0 to ``total``, cover together."""
    order = np.lexsort((firsts, keys))
    apart = keys[order].astype(np.int64) * (int(ends.max(initial=0)) + 1)
    firsts, ends = apart + firsts[order], apart + ends[order]
    reached = np.maximum.accumulate(np.concatenate([[-1], ends]))[:-1]
    new = np.maximum(ends - np.maximum(firsts, reached), 0)
    return np.bincount(keys[order], new, total).astype(np.int64)


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _grams_of(chunk: list[Item], shape: Shape, ids: list[str]) -> tuple[Array, Array]:
    """The grams of some items, whose ids are appended to ``ids``, and whether each is short."""
    first = len(ids)
    ids += [item.id for item in chunk]
    texts = [text for item in chunk for text in item.texts]
    item_of = np.repeat(np.arange(first, len(ids)), [len(item.texts) for item in chunk])
    grams = gram_hashes(pa.array(texts, pa.large_string()), shape)
    counts = np.diff(grams.offsets)
    room = np.cumsum(counts + MOST_TOKENS + 1) - (counts + MOST_TOKENS + 1)  # the texts of an item lie apart
    room -= room[np.searchsorted(item_of, item_of)]
    rows = np.empty(grams.hashes.size, GRAM)
    rows["hash"], rows["item"] = grams.hashes, np.repeat(item_of, counts)
    rows["first"] = np.arange(rows.size) - np.repeat(grams.offsets[:-1] - room, counts)
    rows["end"] = grams.ends + np.repeat(room, counts)
    return rows, np.repeat(grams.short, counts)


def _in_order(grams: Array) -> Array:
    """Grams by hash; those of one hash in the order they had, which is that of items and tokens."""
    return grams[np.argsort(grams["hash"], kind="stable")]


def _is_new(grams: Array, *fields: str) -> Array:
    """Which of sorted grams differ from the one before in one of ``fields``."""
    is_new = np.zeros(grams.size, bool)
    is_new[:1] = True
    for field in fields:
        is_new[1:] |= grams[field][1:] != grams[field][:-1]
    return is_new


def _first_of_copies(grams: Array, total: int) -> Array:
    """Which items have a set of grams, and one that no earlier item has: ``bool[total]``."""
    hashes, items = grams["hash"], grams["item"]
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
