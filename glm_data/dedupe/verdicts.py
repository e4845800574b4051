"""What selection and exact copies come to for every document of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from glm_data.dedupe.work import COPY, EXACT, REMOVAL, Array, Layout, concatenate, input_folder, load
from glm_data.formats.parquet import read_batches


def settle(copies: Array, selected: Array) -> Array:
    """All removals of a run (``REMOVAL``, by removed document): those selected, and the copies.

    A copy of a kept document is removed for it, by the rule EXACT. A copy of a removed document has that document's
    shingles, so it is removed for the same kept document, with the same figures and rule.
    """
    selected = selected[np.argsort(selected["removed"])]
    originals = copies["original"]
    places = np.minimum(np.searchsorted(selected["removed"], originals), max(selected.size - 1, 0))
    is_passed_on = selected["removed"][places] == originals if selected.size else np.zeros(copies.size, bool)
    settled = np.zeros(copies.size, REMOVAL)
    settled[is_passed_on] = selected[places[is_passed_on]]
    direct = ~is_passed_on
    settled["kept"][direct], settled["rule"][direct] = originals[direct], EXACT
    settled["removed"] = copies["copy"]
    for field in ("shared", "size", "kept_size"):
        settled[field][direct] = 1  # equal keys: equal sets, whatever their size
    together = np.concatenate([selected, settled])
    return together[np.argsort(together["removed"])]


def multiplicities(removals: Array, weights: Array) -> Array:
    """``uint32[documents]``: how many documents each kept one stands for, itself included; 0 for the removed."""
    counts = weights.astype(np.int64)
    np.add.at(counts, removals["kept"], weights[removals["removed"]].astype(np.int64))
    counts[removals["removed"]] = 0
    return np.minimum(counts, np.iinfo(np.uint32).max).astype(np.uint32)


def read_weights(work: Path, layout: Layout) -> Array:
    """``uint32[documents]``: how many documents each stood for before this run."""
    parts = []
    for shard in range(len(layout.inputs)):
        for batch in read_batches(input_folder(work, "sign", shard) / "documents.parquet", ["weight"]):
            parts.append(np.asarray(batch.column("weight")))
    return concatenate(parts, np.uint32)


def read_copies(work: Path, parts: int) -> Array:
    """The copies of all key ranges, by copy."""
    copies = concatenate([load(work / "exact" / f"{part:05d}.npy") for part in range(parts)], COPY)
    return copies[np.argsort(copies["copy"])]


def read_selected(work: Path, units: int) -> Array:
    """The removals of all units, as selected."""
    return concatenate([load(work / "select" / f"{unit:05d}.npy") for unit in range(units)], REMOVAL)
