"""Where a loader stands, small enough for any checkpoint, and rows that it passes over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.loading.order import Order, in_order, shuffled

RowOrder = Literal["shuffled", "packed"]
"""``packed``: the first epoch as the packer put the rows, which is what a ramp of the pack asks for."""

_AHEAD = 64
"""Places looked at beyond the expected ones, so that one look is enough most often."""


class PackPlace(Config, frozen=True):
    """How far the order of one pack was read. Rows that a skip list passes over count as read."""

    digest: Annotated[str, Doc("of the pack's manifest: two packs of one digest hold the same rows")]
    rows: Annotated[int, Doc("rows of the pack")]
    epoch: Annotated[int, Doc("how often the pack was read to its end")]
    position: Annotated[int, Doc("rows of the order of this epoch that were read")]
    order: Annotated[RowOrder, Doc("what the order of the first epoch is")] = "shuffled"


class LoaderState(Config, frozen=True):
    """Everything that decides what comes next, whatever the number of ranks and workers.

    ``glm_data.config.to_mapping`` and ``from_mapping`` turn it into plain values for JSON and back.
    """

    seed: Annotated[int, Doc("seed of the order and of the mix")]
    samples: Annotated[int, Doc("rows given out so far, over all packs and ranks")]
    packs: Annotated[tuple[PackPlace, ...], Doc("one a pack")]


class SkipRange(Config, frozen=True):
    """Rows ``first`` to ``end - 1`` of a pack, as ``glm-data inspect`` numbers them: never to be given out."""

    first: int
    end: int
    pack: int = 0


class PackOrder:
    """The endless order of one pack's rows without those of ``skips``; raises :class:`UsageError` as told below.

    The order is that of all rows, and skipped ones are passed over: a skip list changed in the middle of a run moves
    nothing that stands before or behind the skipped rows.
    """

    def __init__(self, rows: int, seed: int, skips: Sequence[SkipRange] = (), order: Order = shuffled) -> None:
        self.rows, self.seed, self.order = rows, seed, order
        for skip in skips:
            if not 0 <= skip.first < skip.end <= rows:
                raise UsageError(
                    f"the rows {skip.first}:{skip.end} to skip are not in pack {skip.pack}, which has {rows} rows; "
                    "give FIRST:END with FIRST below END."
                )
        self._starts, self._ends = _merged(skips)
        self.skipped = int((self._ends - self._starts).sum())
        if self.skipped == rows:
            raise UsageError(f"all {rows} rows of a pack are to be skipped; leave some or leave out the pack.")

    def is_skipped(self, rows: np.ndarray) -> np.ndarray:
        """``bool[n]``: whether each of ``rows`` is passed over."""
        if not self.skipped:
            return np.zeros(len(rows), bool)
        before = np.searchsorted(self._starts, rows, "right") - 1
        return (before >= 0) & (rows < self._ends[before])

    def take(self, place: int, count: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The next ``count`` rows (``int64[count]``) from ``place`` of the order on, the epoch of each, and the place
        behind them."""
        if not self.skipped:
            rows = in_order(place, place + count, self.rows, self.seed, self.order)
            return rows, np.arange(place, place + count) // self.rows, place + count
        parts = [np.empty((2, 0), np.int64)]
        while count:
            ahead = count * self.rows // (self.rows - self.skipped) + _AHEAD
            rows = in_order(place, place + ahead, self.rows, self.seed, self.order)
            kept = np.flatnonzero(~self.is_skipped(rows))[:count]
            parts.append(np.stack([rows[kept], (place + kept) // self.rows]))
            count -= len(kept)
            place += ahead if count else int(kept[-1]) + 1
        rows, epochs = np.concatenate(parts, 1)
        return rows, epochs, place


def _merged(skips: Sequence[SkipRange]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the ranges in rising order, overlaps joined."""
    merged: list[list[int]] = []
    for first, end in sorted((skip.first, skip.end) for skip in skips):
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([first, end])
    pairs = np.array(merged, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
