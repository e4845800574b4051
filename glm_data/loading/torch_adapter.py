"""A loader for a plain ``torch.utils.data.DataLoader``: the only file of this room that imports torch.

::

    data = DataLoader(TorchBatches(loader), batch_size=None, num_workers=2)
    for batch in data:
        ...                                 # batch["input_ids"], batch["targets"], ...
        checkpoint["data"] = to_mapping(batch["state"])
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from glm_data.loading.loader import Loader, Step


class TorchBatches(IterableDataset[dict[str, Any]]):
    """Steps of a loader as mappings of tensors, the same stream for any number of workers.

    Every iteration begins where ``loader`` stands (:meth:`Loader.resume` moves it), since what workers have fetched
    says nothing about what was trained: go on from the ``state`` of the last batch that was.
    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self.loader = loader

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for step in self.loader.steps(self.loader.state(), number, workers):
            yield to_torch(step)


def to_torch(step: Step) -> dict[str, Any]:
    """Tensors over the step's own arrays, nothing copied; ``state`` is the loader's state behind it.

    ``[B, L]``: ``input_ids``, ``targets``, ``position_ids`` int32, ``loss_mask`` uint8, ``loss_weights`` float32,
    ``segments`` int16. ``pieces`` int32 ``[P, 4]`` with ``piece_offsets`` int64 ``[B + 1]``. ``packs``, ``rows``
    and ``epochs`` int64 ``[B]``.
    """
    batch = step.batch
    arrays = {
        "input_ids": batch.tokens,
        "targets": batch.targets,
        "position_ids": batch.position_ids,
        "loss_mask": batch.loss_mask,
        "loss_weights": batch.loss_weights,
        "segments": batch.segments.view(np.int16),
        "pieces": batch.piece_table,
        "piece_offsets": batch.piece_offsets,
        "packs": step.packs,
        "rows": step.rows,
        "epochs": step.epochs,
    }
    if batch.block_position_ids is not None:
        arrays["block_position_ids"] = batch.block_position_ids
    return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, "state": step.state}
