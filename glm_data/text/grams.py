"""Grams of folded text: runs of words or characters long enough to tell a quotation, as 64-bit hashes with their place.

Tokens are those of :mod:`glm_data.text.shingles`: words where a script puts spaces, single characters where it does
not. A gram begins at every token and takes as many as make it full: 13 words, or 24 characters, or so much of each that
the shares add up. So it depends on nothing but what it covers, in any mixture of scripts.

::

    shares      a word weighs `characters`, a character `words`, a gram is full from `words * characters` on
    gram        mix(t1 * G^(k-1) + ... + tk), G the factor of shingles                           all modulo 2^64
    short gram  the same, full from a part of that weight on, mixed with SHORT_SALT
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.kernels import compiled
from glm_data.text.folding import BREAK, CHARACTER, CODE_POINT_MASK, KIND_SHIFT, LENGTH_SHIFT, NOTHING, WORD, fold_table
from glm_data.text.shingles import GRAM_FACTOR, WORD_FACTOR, WORD_SEED, _decode, mix64, utf8_buffers

SHORT_SALT = np.uint64(0x2545F4914F6CDD1D)
MOST_TOKENS = 200
"""Words or characters that a gram may be asked to have."""
FILTER_BITS_A_GRAM = 16
_FIRST_ROOM = 1 << 16

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


class Shape(NamedTuple):
    """How long a gram is. ``short`` is the share of a gram from which a text too short for one is a gram by itself."""

    words: int = 13
    characters: int = 24
    short: float = 0.6

    @property
    def full(self) -> int:
        """Weight of a gram."""
        return self.words * self.characters

    @property
    def least(self) -> int:
        """Weight of a short gram."""
        return max(1, math.ceil(self.full * self.short))


class Grams(NamedTuple):
    """Hashes of the grams of texts in order: those of text ``i`` are ``hashes[offsets[i]:offsets[i + 1]]``.

    The gram in place ``k`` of its text begins at token ``k`` and ends before token ``ends``. ``short: bool[texts]``
    marks texts that have short grams only; a text that is shorter still has none at all.
    """

    hashes: Uint64s
    ends: Int32s
    offsets: Int64s
    short: npt.NDArray[np.bool_]


class Places(NamedTuple):
    """Where grams of an index stand in texts, in order: of each its text, its number in the index, and its bytes."""

    texts: Int32s
    grams: Int32s
    starts: Int32s
    """First byte, counted from the text's beginning."""
    ends: Int32s
    """One beyond the last byte."""


class Lookup(NamedTuple):
    """Hashes to look for, ``uint64``, ascending and distinct, behind Bloom filters of three bits a hash, in a word.

    Those of short grams have a filter of their own: they are few, and it stays in the processor's cache.
    """

    shape: Shape
    hashes: Uint64s
    filter: Uint64s
    short_filter: Uint64s


def make_lookup(shape: Shape, hashes: Uint64s, short: npt.NDArray[np.bool_]) -> Lookup:
    """A lookup of ascending, distinct ``hashes``, two bytes each for their filter; ``short`` marks short grams."""
    return Lookup(shape, hashes, _filter_of(hashes[~short]), _filter_of(hashes[short]))


def _filter_of(hashes: Uint64s) -> Uint64s:
    """A filter of at least two words, a power of two; of a single one, which is not looked into, for no hash."""
    bits = (1 << int(hashes.size * FILTER_BITS_A_GRAM - 1).bit_length()) if hashes.size else 0
    words = np.zeros(max(bits // 64, 2) if hashes.size else 1, np.uint64)
    _fill(hashes, words, 64 - int(words.size - 1).bit_length())
    return words


def gram_hashes(texts: pa.Array, shape: Shape) -> Grams:
    """The grams of a string array's texts, repeats included; short ones where a text is too short for others."""
    data, bounds = utf8_buffers(texts)
    table, scratch = fold_table(), _scratch(bounds)
    hashes = np.empty(int(bounds[-1] - bounds[0]) * table.growth + len(texts), np.uint64)
    gram_ends = np.empty(hashes.size, np.int32)
    offsets, short = np.zeros(len(texts) + 1, np.int64), np.zeros(len(texts), np.bool_)
    _hash_kernel(
        data, bounds, table.entries, table.expansions, *scratch, *_weights(shape), _powers(shape),
        hashes, gram_ends, offsets, short,
    )  # fmt: skip
    return Grams(hashes[: offsets[-1]], gram_ends[: offsets[-1]], offsets, short)


def find_grams(texts: pa.Array, lookup: Lookup) -> Places:
    """Where grams of ``lookup`` stand in a string array's texts."""
    data, bounds = utf8_buffers(texts)
    table, scratch = fold_table(), _scratch(bounds)
    hashed, beyonds = np.empty_like(scratch[0]), np.empty_like(scratch[2])
    room = _FIRST_ROOM
    while True:
        found = np.empty((room, 4), np.int32)
        used = _find_kernel(
            data, bounds, table.entries, table.expansions, *scratch, *_weights(lookup.shape), _powers(lookup.shape),
            lookup.hashes, lookup.filter, lookup.short_filter, hashed, beyonds, found,
        )  # fmt: skip
        if used <= room:
            return Places(*(np.ascontiguousarray(column) for column in found[:used].T))
        room = used


def _scratch(bounds: Int64s) -> tuple[Uint64s, npt.NDArray[np.uint8], Int32s, Int32s]:
    """Room for the tokens of the longest text: hashes, weights, first bytes, ends."""
    longest = int(np.diff(bounds).max(initial=0)) * fold_table().growth + 1
    tokens, weights = np.empty(longest, np.uint64), np.empty(longest, np.uint8)
    return tokens, weights, np.empty(longest, np.int32), np.empty(longest, np.int32)


def _weights(shape: Shape) -> tuple[int, int, int, int]:
    return shape.characters, shape.words, shape.full, shape.least


def _powers(shape: Shape) -> Uint64s:
    """Powers of the factor up to the longest gram in tokens."""
    powers = np.empty(max(shape.words, shape.characters) + 2, np.uint64)
    powers[0] = 1
    np.multiply.accumulate(np.full(powers.size - 1, GRAM_FACTOR), out=powers[1:])
    return powers


@compiled
def _fill(hashes: Any, filter: Any, shift: int) -> None:
    for gram in range(hashes.size):
        filter[hashes[gram] >> np.uint64(shift)] |= _bits_of(hashes[gram])


@compiled
def _bits_of(hashed: Any) -> Any:
    """Three bits of a word, by the low bits of a hash; the high ones choose the word."""
    six = np.uint64(63)
    first = np.uint64(1) << (hashed & six) | np.uint64(1) << (hashed >> np.uint64(6) & six)
    return first | np.uint64(1) << (hashed >> np.uint64(12) & six)


@compiled
def _tokenize(
    data: Any, start: int, end: int, entries: Any, expansions: Any, word_weight: int, character_weight: int,
    tokens: Any, weights: Any, starts: Any, ends: Any,
) -> int:  # fmt: skip
    """Write the tokens of one text, as for shingles, with their weights and bytes; returns how many there are."""
    used, at, here = 0, start, start
    word, in_word = WORD_SEED, False
    part, last = np.int64(0), np.int64(0)
    while at < end or part < last:
        if part < last:  # all parts of an expansion stand where it does
            entry = expansions[part]
            part += 1
        else:
            here, first = at, data[at]
            if first < 0x80:
                entry = entries[first]
                at += 1
            elif 0xE0 <= first < 0xF0 and at + 3 <= end:
                low = (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F
                entry = entries[(np.int64(first) & 0x0F) << 12 | low]
                at += 3
            else:
                decoded = _decode(data, at, end)
                entry = entries[decoded & CODE_POINT_MASK]
                at += decoded >> 21
        kind = entry >> np.uint32(KIND_SHIFT)
        value = np.uint64(entry & np.uint32(CODE_POINT_MASK))
        if kind == WORD:
            if not in_word:
                starts[used] = here - start
                in_word = True
            word = (word ^ value) * WORD_FACTOR
            ends[used] = at - start
        elif kind in (BREAK, CHARACTER):
            if in_word:
                tokens[used], weights[used] = mix64(word), word_weight
                used += 1
                word, in_word = WORD_SEED, False
            if kind == CHARACTER:
                tokens[used], weights[used] = mix64((WORD_SEED ^ value) * WORD_FACTOR), character_weight
                starts[used], ends[used] = here - start, at - start
                used += 1
        elif kind > NOTHING:  # the flag of an expansion is set
            part = np.int64(value)
            last = part + np.int64(entry >> np.uint32(LENGTH_SHIFT))
    if in_word:
        tokens[used], weights[used] = mix64(word), word_weight
        used += 1
    return used


@compiled
def _hash(tokens: Any, weights: Any, count: int, need: int, salt: Any, powers: Any, hashed: Any, beyonds: Any) -> int:
    """Write hash and end of the gram that begins at each token while enough is left; returns how many there are."""
    window, held, beyond = np.uint64(0), 0, 0
    for first in range(count):
        while held < need and beyond < count:
            window = window * GRAM_FACTOR + tokens[beyond]
            held += weights[beyond]
            beyond += 1
        if held < need:
            return first
        hashed[first], beyonds[first] = mix64(window ^ salt), beyond
        window -= tokens[first] * powers[beyond - first - 1]
        held -= weights[first]
    return count


@compiled
def _hash_kernel(
    data: Any, bounds: Any, entries: Any, expansions: Any, tokens: Any, weights: Any, starts: Any, ends: Any,
    word_weight: int, character_weight: int, full: int, least: int, powers: Any,
    hashes: Any, gram_ends: Any, offsets: Any, short: Any,
) -> None:  # fmt: skip
    used = 0
    for text in range(bounds.size - 1):
        count = _tokenize(
            data, bounds[text], bounds[text + 1], entries, expansions, word_weight, character_weight,
            tokens, weights, starts, ends,
        )  # fmt: skip
        weight = 0
        for token in range(count):
            weight += weights[token]
        short[text] = weight < full
        need, salt = (least, SHORT_SALT) if weight < full else (full, np.uint64(0))
        used += _hash(tokens, weights, count, need, salt, powers, hashes[used:], gram_ends[used:])
        offsets[text + 1] = used


@compiled
def _find_kernel(
    data: Any, bounds: Any, entries: Any, expansions: Any, tokens: Any, weights: Any, starts: Any, ends: Any,
    word_weight: int, character_weight: int, full: int, least: int, powers: Any,
    hashes: Any, filter: Any, short_filter: Any, hashed: Any, beyonds: Any, found: Any,
) -> int:  # fmt: skip
    """Write a row (text, gram, first byte, end) for each gram found while there is room; returns how many there are."""
    used = 0
    for text in range(bounds.size - 1):
        count = _tokenize(
            data, bounds[text], bounds[text + 1], entries, expansions, word_weight, character_weight,
            tokens, weights, starts, ends,
        )  # fmt: skip
        if filter.size > 1:
            grams = _hash(tokens, weights, count, full, np.uint64(0), powers, hashed, beyonds)
            used = _look_up(hashed, beyonds, grams, hashes, filter, starts, ends, text, used, found)
        if short_filter.size > 1:
            grams = _hash(tokens, weights, count, least, SHORT_SALT, powers, hashed, beyonds)
            used = _look_up(hashed, beyonds, grams, hashes, short_filter, starts, ends, text, used, found)
    return used


@compiled
def _look_up(
    hashed: Any, beyonds: Any, grams: int, hashes: Any, filter: Any, starts: Any, ends: Any, text: int, used: int,
    found: Any,
) -> int:  # fmt: skip
    """A loop of its own, so short that the processor waits for many words of the filter at a time."""
    shift = np.uint64(64)
    words = filter.size
    while words > 1:
        words >>= 1
        shift -= np.uint64(1)
    for first in range(grams):
        bits = _bits_of(hashed[first])
        if filter[hashed[first] >> shift] & bits != bits:
            continue
        gram = _place_of(hashed[first], hashes)
        if gram < 0:
            continue
        if used < found.shape[0]:
            found[used, 0], found[used, 1] = text, gram
            found[used, 2], found[used, 3] = starts[first], ends[beyonds[first] - 1]
        used += 1
    return used


@compiled
def _place_of(hashed: Any, hashes: Any) -> int:
    """The index of a hash in ascending ones, or -1."""
    low, high = 0, hashes.size
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < hashed:
            low = middle + 1
        else:
            high = middle
    return low if low < hashes.size and hashes[low] == hashed else -1
