"""Hashes, and hash tables in arrays that live as long as a block and are emptied for each document."""

from __future__ import annotations

from typing import Any

import numpy as np

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import first_bytes

BASE = np.uint64(0x9E3779B97F4A7C15)
"""Base of polynomial hashes."""
_MIX = np.uint64(0xFF51AFD7ED558CCD)


@compiled
def mask_for(items: int, slots: int) -> int:
    """A mask for at least twice ``items`` slots, so that small documents stay in the cache."""
    size = 16
    while size < 2 * items and size < slots:
        size *= 2
    return size - 1


@inlined
def spread(value: Any) -> Any:
    """Mix a 64-bit hash so that all of its bits depend on all."""
    value ^= value >> np.uint64(32)
    value *= _MIX
    return value ^ (value >> np.uint64(32))


@inlined
def hash_bytes(data: Any, start: int, end: int, limit: int) -> Any:
    """A hash of the bytes from ``start`` to ``end``, and of their number; ``data`` is a pointer to ``limit`` bytes."""
    hashed = np.uint64(end - start) * _MIX
    while end - start > 8:
        hashed = (hashed ^ first_bytes(data, start, 8, limit)) * BASE
        hashed ^= hashed >> np.uint64(29)
        start += 8
    return spread((hashed ^ first_bytes(data, start, end - start, limit)) * BASE)


@inlined
def hash_few_bytes(packed: Any, size: int) -> Any:
    """:func:`hash_bytes` of up to eight bytes in one number, whose higher bytes are zero."""
    return spread((np.uint64(size) * _MIX ^ packed) * BASE)


@compiled
def empty_table(table: Any, slots: int, items: int) -> int:
    """Empty as much of a hash table of so many ``slots`` (a pointer) as ``items`` hashes need; returns the mask of the
    slots used."""
    mask = mask_for(items, slots)
    for slot in range(mask + 1):
        table[slot] = 0
    return mask


@inlined
def put_once(key: Any, table: Any, mask: int) -> bool:
    """Put a hash into a table; whether it was there already."""
    key |= np.uint64(1)
    slot = np.int64(key >> np.uint64(20)) & mask
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + 1) & mask
    table[slot] = key
    return False
