"""Verified greedy selection: walk documents in order of priority, keep each unless a kept one is proven to hold it.

A document is removed only if the exact Jaccard similarity of its shingle set with that of a *kept* document reaches
the threshold (or its containment in one does, where asked for). Removal is never passed on: that A resembles B and B
resembles C says nothing of A and C. Connected components only bound what has to be looked at together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from glm_data.dedupe.options import DedupeOptions
from glm_data.dedupe.sets import Sets, load_sets
from glm_data.dedupe.signatures import band_keys
from glm_data.dedupe.work import CONTAINED, NEAR, REMOVAL, Array, Layout, context, input_folder, load, lsh_of, save
from glm_data.stage import ShardRecord, ShardTask, output_file

_DEVIATIONS = 5.0
"""Standard deviations that an estimate must lie below the threshold to spare the exact comparison (3 in 10 million)."""


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


def select(sets: Sets, bands: Array, priority: Array, options: DedupeOptions) -> Selection:
    """Select among documents that may resemble each other.

    Args:
        sets: their shingle sets and signatures, in order of their index, which breaks ties.
        bands: ``uint64[documents, bands]``; documents are compared if they share a key.
        priority: ``uint64[documents]``, lower is better.
        options: threshold, containment and bucket limit.
    """
    count = priority.size
    order = np.argsort(priority, kind="stable")
    _, buckets = np.unique(bands.ravel(), return_inverse=True)
    partner, shared, rule = np.full(count, -1, np.int64), np.zeros(count, np.int64), np.zeros(count, np.uint8)
    tallies = np.zeros(2, np.int64)
    _select_kernel(
        order,
        buckets.reshape(bands.shape).astype(np.int64),
        sets.hashes,
        sets.offsets,
        sets.signatures,
        (options.threshold, options.containment, margin(options.threshold, sets.signatures.shape[1])),
        options.bucket_limit,
        (partner, shared, rule, tallies),
    )
    return Selection(partner, shared, rule, int(tallies[0]), int(tallies[1]))


def margin(threshold: float, permutations: int) -> float:
    """How far below the threshold a signature's estimate may lie before the pair is not worth comparing."""
    return float(_DEVIATIONS * np.sqrt(max(threshold * (1 - threshold), 0.01) / permutations))


def select_shard(task: ShardTask) -> ShardRecord:
    """Shard function: select within one unit of work."""
    options, work = context(task)
    layout = context(task).layout
    bounds = load(work / "unit_offsets.npy")[task.shard : task.shard + 2]
    documents = load(work / "units.npy")[bounds[0] : bounds[1]]
    sets = load_sets(work, layout, documents)
    bands = band_keys(sets.signatures, lsh_of(options))
    found = select(sets, bands, _priorities(work, layout, documents), options)
    removed = np.flatnonzero(found.partner >= 0)
    sizes = np.diff(sets.offsets)
    removals = np.empty(removed.size, REMOVAL)
    removals["removed"], removals["kept"] = documents[removed], documents[found.partner[removed]]
    removals["shared"], removals["rule"] = found.shared[removed], found.rule[removed]
    removals["size"], removals["kept_size"] = sizes[removed], sizes[found.partner[removed]]
    name = f"{task.shard:05d}.npy"
    save(Path(task.folder) / name, removals)
    counts = {"comparisons": found.comparisons, "crowded": found.crowded}
    files = (output_file(Path(task.folder), name, int(removed.size)),)
    return ShardRecord(shard=task.shard, input=task.input.name, counts=counts, files=files)


def _priorities(work: Path, layout: Layout, documents: Array) -> Array:
    parts = layout.split(documents.astype(np.int64))
    return np.concatenate([load(input_folder(work, "sign", shard) / "priority.npy")[rows] for shard, rows in parts])


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, cache=True)(function)


@_compiled
def count_shared(hashes: Any, a: int, a_end: int, b: int, b_end: int) -> int:
    """Size of the intersection of two ascending sets within ``hashes``."""
    shared = 0
    while a < a_end and b < b_end:
        first, second = hashes[a], hashes[b]
        shared += first == second
        a += first <= second
        b += second <= first
    return shared


@_compiled
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


@_compiled
def _select_kernel(
    order: Any, buckets: Any, hashes: Any, offsets: Any, signatures: Any, limits: Any, bucket_limit: int, out: Any
) -> None:
    """Kept documents hang in one linked list a bucket, newest first."""
    partner, shared, rule, tallies = out
    threshold, containment, _ = limits
    bands = buckets.shape[1]
    head = np.full(buckets.size, -1, np.int64)
    length = np.zeros(buckets.size, np.int64)
    following = np.full(buckets.size, -1, np.int64)
    met_by = np.full(order.size, -1, np.int64)
    rank = np.empty(order.size, np.int64)
    for place in range(order.size):
        document = order[place]
        rank[document] = place
        size = offsets[document + 1] - offsets[document]
        best, best_value, best_rule = -1, 0.0, 0
        for band in range(bands):
            link = head[buckets[document, band]]
            while link >= 0:
                kept = link // bands
                link = following[link]
                if met_by[kept] == document:
                    continue
                met_by[kept] = document
                kept_size = offsets[kept + 1] - offsets[kept]
                if not _is_promising(signatures[document], signatures[kept], size, kept_size, limits):
                    continue
                tallies[0] += 1
                common = count_shared(
                    hashes, offsets[document], offsets[document + 1], offsets[kept], offsets[kept + 1]
                )
                jaccard, contained = common / (size + kept_size - common), common / size
                found, value = 0, 0.0
                if jaccard >= threshold:
                    found, value = NEAR, 2.0 + jaccard  # any near duplicate goes before any container
                elif containment > 0.0 and contained >= containment:
                    found, value = CONTAINED, contained
                if found and (value > best_value or (value == best_value and rank[kept] < rank[best])):
                    best, best_value, best_rule = kept, value, found
                    shared[document] = common
        if best >= 0:
            partner[document], rule[document] = best, best_rule
            continue
        for band in range(bands):
            bucket = buckets[document, band]
            if length[bucket] >= bucket_limit:
                tallies[1] += 1
                continue
            link = document * bands + band
            following[link], head[bucket] = head[bucket], link
            length[bucket] += 1
