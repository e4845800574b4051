"""What every format holds of a row, and the types of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from glm_data.loading.batch import Batch
from glm_data.loading.rows import PackedRows

DENSE = ("input_ids", "targets", "position_ids", "loss_mask", "segments")
"""Columns of one value a place, in the order in which formats list them."""
_ROWS_AT_ONCE = 64


def batches(pack: PackedRows, first: int, last: int) -> Iterator[Batch]:
    """The rows ``first`` to ``last - 1`` assembled, a few at a time."""
    for start in range(first, last, _ROWS_AT_ONCE):
        yield pack.batch(np.arange(start, min(start + _ROWS_AT_ONCE, last)))


def dense(batch: Batch) -> dict[str, np.ndarray]:
    """The columns :data:`DENSE`, ``[B, L]`` each."""
    return {
        "input_ids": batch.tokens,
        "targets": batch.targets,
        "position_ids": batch.position_ids,
        "loss_mask": batch.loss_mask,
        "segments": batch.segments,
    }
