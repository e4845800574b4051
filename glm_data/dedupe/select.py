"""Verified greedy selection: walk documents in order of priority, keep each unless a kept one is proven to hold it.

A document is removed only if the exact Jaccard similarity of its shingle set with that of a *kept* document reaches
the threshold (or its containment in one does, where asked for). Removal is never passed on: that A resembles B and B
resembles C says nothing of A and C. Connected components only bound what has to be looked at together.

A component whose shingle sets are too many for memory is walked in pieces: before a piece is walked, its documents meet
what the pieces before it kept, one piece at a time. Two pieces are held at once, and the outcome is that of one walk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.priority import OWN
from glm_data.dedupe.sets import Sets, join_sets, load_sets, load_sizes
from glm_data.dedupe.signatures import band_keys
from glm_data.dedupe.work import CONTAINED, NEAR, REMOVAL, Array, Layout, context, input_folder, load, lsh_of, save
from glm_data.kernels import compiled
from glm_data.stage import ShardRecord, ShardTask, output_file

_DEVIATIONS = 5.0
"""Standard deviations that an estimate must lie below the threshold to spare the exact comparison (3 in 10 million)."""

_SELECT, _KEEP, _OFFER, _MATCH, _PASS = range(5)
"""What a walk does with a document: compare it and keep it if nothing holds it; keep it unseen; let others meet it, as
an earlier piece kept it; compare it only; nothing."""

Loader = Callable[[Array], tuple[Sets, Array]]
"""Shingle sets and band keys (``uint64[documents, bands]``) of some documents of a unit, ascending."""


class Selection(NamedTuple):
    """What greedy selection decided about some documents."""

    partner: Array
    """``int64[documents]``: the kept document each was removed for, -1 for the kept."""
    shared: Array
    """``int64[documents]``: shingles that a removed document and its partner share."""
    rule: Array
    """``uint8[documents]``: NEAR, CONTAINED, or 0 for the kept."""
    comparisons: int
    """Exact comparisons made."""
    crowded: int
    """Kept documents left out of a bucket that was full (``bucket_limit``)."""
    pieces: int
    """Pieces that the walk was cut into."""


class _State(NamedTuple):
    """What is known of documents so far; a piece's part is taken out of the unit's and put back."""

    rank: Array
    """``int64``: place in the walk."""
    partner: Array
    """``int64``: rank of the best partner, or -1."""
    value: Array
    """``float64``: how good that partner is."""
    shared: Array
    """``int64``: shingles that the two share."""
    rule: Array
    """``uint8``: what makes it a partner."""
    offered: Array
    """``bool[documents, bands]``: the buckets in which a kept document can be met."""


def select(load: Loader, sizes: Array, priority: Array, options: DedupeOptions) -> Selection:
    """Select among documents that may resemble each other.

    Args:
        load: gives their shingle sets and band keys; documents are compared if they share a key.
        sizes: ``int64[documents]``, shingles of each.
        priority: ``uint64[documents]``, lower is better, equal ones by index; those without the bit ``OWN`` are kept.
        options: threshold, containment, bucket limit, memory, and the shape of the signatures.
    """
    order = np.argsort(priority, kind="stable")
    walk = _Walk(load, order, np.where(priority & OWN, _SELECT, _KEEP).astype(np.uint8), options)
    pieces = [np.sort(piece) for piece in cut_walk(order, sizes, options)]
    for place, piece in enumerate(pieces):
        walk.do(piece, pieces[:place])
    state = walk.state
    partner = np.where(state.partner >= 0, order[state.partner], -1)
    return Selection(partner, state.shared, state.rule, int(walk.tallies[0]), int(walk.tallies[1]), len(pieces))


def cut_walk(order: Array, sizes: Array, options: DedupeOptions) -> Iterator[Array]:
    """Cut the walk so that two pieces fit the memory that the options allow, if each document does."""
    lsh = lsh_of(options)
    weight = sizes[order] * 8 + lsh.permutations * 4 + lsh.bands * 24
    piece = (np.cumsum(weight) - weight) // (options.memory_mb << 19)
    yield from np.split(order, np.flatnonzero(np.diff(piece)) + 1) if order.size else ()


class _Walk:
    """A walk over the documents of a unit."""

    def __init__(self, load: Loader, order: Array, kinds: Array, options: DedupeOptions) -> None:
        count = order.size
        rank = np.empty(count, np.int64)
        rank[order] = np.arange(count)
        numbers = (np.full(count, -1, np.int64), np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.uint8))
        self.state = _State(rank, *numbers, np.zeros((count, lsh_of(options).bands), np.bool_))
        self.tallies = np.zeros(2, np.int64)
        self._load, self._kinds, self._options = load, kinds, options

    def do(self, piece: Array, before: list[Array]) -> None:
        """Walk one piece, the pieces ``before`` it being done."""
        sets, bands = self._load(piece)
        keys, buckets = np.unique(bands.ravel(), return_inverse=True)
        buckets, lengths = buckets.reshape(bands.shape).astype(np.int64), np.zeros(keys.size, np.int64)
        own, kinds = self._take(piece), self._kinds[piece]
        for earlier in before:
            kept = earlier[self.state.partner[earlier] < 0]
            if kept.size:
                offered = self._load(kept)
                both = join_sets(offered[0], sets), np.concatenate([find_buckets(keys, offered[1]), buckets])
                state = _State(*(np.concatenate(pair) for pair in zip(self._take(kept), own, strict=True)))
                todo = np.where(kinds == _SELECT, _MATCH, _PASS)
                todo = np.concatenate([np.full(kept.size, _OFFER), todo]).astype(np.uint8)
                self._run(todo, *both, lengths, state)
                own = _State(*(field[kept.size :].copy() for field in state))
        self._run(kinds, sets, buckets, lengths, own)
        for field, values in zip(self.state, own, strict=True):
            field[piece] = values

    def _take(self, rows: Array) -> _State:
        return _State(*(field[rows] for field in self.state))

    def _run(self, kinds: Array, sets: Sets, buckets: Array, lengths: Array, state: _State) -> None:
        options = self._options
        limits = options.threshold, options.containment, margin(options.threshold, sets.signatures.shape[1])
        order = np.argsort(state.rank)
        _walk_kernel(
            order, kinds, buckets, tuple(sets), limits, options.bucket_limit, lengths, tuple(state), self.tallies
        )


def find_buckets(keys: Array, bands: Array) -> Array:
    """The place of each band key in ascending ``keys``, or -1."""
    places = np.minimum(np.searchsorted(keys, bands), keys.size - 1)
    return np.where(keys[places] == bands, places, -1).astype(np.int64)


def margin(threshold: float, permutations: int) -> float:
    """How far below the threshold a signature's estimate may lie before the pair is not worth comparing."""
    return float(_DEVIATIONS * np.sqrt(max(threshold * (1 - threshold), 0.01) / permutations))


def select_shard(task: ShardTask) -> ShardRecord:
    """Shard function: select within one unit of work."""
    options, work = context(task)
    layout = context(task).layout
    bounds = load(work / "unit_offsets.npy")[task.shard : task.shard + 2]
    documents = np.asarray(load(work / "units.npy")[bounds[0] : bounds[1]])
    sizes = load_sizes(work, layout, documents)
    found = select(
        functools.partial(_load, work, layout, documents, options),
        sizes,
        _priorities(work, layout, documents),
        options,
    )
    removed = np.flatnonzero(found.partner >= 0)
    removals = np.empty(removed.size, REMOVAL)
    removals["removed"], removals["kept"] = documents[removed], documents[found.partner[removed]]
    removals["shared"], removals["rule"] = found.shared[removed], found.rule[removed]
    removals["size"], removals["kept_size"] = sizes[removed], sizes[found.partner[removed]]
    name = f"{task.shard:05d}.npy"
    save(Path(task.folder) / name, removals)
    counts = {"comparisons": found.comparisons, "crowded": found.crowded}
    files = (output_file(Path(task.folder), name, int(removed.size)),)
    return ShardRecord(shard=task.shard, input=task.input.name, counts=counts, files=files)


def _load(work: Path, layout: Layout, documents: Array, options: DedupeOptions, rows: Array) -> tuple[Sets, Array]:
    sets = load_sets(work, layout, documents[rows])
    return sets, band_keys(sets.signatures, lsh_of(options))


def _priorities(work: Path, layout: Layout, documents: Array) -> Array:
    parts = layout.split(documents.astype(np.int64))
    return np.concatenate([load(input_folder(work, "sign", shard) / "priority.npy")[rows] for shard, rows in parts])


@compiled
def count_shared(hashes: Any, a: int, a_end: int, b: int, b_end: int) -> int:
    """Size of the intersection of two ascending sets within ``hashes``."""
    shared = 0
    while a < a_end and b < b_end:
        first, second = hashes[a], hashes[b]
        shared += first == second
        a += first <= second
        b += second <= first
    return shared


@compiled
def _is_promising(first: Any, second: Any, size: int, kept_size: int, limits: Any) -> Any:
    """Whether sizes and signatures leave the exact similarity a chance to reach a limit.

    A similarity cannot exceed the ratio of sizes. A document of ``size`` shingles contained at ``c`` has a similarity
    of at least ``c * size / (size + kept_size - c * size)``.
    """
    threshold, containment, margin = limits
    least = threshold
    if containment > 0.0 and size <= kept_size:
        inside = containment * size
        least = min(least, inside / (size + kept_size - inside))
    elif min(size, kept_size) < threshold * max(size, kept_size) - 1e-6:
        return False
    equal = 0
    for i in range(first.size):
        equal += first[i] == second[i]
    return equal >= (least - margin) * first.size


@compiled
def _walk_kernel(
    order: Any,
    kinds: Any,
    buckets: Any,
    sets: Any,
    limits: Any,
    bucket_limit: int,
    lengths: Any,
    state: Any,
    tallies: Any,
) -> None:
    """Kept documents hang in one linked list a bucket, newest first; ``lengths`` counts what was ever hung up there."""
    rank, partner, value_of, shared, rule, offered = state
    bands = buckets.shape[1]
    head = np.full(lengths.size, -1, np.int64)
    following = np.full(buckets.size, -1, np.int64)
    met_by = np.full(order.size, -1, np.int64)
    for document in order:
        kind = kinds[document]
        if kind in (_SELECT, _MATCH):
            for band in range(bands):
                link = head[buckets[document, band]]
                while link >= 0:
                    kept = link // bands
                    link = following[link]
                    if met_by[kept] == document:
                        continue
                    met_by[kept] = document
                    found, value, common = _compare(document, kept, sets, limits, tallies)
                    first = partner[document]
                    if found and (value > value_of[document] or (value == value_of[document] and rank[kept] < first)):
                        partner[document], value_of[document] = rank[kept], value
                        shared[document], rule[document] = common, found
        if kind == _KEEP or (kind == _SELECT and partner[document] < 0):
            for band in range(bands):
                offered[document, band] = lengths[buckets[document, band]] < bucket_limit
                tallies[1] += not offered[document, band]
        if kind in (_KEEP, _OFFER) or (kind == _SELECT and partner[document] < 0):
            for band in range(bands):
                bucket = buckets[document, band]
                if bucket >= 0 and offered[document, band]:
                    link = document * bands + band
                    following[link], head[bucket] = head[bucket], link
                    lengths[bucket] += 1


@compiled
def _compare(document: int, kept: int, sets: Any, limits: Any, tallies: Any) -> Any:
    """``(rule or 0, how good, shingles shared)``; any near duplicate goes before any container."""
    hashes, offsets, signatures = sets
    threshold, containment, _ = limits
    size, kept_size = offsets[document + 1] - offsets[document], offsets[kept + 1] - offsets[kept]
    if not _is_promising(signatures[document], signatures[kept], size, kept_size, limits):
        return 0, 0.0, 0
    tallies[0] += 1
    common = count_shared(hashes, offsets[document], offsets[document + 1], offsets[kept], offsets[kept + 1])
    jaccard, contained = common / (size + kept_size - common), common / size
    if jaccard >= threshold:
        return NEAR, 2.0 + jaccard, common
    if containment > 0.0 and contained >= containment:
        return CONTAINED, contained, common
    return 0, 0.0, 0
