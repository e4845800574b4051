"""What de-duplication removed, in numbers and by example."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import GlmDataError, InputError
from glm_data.inspection import FinishedStage, largest_clusters, locate_inputs, source_overlap
from glm_data.inspection.lookup import find_documents
from glm_data.manifest import Success

TABLE = "duplicates.parquet"
BINS = 10
EXAMPLES = 8
_CLUSTERS = 5
_SOURCES = 14
_EXCERPT = 160


def summarise_duplicates(folder: Path, success: Success, plan: dict[str, Any]) -> dict[str, Any]:
    """Removals by rule and by similarity, the largest clusters, sources by sources, and the least similar pairs.

    Texts are shown only of parquet inputs, in which a document is found without reading the others.
    """
    summary: dict[str, Any] = {
        "removed": sum(success.dropped.values()),
        "by_rule": success.dropped,
        "facts": success.facts,
        "similarity": [0] * BINS,
        "examples": [],
        "clusters": [],
        "overlap": None,
        "excerpts": {},
    }
    if any(item.name == TABLE for item in success.files):
        summary |= _read_table(folder / TABLE)
        summary["clusters"] = [
            {"kept": cluster.kept, "documents": cluster.documents, "least": cluster.removed[0].jaccard}
            for cluster in largest_clusters(folder / TABLE, _CLUSTERS, shown=1)
        ]
        summary["overlap"] = _overlap(folder)
        summary["excerpts"] = _excerpts(FinishedStage(folder, plan, success), _named(summary))
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


def _overlap(folder: Path) -> dict[str, Any] | None:
    """How many documents of a source went for those of another, the sources with most of them; None if not kept."""
    try:
        found = source_overlap(folder / "_work")
    except InputError:
        return None
    matrix = np.array(found.removed, np.int64).reshape(len(found.sources), len(found.sources))
    moved = matrix.sum(0) + matrix.sum(1)
    order = [int(place) for place in np.argsort(-moved, kind="stable")[:_SOURCES] if moved[place]]
    return {
        "sources": [found.sources[place] for place in order],
        "documents": [found.documents[place] for place in order],
        "removed": matrix[np.ix_(order, order)].tolist(),
        "left_out": int((moved > 0).sum()) - len(order),
    }


def _named(summary: dict[str, Any]) -> Iterable[str]:
    for row in summary["examples"]:
        yield from (row["removed"], row["kept"])
    for cluster in summary["clusters"]:
        yield cluster["kept"]


def _excerpts(stage: FinishedStage, ids: Iterable[str]) -> dict[str, str]:
    """How the texts of some documents begin, in one line each."""
    with contextlib.suppress(GlmDataError, OSError, pa.ArrowException):
        inputs = [item for item in locate_inputs(stage) if item.path.endswith(".parquet")]
        found = find_documents(inputs, sorted(set(ids))) if inputs else {}
        return {id: _shorten(row["text"].split()) for id, row in sorted(found.items())}
    return {}


def _shorten(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= _EXCERPT else line[:_EXCERPT] + "…"
