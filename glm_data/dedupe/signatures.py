"""MinHash signatures and the band keys of locality-sensitive hashing (Broder 1997; Leskovec et al., MMDS, chapter 3).

A signature is bit-identical to ``datasketch.MinHash(num_perm=bands * rows, seed=seed, scheme="affine32")`` updated with
the same 32-bit hashes: the upper halves of the 64-bit shingle hashes. Two texts of Jaccard similarity ``s`` share a
band key with probability ``1 - (1 - s^rows)^bands``.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glm_data.dedupe.lowering import lower_24, lower_32
from glm_data.kernels import compiled
from glm_data.text.machine import pointer
from glm_data.text.shingles import Shingles, Uint64s, mix64

BANDS, ROWS, SEED = 20, 6, 1
_TILE = 2048
_BAND_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Uint32s = npt.NDArray[np.uint32]


class Lsh(NamedTuple):
    """The shape of locality-sensitive hashing: ``bands`` keys of ``rows`` minima each, and the permutations' seed."""

    bands: int = BANDS
    rows: int = ROWS
    seed: int = SEED

    @property
    def permutations(self) -> int:
        """How many minima a signature holds."""
        return self.bands * self.rows

    def probability(self, similarity: float) -> float:
        """How likely two texts of that Jaccard similarity share a band key."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def best_lsh(threshold: float, permutations: int, seed: int = SEED) -> Lsh:
    """The bands and rows that datasketch's optimiser picks for a threshold within so many permutations."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=threshold, num_perm=permutations)
    return Lsh(int(index.b), int(index.r), seed)


@functools.cache
def permutations(count: int, seed: int) -> Uint32s:
    """datasketch's permutations ``h -> a * h + b modulo 2^32`` as ``uint32[2, count]`` (``a``, odd, and ``b``).

    Drawn here as there (``scheme="affine32"``, version 2), because importing datasketch takes a second.
    """
    random = np.random.RandomState(seed)
    halves = random.randint(0, 1 << 31, count, np.uint32)
    return np.stack([halves << np.uint32(1) | np.uint32(1), random.randint(0, 1 << 32, count, np.uint32)])


def signatures(shingles: Shingles, lsh: Lsh) -> Uint32s:
    """MinHash signatures ``uint32[texts, bands * rows]`` of every text's shingles (repeats do no harm)."""
    minima = np.empty((shingles.offsets.size - 1, lsh.permutations), np.uint32)
    _signature_kernel(shingles.hashes, shingles.offsets, *_grouped(lsh.permutations, lsh.seed), minima)
    return minima


@functools.cache
def _grouped(count: int, seed: int) -> tuple[Uint32s, int]:
    """The permutations, filled up to whole groups, and how many of those are of 24; the others are of 32."""
    eights = -(-count // 8)
    while eights < 3 * (-eights % 4):
        eights += 1
    tables = np.zeros((2, 8 * eights), np.uint32)
    tables[:, :count] = permutations(count, seed)
    return tables, -eights % 4


def band_keys(minima: Uint32s, lsh: Lsh) -> Uint64s:
    """Band keys ``uint64[texts, bands]``; keys of different bands live in one space and never meet by design."""
    keys = np.empty((minima.shape[0], lsh.bands), np.uint64)
    _band_kernel(minima, lsh.rows, keys)
    return keys


@compiled
def _signature_kernel(hashes: Any, offsets: Any, tables: Any, threes: int, minima: Any) -> None:
    """Pre-mixed hashes go by in tiles that stay in the first cache, once for each group of 24 or 32 permutations."""
    tile, row = np.empty(_TILE, np.uint32), np.empty(tables.shape[1], np.uint32)
    a, b, lowest, values = pointer(tables[0]), pointer(tables[1]), pointer(row), pointer(tile)
    for text in range(offsets.size - 1):
        for j in range(row.size):
            lowest[j] = np.uint32(0xFFFFFFFF)
        for start in range(offsets[text], offsets[text + 1], _TILE):
            size = min(_TILE, offsets[text + 1] - start)
            for i in range(size):
                values[i] = _premix(np.uint32(hashes[np.uint64(start + i)] >> np.uint64(32)))
            for group in range(threes):
                lower_24(lowest, 24 * group, a, b, values, size)
            for first in range(24 * threes, row.size, 32):
                lower_32(lowest, first, a, b, values, size)
        for j in range(minima.shape[1]):
            minima[np.uint64(text), np.uint64(j)] = lowest[j]


@compiled
def _premix(value: Any) -> Any:
    """The 32-bit finaliser of MurmurHash3, which datasketch applies before its affine permutations."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def _band_kernel(minima: Any, rows: int, keys: Any) -> None:
    for text in range(keys.shape[0]):
        for band in range(keys.shape[1]):
            key = np.uint64(band + 1) * _BAND_FACTOR
            for j in range(band * rows, (band + 1) * rows):
                key = (key ^ np.uint64(minima[text, j])) * _BAND_FACTOR
                key ^= key >> np.uint64(32)
            keys[text, band] = mix64(key)
