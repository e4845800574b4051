"""Packed shards to batches: memory-mapped rows, an order that is a function, NumPy first."""

from glm_data.loading.batch import Batch, Positions, Weighting
from glm_data.loading.loader import Loader, LoaderOptions, Step
from glm_data.loading.mixture import MixPoint, ramp
from glm_data.loading.order import shuffled
from glm_data.loading.rows import PackedRows
from glm_data.loading.state import LoaderState, SkipRange

__all__ = [
    "Batch",
    "Loader",
    "LoaderOptions",
    "LoaderState",
    "MixPoint",
    "PackedRows",
    "Positions",
    "SkipRange",
    "Step",
    "Weighting",
    "ramp",
    "shuffled",
]
