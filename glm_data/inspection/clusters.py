"""Clusters of duplicates: the documents that one kept document stands for, and which sources they came from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data.dedupe.work import Layout, input_folder, load
from glm_data.errors import InputError
from glm_data.formats.parquet import read_batches


class Removed(msgspec.Struct, frozen=True):
    """A removed document and how much it resembles the kept one."""

    id: str
    jaccard: float
    containment: float
    rule: str


class Cluster(msgspec.Struct, frozen=True):
    """A kept document and what was removed for it."""

    kept: str
    documents: int
    """Its documents, the kept one included."""
    rules: dict[str, int]
    removed: tuple[Removed, ...]
    """Some of the removed, the least similar first."""


class Overlap(msgspec.Struct, frozen=True):
    """How many documents of one source were removed for documents of another."""

    sources: tuple[str, ...]
    documents: tuple[int, ...]
    """Documents of each source before the run."""
    removed: tuple[tuple[int, ...], ...]
    """``removed[i][j]``: of source ``i``, for a kept document of source ``j``."""


def largest_clusters(table: Path, most: int, shown: int = 3) -> list[Cluster]:
    """The ``most`` clusters with most documents of a run's ``duplicates.parquet``, with ``shown`` removals each.

    Memory grows with the removals' ids alone; equal sizes are in order of the kept document's id.
    """
    kept = pq.read_table(table, columns=["kept"]).column("kept")
    counts = pc.value_counts(kept)
    ids, sizes = counts.field("values"), counts.field("counts").to_numpy()
    order = np.lexsort((pc.rank(ids, sort_keys="ascending").to_numpy(), -sizes))[:most]
    largest = ids.take(pa.array(order))
    rows = pq.read_table(table, filters=pc.field("kept").isin(largest))
    return [_cluster(id, rows.filter(pc.equal(rows.column("kept"), id)), shown) for id in largest.to_pylist()]


def _cluster(kept: str, rows: pa.Table, shown: int) -> Cluster:
    rules = {item["values"]: item["counts"] for item in pc.value_counts(rows.column("rule")).to_pylist()}
    least = rows.sort_by([("jaccard", "ascending"), ("removed", "ascending")]).slice(0, shown).to_pylist()
    removed = tuple(Removed(row["removed"], row["jaccard"], row["containment"], row["rule"]) for row in least)
    return Cluster(kept, rows.num_rows + 1, dict(sorted(rules.items())), removed)


def source_overlap(work: Path) -> Overlap:
    """The overlap of sources from what a run left in its work folder; :class:`InputError` if that is gone."""
    try:
        layout = msgspec.json.decode((work / "layout.json").read_bytes(), type=Layout)
        removals = load(work / "removals.npy")
        names, codes = _sources(work, layout)
    except (OSError, ValueError, msgspec.DecodeError, pa.ArrowException):
        raise InputError(
            f"the overlap of sources cannot be told, as '{work}' is gone or damaged; run that stage again."
        ) from None
    size = len(names)
    pairs = codes[removals["removed"]].astype(np.int64) * size + codes[removals["kept"]]
    matrix = np.bincount(pairs, minlength=size * size).reshape(size, size)
    documents = np.bincount(codes, minlength=size)
    order = sorted(range(size), key=lambda place: (-documents[place], names[place]))
    return Overlap(
        tuple(names[place] for place in order),
        tuple(documents[order].tolist()),
        tuple(tuple(row) for row in matrix[np.ix_(order, order)].tolist()),
    )


def _sources(work: Path, layout: Layout) -> tuple[list[str], np.ndarray]:
    """Names of the sources, and ``int32[documents]``: the source of every document, by its index."""
    names: dict[str, int] = {}
    codes = np.empty(layout.documents, np.int32)
    place = 0
    for shard in range(len(layout.rows)):
        for batch in read_batches(input_folder(work, "sign", shard) / "documents.parquet", ["source"]):
            encoded = batch.column("source").dictionary_encode()
            own = [names.setdefault(name, len(names)) for name in encoded.dictionary.to_pylist()]
            codes[place : place + batch.num_rows] = np.array(own, np.int32)[encoded.indices.to_numpy()]
            place += batch.num_rows
    return list(names), codes
