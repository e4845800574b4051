"""Which document of several stays: the rules of ``keep`` as one number, lower is better.

::

    bit 63      set for documents of this run; those of earlier runs (``against``) go first and never leave
    below       a field a rule in the order of ``keep``, narrow enough that all of them fit together
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data.dedupe.options import MAX_SOURCES, DedupeOptions
from glm_data.dedupe.work import Array

OWN = np.uint64(1 << 63)
"""Set in the priority of every document of this run."""
_BITS = {"source-order": 12, "quality": 24, "longest": 26, "simplified": 1, "id": 0}
_LONGEST, _LOWEST_QUALITY = (1 << _BITS["longest"]) - 1, (1 << _BITS["quality"]) - 1
assert 1 << _BITS["source-order"] == MAX_SOURCES  # noqa: S101 - two modules that must agree


def priorities(batch: pa.RecordBatch, options: DedupeOptions) -> Array:
    """``uint64[documents]``: ranks by the rules of ``keep``, the first in the highest bits.

    Equal ranks are left to the document index, which is the rule ``id``. Lengths count up to 64 MB, quality scores to
    five digits (their first 24 bits as ``float32``).
    """
    rank = np.zeros(batch.num_rows, np.uint64)
    for rule in options.keep:
        rank = (rank << np.uint64(_BITS[rule])) | _rank(rule, batch, options)
    return rank | OWN


def _rank(rule: str, batch: pa.RecordBatch, options: DedupeOptions) -> Array:
    if rule == "id":
        return np.zeros(batch.num_rows, np.uint64)
    if rule == "longest":
        sizes = np.asarray(pc.binary_length(batch.column("text"))).astype(np.uint64)
        return np.uint64(_LONGEST) - np.minimum(sizes, np.uint64(_LONGEST))
    if rule == "quality":
        return rank_scores(quality_scores(batch, options.quality_field))
    if rule == "simplified":
        return np.asarray(pc.equal(batch.column("lang"), "zh-Hant")).astype(np.uint64)
    places = pc.index_in(batch.column("source"), pa.array(options.source_order, pa.string()))
    return np.asarray(pc.fill_null(places, len(options.source_order))).astype(np.uint64)


def quality_scores(batch: pa.RecordBatch, field: str) -> Array:
    """``float32[documents]``: the column ``field``, or that number in ``meta``; NaN where there is none."""
    if field in batch.schema.names:
        return np.asarray(pc.cast(batch.column(field), pa.float32(), safe=False).fill_null(math.nan))
    return np.array([_score(meta, field) for meta in batch.column("meta").to_pylist()], np.float32)


def _score(meta: str, field: str) -> float:
    value = msgspec.json.decode(meta).get(field) if field in meta else None
    return float(value) if isinstance(value, int | float) else math.nan


def rank_scores(scores: Array) -> Array:
    """``uint64[...]``: 0 for the highest score that 24 bits can tell apart; NaN comes last."""
    bits = scores.astype(np.float32).view(np.uint32)
    ascending = np.where(bits >> np.uint32(31), ~bits, bits | np.uint32(1 << 31)) >> np.uint32(8)
    rank = np.uint64(_LOWEST_QUALITY) - ascending.astype(np.uint64)
    return np.where(np.isnan(scores), np.uint64(_LOWEST_QUALITY), rank)
