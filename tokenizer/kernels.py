"""Compiled parts that encoding and counting share: reading UTF-8, and open hash tables of integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from glm_data.kernels import compiled

CODE_POINTS = 0x110000
"""Also what is read where there is no UTF-8."""

_ASCII = 0x80
KEY_FACTOR = 0x9E3779B97F4A7C1


@compiled
def slot(key: int, slots: np.ndarray) -> int:
    """Where ``key`` is or would be."""
    mask = len(slots) - 1
    at = (key * KEY_FACTOR >> 20) & mask
    while slots[at] != key and slots[at] != -1:
        at = (at + 1) & mask
    return at


@compiled
def read_point(text: np.ndarray, at: int, end: int) -> tuple[Any, int]:
    """The code point at ``at`` and its bytes; (``CODE_POINTS``, 1) for what is not UTF-8."""
    first = np.int64(text[at])
    if first < _ASCII:
        return first, 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC0 or at + size > end:
        return CODE_POINTS, 1
    point = (first & (0x7F >> size)) << 6 | (text[at + 1] & 0x3F)
    if size > 2:
        point = point << 6 | (text[at + 2] & 0x3F)
    if size > 3:
        point = point << 6 | (text[at + 3] & 0x3F)
    if point >= CODE_POINTS:
        return CODE_POINTS, 1
    return point, size
