"""What de-duplication removed, in numbers and by example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from glm_data.manifest import Success

TABLE = "duplicates.parquet"
BINS = 10
EXAMPLES = 8


def summarise_duplicates(folder: Path, success: Success) -> dict[str, Any]:
    """Removals by rule, a histogram of their Jaccard similarity in tenths, and the least similar pairs."""
    summary: dict[str, Any] = {
        "removed": sum(success.dropped.values()),
        "by_rule": success.dropped,
        "facts": success.facts,
        "similarity": [0] * BINS,
        "examples": [],
    }
    if any(item.name == TABLE for item in success.files):
        summary |= _read_table(folder / TABLE)
    return summary


def _read_table(path: Path) -> dict[str, Any]:
    histogram = np.zeros(BINS, np.int64)
    borderline: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(use_threads=False):
            jaccard = batch.column("jaccard").to_numpy()
            histogram += np.histogram(jaccard, BINS, (0.0, 1.0))[0]
            lowest = np.argsort(jaccard, kind="stable")[:EXAMPLES]
            borderline += batch.take(lowest).to_pylist()
            borderline = sorted(borderline, key=lambda row: (row["jaccard"], row["removed"]))[:EXAMPLES]
    return {"similarity": histogram.tolist(), "examples": borderline}
