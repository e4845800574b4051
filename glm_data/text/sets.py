"""Hash sets and counters in arrays that live as long as a block, emptied by a change of owner and not by clearing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.text.compiled import compiled

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Base of polynomial hashes."""
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def new_set(items: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Room for ``items`` hashes of one owner: keys, and the owner that each was put in for."""
    size = 1 << max(4, (2 * items).bit_length())
    return np.zeros(size, np.uint64), np.full(size, -1, np.int64)


@compiled
def mask_for(items: int, slots: int) -> int:
    """A mask for at least twice ``items`` slots, so that small documents stay in the cache."""
    size = 16
    while size < 2 * items and size < slots:
        size *= 2
    return size - 1


@compiled
def spread(value: Any) -> Any:
    """Mix a 64-bit hash so that all of its bits depend on all."""
    value ^= value >> np.uint64(32)
    value *= _MIX
    return value ^ (value >> np.uint64(32))


@compiled
def put(key: Any, owner: int, keys: NDArray[np.uint64], owners: NDArray[np.int64], mask: int) -> bool:
    """Put ``key`` into the set of ``owner``; whether it was there already."""
    slot = np.int64(key & np.uint64(mask))
    while owners[slot] == owner:
        if keys[slot] == key:
            return True
        slot = (slot + 1) & mask
    owners[slot] = owner
    keys[slot] = key
    return False
