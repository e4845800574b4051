"""Which pieces share a row, and which MIP samples are used: decisions on lengths alone."""

from __future__ import annotations

import numpy as np
from numba import njit

from glm_data.packing.rng import MIP_ORDER, permutation


def choose_mip(lengths: np.ndarray, wanted_tokens: float, repeats: int, seed: int) -> np.ndarray:
    """Choose samples, in a seeded order and at most ``repeats`` times each, whose tokens come nearest to the wanted.

    Returns ``int64[n]`` sample numbers. Samples of length 0 (refused ones) are never chosen.
    """
    order = permutation(seed, len(lengths), MIP_ORDER)
    order = order[lengths[order] > 0]
    if not len(order) or wanted_tokens <= 0:
        return np.empty(0, np.int64)
    total = int(lengths[order].sum())
    rounds = min(repeats, int(wanted_tokens // total) + 1)
    candidates = np.tile(order, rounds)
    reached = np.cumsum(lengths[candidates])
    whole = int(np.searchsorted(reached, wanted_tokens, "right"))
    gap = wanted_tokens - (float(reached[whole - 1]) if whole else 0.0)
    return np.concatenate([candidates[:whole], _fill_gap(candidates[whole:], lengths, gap)])


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


@njit(cache=True)
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
