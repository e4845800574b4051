"""Copies and candidate pairs, searched in one range of keys at a time.

A document meets another through files: band keys lie sorted in each input's runs, a task takes its range of keys out
of every run, sorts, and links the members of a bucket to the first of them (star edges). A bucket of ``n`` documents so
costs ``n - 1`` edges, however large; which pairs are compared is settled later, inside connected components.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from glm_data.dedupe.work import (
    COPY,
    GIANT,
    LAYOUT,
    MOST_DOCUMENTS,
    Array,
    Layout,
    concatenate,
    context,
    input_folder,
    load,
    runs,
    save,
    slice_of,
)
from glm_data.kernels import compiled
from glm_data.stage import ShardRecord, ShardTask, output_file

GIANT_BUCKET = 1000
"""Documents from which a bucket is counted as giant: boilerplate, as a rule."""


def find_copies(high: Array, low: Array, priority: Array, index: Array) -> Array:
    """Copies among documents by their exact keys: ``COPY[copies]``, by copy; the best of equals is the original."""
    order = np.lexsort((index, priority, low, high))
    high, low, index = high[order], low[order], index[order]
    is_first = np.ones(order.size, bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    original = index[is_first][np.cumsum(is_first) - 1]
    copies = np.empty(int((~is_first).sum()), COPY)
    copies["copy"], copies["original"] = index[~is_first], original[~is_first]
    return copies[np.argsort(copies["copy"])]


class Edges(NamedTuple):
    """Star edges of a range of keys."""

    edges: Array
    """``uint64[edges]``: ``first << 32 | other``, ascending, distinct."""
    buckets: int
    """Buckets of two documents or more."""
    giant: Array
    """``GIANT``: those of :data:`GIANT_BUCKET` documents or more."""


def star_edges(keys: Array, index: Array, own: int = MOST_DOCUMENTS) -> Edges:
    """Link the documents of every bucket to the bucket's first; ``index`` ascends wherever keys are equal.

    Buckets without a document below ``own`` are left out: what earlier runs kept is not compared with itself.
    """
    order = np.argsort(keys, kind="stable")
    edges, giant = np.empty(keys.size, np.uint64), np.empty(keys.size // GIANT_BUCKET, GIANT)
    linked, buckets, giants = _star_kernel(keys[order], index[order], own, edges, giant["size"], giant["first"])
    return Edges(np.unique(edges[:linked]), buckets, np.sort(giant[:giants], order=["size", "first"]))


@compiled
def _star_kernel(keys: Any, index: Any, own: int, edges: Any, sizes: Any, firsts: Any) -> Any:
    """Write edges of ascending keys, repeats included, and giant buckets; how many edges, buckets, giant buckets."""
    linked = buckets = giants = start = 0
    while start < keys.size:
        end = start + 1
        while end < keys.size and keys[end] == keys[start]:
            end += 1
        if end - start > 1 and index[start] < own:
            first = np.uint64(index[start]) << np.uint64(32)
            for at in range(start + 1, end):
                edges[linked] = first | np.uint64(index[at])
                linked += 1
            buckets += 1
            if end - start >= GIANT_BUCKET:
                sizes[giants], firsts[giants] = end - start, index[start]
                giants += 1
        start = end
    return linked, buckets, giants


def exact_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the copies of one range of exact keys."""
    _, work = context(task)
    layout = context(task).layout
    columns: list[tuple[Array, Array, Array, Array]] = []
    for shard, start in enumerate(layout.starts[:-1]):
        folder = input_folder(work, "sign", shard)
        high = load(folder / "exact.npy")
        part = slice_of(high, task.shard, task.options["parts"])
        rest = load(folder / "exact_rest.npy")[part]
        columns.append((high[part], rest["low"], load(folder / "priority.npy")[rest["row"]], rest["row"] + start))
    copies = find_copies(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    return _record(task, {"": copies[copies["copy"] < layout.own_documents]})


def bands_shard(task: ShardTask) -> ShardRecord:
    """Shard function: the star edges of one range of band keys, copies left out."""
    _, work = context(task)
    layout, parts = context(task).layout, task.options["parts"]
    pieces = [read_range(work, layout, shard, task.shard, parts) for shard in range(len(layout.inputs))]
    return link_pieces(task, pieces)


def pack_ranges(work: Path, parts: int, shard: int) -> Iterator[tuple[int, bytes]]:
    """Yield one input's part in every range of keys, as bytes for a runner's shuffle: input, keys, documents."""
    layout = msgspec.json.decode((work / LAYOUT).read_bytes(), type=Layout)
    for part in range(parts):
        keys, index = read_range(work, layout, shard, part, parts)
        yield part, shard.to_bytes(4, "big") + keys.tobytes() + index.tobytes()


def shuffled_bands_shard(task: ShardTask, pieces: Sequence[bytes]) -> ShardRecord:
    """As :func:`bands_shard`, of what :func:`pack_ranges` gave to every input, in the order of inputs."""
    return link_pieces(task, [_unpack(piece) for piece in pieces])


def _unpack(piece: bytes) -> tuple[Array, Array]:
    count = (len(piece) - 4) // 12
    return np.frombuffer(piece, np.uint64, count, 4), np.frombuffer(piece, np.uint32, count, 4 + 8 * count)


def link_pieces(task: ShardTask, pieces: Sequence[tuple[Array, Array]]) -> ShardRecord:
    """Write the star edges of one range of keys, given as ``(keys, index)`` of each input, in the order of inputs."""
    _, work = context(task)
    keys = concatenate([keys for keys, _ in pieces], np.uint64)
    index = concatenate([index for _, index in pieces], np.uint32)
    is_kept = ~is_member(index, load(work / "copies.npy")["copy"])
    found = star_edges(keys[is_kept], index[is_kept], context(task).layout.own_documents)
    counts = {"buckets": found.buckets, "giant_buckets": int(found.giant.size), "edges": int(found.edges.size)}
    return _record(task, {"": found.edges, "-giant": found.giant}, counts)


def read_range(work: Path, layout: Layout, shard: int, part: int, parts: int) -> tuple[Array, Array]:
    """One input's band keys in a range of keys, and the documents they belong to (``uint64[n]``, ``uint32[n]``)."""
    all_keys, all_index = [], []
    for keys_path, rows_path in runs(input_folder(work, "sign", shard)):
        keys = load(keys_path)
        inside = slice_of(keys, part, parts)
        all_keys.append(keys[inside])
        all_index.append((load(rows_path)[inside] + layout.starts[shard]).astype(np.uint32))
    return concatenate(all_keys, np.uint64), concatenate(all_index, np.uint32)


def is_member(values: Array, ascending: Array) -> Array:
    """Whether each value occurs in an ascending array."""
    if not ascending.size:
        return np.zeros(values.size, bool)
    places = np.searchsorted(ascending, values)
    return np.asarray(ascending[np.minimum(places, ascending.size - 1)] == values)


def _record(task: ShardTask, arrays: dict[str, Array], counts: dict[str, int] | None = None) -> ShardRecord:
    files = []
    for suffix, array in arrays.items():
        name = f"{task.shard:05d}{suffix}.npy"
        save(Path(task.folder) / name, array)
        files.append(output_file(Path(task.folder), name, int(array.size)))
    return ShardRecord(shard=task.shard, input=task.input.name, counts=counts or {}, files=tuple(files))


def read_giants(work: Path, parts: int) -> Array:
    """The giant buckets of all key ranges, one a first document (``GIANT``), the largest first."""
    giants = np.concatenate([load(work / "bands" / f"{part:05d}-giant.npy") for part in range(parts)])
    giants = giants[np.lexsort((giants["first"], -giants["size"].astype(np.int64)))]
    _, places = np.unique(giants["first"], return_index=True)
    return giants[np.sort(places)]


def merge_distinct(work: Path, step: str, parts: int) -> Array:
    """The distinct values of all key ranges, one range at a time."""
    merged = np.empty(0, np.uint64)
    for part in range(parts):
        merged = np.union1d(merged, load(work / step / f"{part:05d}.npy"))
    return merged


def components(edges: Array) -> tuple[Array, Array]:
    """Connected components: ``(documents, labels)``, documents ascending, a label the smallest document in it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, other = edges >> np.uint64(32), edges & np.uint64(0xFFFFFFFF)
    nodes = np.union1d(first, other)
    if not nodes.size:
        return np.empty(0, np.uint32), np.empty(0, np.uint32)
    ends = np.searchsorted(nodes, first), np.searchsorted(nodes, other)
    graph = coo_array((np.ones(edges.size, bool), ends), shape=(nodes.size, nodes.size))
    _, numbers = connected_components(graph, directed=False)
    smallest = np.full(int(numbers.max()) + 1, nodes.size, np.int64)
    np.minimum.at(smallest, numbers, np.arange(nodes.size))
    return nodes.astype(np.uint32), nodes[smallest[numbers]].astype(np.uint32)
