"""Which pieces share a row, and which MIP samples are used: decisions on lengths alone."""

from __future__ import annotations

import numpy as np

from glm_data.kernels import compiled
from glm_data.packing.rng import MIP_ORDER, permutation


def choose_amounts(amounts: np.ndarray, wanted: float, repeats: int, seed: int) -> np.ndarray:
    """Choose samples, in a seeded order and at most ``repeats`` times each, whose amounts come nearest to ``wanted``.

    Returns ``int64[n]`` sample numbers. Samples of amount 0 (refused ones) are never chosen.
    """
    candidates = _candidates(amounts, wanted, repeats, seed)
    reached = np.cumsum(amounts[candidates])
    whole = int(np.searchsorted(reached, wanted, "right"))
    gap = wanted - (float(reached[whole - 1]) if whole else 0.0)
    return np.concatenate([candidates[:whole], _fill_gap(candidates[whole:], amounts, gap)])


def _candidates(amounts: np.ndarray, wanted: float, repeats: int, seed: int) -> np.ndarray:
    """Samples in a seeded order, again and again until they hold ``wanted``, but at most ``repeats`` times."""
    order = permutation(seed, len(amounts), MIP_ORDER)
    order = order[amounts[order] > 0]
    if not len(order) or wanted <= 0:
        return np.empty(0, np.int64)
    return np.tile(order, min(repeats, int(wanted // int(amounts[order].sum())) + 1))


def choose_rows(lengths: np.ndarray, rows: int, capacity: int, repeats: int, seed: int) -> np.ndarray:
    """Choose samples that fill ``rows`` rows of ``capacity`` when they are packed best-fit, or what there is.

    As :func:`choose_amounts`, of the first samples in a seeded order as many as fit.
    """
    candidates = _candidates(lengths, float(rows * capacity), repeats, seed)
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high + 1) // 2
        if best_fit(lengths[candidates[:middle]], capacity).max(initial=-1) + 1 <= rows:
            low = middle
        else:
            high = middle - 1
    return candidates[:low]


def _fill_gap(candidates: np.ndarray, lengths: np.ndarray, gap: float) -> np.ndarray:
    """Of ``candidates`` those that fill ``gap`` tokens most nearly: the longest that fits, again and again."""
    left = candidates[np.argsort(lengths[candidates], kind="stable")]
    chosen: list[int] = []
    while len(left):
        at = int(np.searchsorted(lengths[left], gap, "right")) - 1
        if at < 0 and lengths[left[0]] - gap >= gap:
            break
        chosen.append(int(left[max(at, 0)]))
        gap -= int(lengths[chosen[-1]])
        left = np.delete(left, max(at, 0))
    return np.array(chosen, np.int64)


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Best-fit-decreasing (Ding et al. 2024): ``int64[n]``, the bin of each item; bins are numbered as opened."""
    order = np.argsort(-lengths, kind="stable")
    return _best_fit(lengths.astype(np.int64), order, capacity)


@compiled
def _best_fit(lengths: np.ndarray, order: np.ndarray, capacity: int) -> np.ndarray:
    newest = np.full(capacity + 1, -1, np.int64)  # newest open bin with exactly this room
    older = np.full(len(lengths), -1, np.int64)  # the next bin in the same list
    bins = np.empty(len(lengths), np.int64)
    opened = 0
    for item in order:
        room = lengths[item]
        while room <= capacity and newest[room] < 0:
            room += 1
        if room > capacity:
            chosen, room = opened, capacity
            opened += 1
        else:
            chosen = newest[room]
            newest[room] = older[chosen]
        left = room - lengths[item]
        older[chosen], newest[left] = newest[left], chosen
        bins[item] = chosen
    return bins
