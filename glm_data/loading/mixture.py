"""Which pack a sample comes from: weights over samples as a schedule, and a draw for each sample number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from glm_data.config import Config, Doc
from glm_data.errors import UsageError
from glm_data.kernels import compiled
from glm_data.packing.rng import draw, make_key

_MIXTURE = 101
"""Purpose of the draws, apart from the packer's and the order's."""


class MixPoint(Config, frozen=True):
    """Weights of the packs at one sample. Between two points they change linearly, outside of them they stay."""

    sample: Annotated[int, Doc("number of the sample, from 0")]
    weights: Annotated[tuple[float, ...], Doc("one a pack: its share of the samples, in any unit")]


def ramp(before: Sequence[float], after: Sequence[float], first: int, samples: int) -> tuple[MixPoint, MixPoint]:
    """A linear change of weights over ``samples`` samples from sample ``first`` on.

    GLM-130B changed over 2,000 steps when its instruction data changed.
    """
    return MixPoint(first, tuple(before)), MixPoint(first + samples, tuple(after))


class Mixture:
    """A schedule of weights over ``packs`` packs; raises :class:`UsageError` for one that cannot be meant."""

    def __init__(self, points: Sequence[MixPoint], packs: int, seed: int) -> None:
        for point in points:
            _check_point(point, packs)
        self.samples = np.array([point.sample for point in points], np.int64)
        if len(points) == 0 or (np.diff(self.samples) <= 0).any():
            raise UsageError("the points of a mix must be one or more with rising sample numbers; put them in order.")
        weights = np.array([point.weights for point in points], np.float64)
        self.shares = weights / weights.sum(1, keepdims=True)
        self.seed = seed

    def shares_at(self, sample: int) -> np.ndarray:
        """``float64[packs]``: the share of each pack at ``sample``; they sum to 1."""
        return np.array([np.interp(sample, self.samples, column) for column in self.shares.T])

    def packs_of(self, first: int, count: int) -> np.ndarray:
        """``int64[count]``: the pack of each of the samples ``first``, ``first + 1``, ...: a function of the seed."""
        if self.shares.shape[1] == 1:
            return np.zeros(count, np.int64)
        return _choose(first, count, self.samples, self.shares, self.seed)


def _check_point(point: MixPoint, packs: int) -> None:
    if len(point.weights) != packs:
        raise UsageError(
            f"the mix at sample {point.sample} has {len(point.weights)} weights for {packs} packs; give one a pack."
        )
    if not all(math.isfinite(weight) and weight >= 0 for weight in point.weights) or sum(point.weights) <= 0:
        raise UsageError(
            f"the mix at sample {point.sample} has the weights {', '.join(map(str, point.weights))}; "
            "give numbers from 0 up, one of them above 0."
        )
    if point.sample < 0:
        raise UsageError(f"a mix cannot begin at sample {point.sample}; the first is 0.")


@compiled
def _choose(first: int, count: int, samples: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    out = np.empty(count, np.int64)
    point, last = 0, len(samples) - 1
    for index in range(count):
        sample = first + index
        while point < last and samples[point + 1] <= sample:
            point += 1
        part = 0.0
        if point < last and sample > samples[point]:
            part = (sample - samples[point]) / (samples[point + 1] - samples[point])
        after = min(point + 1, last)
        left = draw(make_key(seed, sample, 0, _MIXTURE), 0) * (1.0 / 4294967296.0)
        chosen = -1
        for pack in range(shares.shape[1]):
            share = shares[point, pack] + part * (shares[after, pack] - shares[point, pack])
            if share > 0.0:
                chosen = pack  # rounding may leave a little over the last share: it goes to a pack that has one
                left -= share
                if left < 0.0:
                    break
        out[index] = chosen
    return out
