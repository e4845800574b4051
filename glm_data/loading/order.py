"""The order of rows as a function: no permutation in memory, any position in O(1), any world size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import uint64

from glm_data.kernels import compiled
from glm_data.packing.rng import make_key, mix

_LOADER_ORDER, _ROUNDS = 100, 6


def shuffled(positions: np.ndarray, rows: int, seed: int, epoch: int = 0) -> np.ndarray:
    """The rows that stand at ``positions`` (``int64[n]``, each below ``rows``) in the order of (seed, epoch).

    A Feistel network over the next even number of bits, walked until it falls below ``rows`` (at most 4 steps on
    average): a bijection of ``range(rows)``.
    """
    half_bits = max(1, (max(2, rows - 1).bit_length() + 1) // 2)
    return _shuffled(np.asarray(positions, np.int64), rows, half_bits, seed, epoch)


def as_packed(positions: np.ndarray, rows: int, seed: int, epoch: int = 0) -> np.ndarray:
    """The order of a pack whose rows follow a ramp: as they were packed in epoch 0, :func:`shuffled` later."""
    positions = np.asarray(positions, np.int64)
    return shuffled(positions, rows, seed, epoch) if epoch else positions


Order = Callable[[np.ndarray, int, int, int], np.ndarray]
"""``(positions, rows, seed, epoch) -> rows``: :func:`shuffled` or :func:`as_packed`."""


def in_order(first: int, last: int, rows: int, seed: int, order: Order = shuffled) -> np.ndarray:
    """``int64[last - first]``: the rows at the places ``first`` to ``last - 1`` of the endless order of ``seed``.

    Epochs follow each other without a gap: place ``p`` is position ``p % rows`` of epoch ``p // rows``.
    """
    parts = []
    while first < last:
        epoch, position = divmod(first, rows)
        count = min(last - first, rows - position)
        parts.append(order(np.arange(position, position + count), rows, seed, epoch))
        first += count
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


@compiled
def _shuffled(positions: np.ndarray, rows: int, half_bits: int, seed: int, epoch: int) -> np.ndarray:
    key = make_key(seed, epoch, 0, _LOADER_ORDER)
    mask = (uint64(1) << uint64(half_bits)) - uint64(1)
    out = np.empty(len(positions), np.int64)
    for index in range(len(positions)):
        value = uint64(positions[index])
        while True:
            left, right = value >> uint64(half_bits), value & mask
            for number in range(_ROUNDS):
                left, right = right, left ^ (mix(key ^ mix(right + (uint64(number) << uint64(40)))) & mask)
            value = (left << uint64(half_bits)) | right
            if value < uint64(rows):
                break
        out[index] = value
    return out
