"""Counter-based randomness: every draw is a pure function of a key and a counter, so order of work never matters.

The generator is SplitMix64 (Steele, Lea, Flood 2014) read at a counter instead of stepped; keys are chained through its
finaliser. Draws below ``n`` use the multiply-shift reduction of a 32-bit draw (bias below ``n / 2**32``). All words are
``uint64``: mixed with a signed integer numba would silently go to float64, hence the casts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from glm_data.kernels import compiled

_GAMMA = np.uint64(0x9E3779B97F4A7C15)

ROW_KIND, PIECE, DOCUMENT_ORDER, MIP_ORDER, MIP_POSITION, ROW_ORDER, EXTRA_COPY = range(1, 8)
"""Purposes: the last word of a key, so that draws for different ends are independent."""


@compiled
def mix(value: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64: a bijection on 64-bit words."""
    word = uint64(value)
    word = (word ^ (word >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> uint64(27))) * uint64(0x94D049BB133111EB)
    return word ^ (word >> uint64(31))


@compiled
def make_key(seed: int, first: int, second: int, purpose: int) -> np.uint64:
    """The key of (seed, first, second, purpose), such as (seed, row, piece, PIECE)."""
    key = mix(uint64(seed) + _GAMMA)
    key = mix((key ^ uint64(first)) + _GAMMA)
    key = mix((key ^ uint64(second)) + _GAMMA)
    return mix((key ^ uint64(purpose)) + _GAMMA)


@compiled
def draw(key: np.uint64, counter: int) -> np.uint64:
    """Draw number ``counter`` (from 0) of ``key``: 32 uniform bits."""
    return mix(uint64(key) + (uint64(counter) + uint64(1)) * _GAMMA) >> uint64(32)


@compiled
def draw_below(key: np.uint64, counter: int, bound: int) -> Any:
    """A uniform integer in ``[0, bound)``; ``bound`` must be in 1 .. 2**32."""
    return np.int64((draw(key, counter) * uint64(bound)) >> uint64(32))


@compiled
def order_keys(seed: int, count: int, purpose: int) -> np.ndarray:
    """``uint64[count]`` pseudo-random words; their stable argsort is the permutation of (seed, purpose)."""
    out = np.empty(count, np.uint64)
    for index in range(count):
        out[index] = make_key(seed, index, 0, purpose)
    return out


def permutation(seed: int, count: int, purpose: int) -> np.ndarray:
    """``int64[count]``: a permutation of ``range(count)`` that depends on (seed, purpose) alone."""
    return np.argsort(order_keys(seed, count, purpose), kind="stable")


def unit_draws(seed: int, count: int, purpose: int) -> np.ndarray:
    """``float64[count]``: uniform numbers in [0, 1) that depend on (seed, purpose) alone."""
    return (order_keys(seed, count, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53
