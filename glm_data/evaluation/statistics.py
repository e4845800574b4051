"""Scores with the interval that they hold with 95 % confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Z_95 = 1.959963984540054
RESAMPLES = 1000
_BLOCK = 50


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A measured value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    items: int


def accuracy(correct: Any) -> Estimate:
    """The share of true in ``correct``, with Wilson's interval."""
    n = len(correct)
    p = float(np.mean(correct)) if n else 0.0
    if not n:
        return Estimate(value=0.0, low=0.0, high=1.0, items=0)
    middle = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
    return Estimate(value=p, low=max(0.0, middle - half), high=min(1.0, middle + half), items=n)


def mean_share(shares: Any) -> Estimate:
    """The mean of numbers from 0 to 1, one an item; the interval by resampling items."""
    values = np.asarray(shares, np.float64)
    if not len(values):
        return Estimate(value=0.0, low=0.0, high=1.0, items=0)
    low, high = np.quantile(_resampled(values, np.ones(len(values))), [0.025, 0.975])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), items=len(values))


def bits_per_byte(nats: Floats, sizes: Floats) -> Estimate:
    """Bits a byte of documents that cost ``nats`` and have ``sizes`` bytes; the interval by resampling documents."""
    return _score(float(nats.sum() / sizes.sum()), _resampled(nats, sizes), len(nats))


def weighted_bits_per_byte(parts: Mapping[str, tuple[Floats, Floats]], weights: Mapping[str, float]) -> Estimate:
    """The mean of the parts' bits a byte by ``weights``, each part resampled by itself."""
    total = sum(weights[name] for name in parts)
    value = sum(weights[name] * float(nats.sum() / sizes.sum()) for name, (nats, sizes) in parts.items()) / total
    draws = sum((weights[name] * _resampled(nats, sizes) for name, (nats, sizes) in parts.items()), np.zeros(RESAMPLES))
    return _score(value, draws / total, sum(len(nats) for nats, _ in parts.values()))


def _score(nats_per_byte: float, draws: Floats, items: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975]) / math.log(2)
    return Estimate(value=nats_per_byte / math.log(2), low=float(low), high=float(high), items=items)


def _resampled(nats: Floats, sizes: Floats) -> Floats:
    """Nats a byte of :data:`RESAMPLES` draws of as many documents, always the same draws."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES // _BLOCK):  # in blocks: a draw is as long as the documents are many
        counts = rng.multinomial(len(nats), np.full(len(nats), 1 / len(nats)), _BLOCK)
        found.append((counts @ nats) / (counts @ sizes))
    return np.concatenate(found)
