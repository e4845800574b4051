"""Which items stand in which texts, and where."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.decontaminate.index import Index, covered
from glm_data.text.grams import Places, find_grams

Array = npt.NDArray[Any]


class Hits(NamedTuple):
    """Pairs of a text and an item that share grams, common ones included, by text, then item; equally long arrays."""

    texts: Array
    items: Array
    covered: Array
    """Tokens of the item that grams found in the text cover."""
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

    An item is found if grams that stand in the text cover the share ``containment`` of its tokens, a short one all.
    ``common: bool[grams]`` marks grams that are no evidence.
    """
    places = find_grams(texts, index.lookup)
    return judge(places, index, containment, np.zeros(index.hashes.size, bool) if common is None else common)


def judge(places: Places, index: Index, containment: float, common: Array) -> tuple[Hits, Regions]:
    """As :func:`search`, for grams that were found."""
    sizes = np.diff(index.offsets)[places.grams]
    at = np.repeat(np.arange(sizes.size), sizes)
    where = index.offsets[places.grams[at]] + np.arange(at.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    items, stretch = index.items[where].astype(np.int64), (index.firsts[where], index.ends[where])
    pairs, pair = np.unique(places.texts[at].astype(np.int64) * max(1, index.sizes.size) + items, return_inverse=True)
    hits = _hits(pairs, pair, stretch, common[places.grams[at]], index, containment)
    chosen = hits.is_hit[pair] & ~common[places.grams[at]]
    return hits, _regions(pair[chosen], at[chosen], items[chosen], places)


def _hits(
    pairs: Array, pair: Array, stretch: tuple[Array, Array], is_common: Array, index: Index, containment: float
) -> Hits:
    texts, items = np.divmod(pairs, max(1, index.sizes.size))
    firsts, ends = stretch
    rare = ~is_common
    shown = covered(pair[rare], firsts[rare], ends[rare], pairs.size)
    needed = np.where(index.short[items], index.sizes[items], np.ceil(index.sizes[items] * containment - 1e-9))
    is_hit = shown >= np.maximum(needed, 1)
    return Hits(texts, items, shown, is_hit, ~is_hit & (covered(pair, firsts, ends, pairs.size) >= needed))


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
