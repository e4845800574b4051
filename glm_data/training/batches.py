"""What the trainer reads: rows from any source, flattened to the tokens that are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from glm_data.errors import ConfigError
from glm_data.loading.batch import Positions
from glm_data.model.attention import Group, lay_out
from glm_data.model.config import ModelConfig
from glm_data.model.flash import parts_apart

KINDS = ("gmask", "mask", "mip", "smask")
"""Names of the kinds of pieces, by number."""

IntArray = np.ndarray[Any, Any]
OrderFunction = Callable[[IntArray, int, int, int], IntArray]
"""``(positions, rows, seed, epoch) -> rows``: which of ``range(rows)`` stand at ``positions`` in an epoch's order."""


class Batch(Protocol):
    """Rows as loading gives them: arrays ``[B, S]`` and per row its pieces ``int32[P, 4]`` (start, sep, end, kind)."""

    @property
    def tokens(self) -> IntArray:
        """Token ids, int32."""

    @property
    def targets(self) -> IntArray:
        """What is to be predicted at each position, int32."""

    @property
    def position_ids(self) -> IntArray:
        """Positions, int32."""

    @property
    def block_position_ids(self) -> IntArray | None:
        """Positions within spans, int32, for a model of 2-D positions."""

    @property
    def loss_mask(self) -> IntArray:
        """1 where the target counts, uint8."""

    @property
    def pieces(self) -> Sequence[IntArray]:
        """The pieces of each row."""


class Rows(Protocol):
    """A source of rows that can be read in any order."""

    def __len__(self) -> int:
        """Number of rows."""

    def batch(
        self, indices: Sequence[int], /, *, epoch: IntArray | int = 0, positions: Positions = "glm-130b"
    ) -> Batch:
        """The rows ``indices``, in that order, with the masks of ``epoch`` (one for all, or one a row)."""


@dataclass(frozen=True)
class FlatBatch:
    """A batch as the network takes it: T tokens of all pieces, P of them predict."""

    tokens_T: Tensor
    positions_T: Tensor
    groups: tuple[Group, ...]
    predict_P: Tensor
    targets_P: Tensor
    kind_P: IntArray
    row_P: IntArray
    piece_P: IntArray
    rows: int
    longest: int
    """Tokens of a row: no piece is longer."""
    apart: bool = False
    """Whether parts A of all pieces come first, see ``model/flash.py``."""

    @property
    def computed(self) -> int:
        """Tokens of pieces; what the T tokens hold beyond them is padding."""
        return sum(group.number * group.size for group in self.groups)

    def to(self, device: torch.device) -> FlatBatch:
        """The same with its tensors on ``device``."""
        names = ("tokens_T", "positions_T", "predict_P", "targets_P")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})

    def parts_apart(self) -> FlatBatch:
        """The same tokens with the parts A of all pieces first, then the parts B, then padding."""
        order = np.append(parts_apart(self.groups), np.arange(self.computed, len(self.tokens_T)))
        place = torch.from_numpy(np.argsort(order))
        index = torch.from_numpy(order)
        return replace(
            self,
            tokens_T=self.tokens_T[index],
            positions_T=self.positions_T[..., index],
            predict_P=place[self.predict_P],
            apart=True,
        )


def positions_of(config: ModelConfig) -> Positions:
    """Which positions a model takes."""
    return "glm-130b" if config.positions == "rotary" else "glm-2d"


def check_width(config: ModelConfig, tokens: int) -> None:
    """Raise :class:`ConfigError` if rows of ``tokens`` are longer than the tables of positions of ``config``."""
    if config.positions == "learned-2d" and tokens > config.longest:
        raise ConfigError(
            f"rows of {tokens} tokens are longer than the model's table of {config.longest} positions; pack rows of at "
            f"most {config.longest - 1} tokens."
        )


def flatten(batch: Batch, tokens: int = 0) -> FlatBatch:
    """Lay a batch out piece after piece, padding left out (see ``model/attention.py``).

    ``tokens`` is the least T: padding that is kept at the end, for code that wants one shape for all batches.
    """
    width = batch.tokens.shape[1]
    layout = lay_out(batch.pieces, width)
    index = layout.index_T
    padding = max(0, tokens - len(index))

    def pick(array: IntArray) -> IntArray:
        return array.reshape(-1)[index].astype(np.int64)

    def padded(array: IntArray) -> torch.Tensor:
        return torch.from_numpy(np.pad(pick(array), (0, padding)))

    predict = np.flatnonzero(pick(batch.loss_mask))
    positions = padded(batch.position_ids)
    if batch.block_position_ids is not None:
        positions = torch.stack([positions, padded(batch.block_position_ids)])
    return FlatBatch(
        tokens_T=padded(batch.tokens),
        positions_T=positions,
        groups=layout.groups,
        predict_P=torch.from_numpy(predict),
        targets_P=torch.from_numpy(pick(batch.targets)[predict]),
        kind_P=layout.kind_T[predict],
        row_P=index[predict] // width,
        piece_P=layout.piece_T[predict],
        rows=len(batch.tokens),
        longest=width,
    )


def split_rows(rows: int, held_out: int) -> tuple[IntArray, IntArray]:
    """Row numbers to train on and to hold out; the latter spread evenly over the pack."""
    kept_back = (np.arange(held_out) * rows) // max(1, held_out) + rows // max(1, 2 * held_out)
    return np.setdiff1d(np.arange(rows), kept_back), kept_back


def rows_of_samples(
    first: int, end: int, training: IntArray, seed: int, order: OrderFunction
) -> tuple[IntArray, IntArray]:
    """Row numbers of the samples ``first`` to ``end - 1`` and the epoch of each: a function of the sample alone, so
    that a resumed run sees the same, whatever its batches are.

    Epochs follow each other without a gap; a batch may end one and begin the next.
    """
    size = len(training)
    samples = np.arange(first, end)
    found = np.empty(len(samples), np.int64)
    for epoch in np.unique(samples // size):
        here = samples // size == epoch
        found[here] = order(samples[here] % size, size, seed, int(epoch))
    return training[found], samples // size


def in_batches(indices: IntArray, size: int) -> Iterator[list[int]]:
    """Row numbers in runs of at most ``size``."""
    for first in range(0, len(indices), size):
        yield [int(index) for index in indices[first : first + size]]
