"""Which items stand in which texts, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.decontaminate.index import Index
from glm_data.text.grams import Places, find_grams

Array = npt.NDArray[Any]


class Hits(NamedTuple):
    """Pairs of a text and an item that share grams, by text, then item; equally long arrays."""

    texts: Array
    items: Array
    found: Array
    """Distinct grams of the item in the text that are evidence."""
    common: Array
    """The same, of those that are common in the corpus and so are none."""
    is_hit: Array
    """Whether the item counts as found in the text."""
    is_spared: Array
    """Whether it would if common grams were evidence."""


class Regions(NamedTuple):
    """Where hits stand: bytes ``starts`` to ``ends`` of ``texts``, by text, item and place; equally long arrays."""

    texts: Array
    items: Array
    starts: Array
    ends: Array
    firsts: Array
    """End of the first gram of a region, to quote it."""


def search(
    texts: pa.Array, index: Index, containment: float = 0.5, common: Array | None = None
) -> tuple[Hits, Regions]:
    """Find the items of ``index`` in a string array's texts.

    An item is found if the share ``containment`` of its grams stands in the text, of a short item all of them.
    ``common: bool[grams]`` marks grams that are no evidence.
    """
    places = find_grams(texts, index.lookup, bool(index.short.any()))
    return judge(places, index, containment, np.zeros(index.hashes.size, bool) if common is None else common)


def judge(places: Places, index: Index, containment: float, common: Array) -> tuple[Hits, Regions]:
    """As :func:`search`, for grams that were found."""
    sizes = np.diff(index.offsets)[places.grams]
    at = np.repeat(np.arange(sizes.size), sizes)
    within = np.arange(at.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    items = index.postings[index.offsets[places.grams[at]] + within].astype(np.int64)
    keys = places.texts[at].astype(np.int64) * max(1, index.sizes.size) + items
    hits = _hits(keys, places.grams[at], index, containment, common)
    hit_keys = (hits.texts * max(1, index.sizes.size) + hits.items)[hits.is_hit]
    chosen = np.isin(keys, hit_keys) & ~common[places.grams[at]]
    return hits, _regions(keys[chosen], at[chosen], items[chosen], places)


def _hits(keys: Array, grams: Array, index: Index, containment: float, common: Array) -> Hits:
    order = np.lexsort((grams, keys))
    keys, grams = keys[order], grams[order]
    is_new = np.ones(keys.size, bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (grams[1:] != grams[:-1])
    pairs, place = np.unique(keys[is_new], return_inverse=True)
    is_common = common[grams[is_new]]
    found = np.bincount(place[~is_common], minlength=pairs.size)
    spread = np.bincount(place[is_common], minlength=pairs.size)
    texts, items = np.divmod(pairs, max(1, index.sizes.size))
    needed = np.where(index.short[items], index.sizes[items], np.ceil(index.sizes[items] * containment - 1e-9))
    is_hit = found >= np.maximum(needed, 1)
    return Hits(texts, items, found, spread, is_hit, ~is_hit & (found + spread >= np.maximum(needed, 1)))


def _regions(keys: Array, at: Array, items: Array, places: Places) -> Regions:
    """Join grams of one pair that overlap or touch."""
    order = np.lexsort((places.starts[at], keys))
    keys, at, items = keys[order], at[order], items[order]
    starts, ends = places.starts[at], places.ends[at]
    begins = np.ones(keys.size, bool)
    begins[1:] = (keys[1:] != keys[:-1]) | (starts[1:] > ends[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], keys.size) - 1 if first.size else first
    return Regions(places.texts[at[first]], items[first], starts[first], ends[last], ends[first])
