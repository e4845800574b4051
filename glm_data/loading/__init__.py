"""Packed shards to batches: memory-mapped rows, an order that is a function, NumPy first."""

from glm_data.loading.order import shuffled
from glm_data.loading.rows import Batch, PackedRows

__all__ = ["Batch", "PackedRows", "shuffled"]
