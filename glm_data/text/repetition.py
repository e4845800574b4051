"""How much of a document says again what it said: n-grams of tokens and of characters.

A gram of n tokens can only be one that repeats if the shorter grams it begins and ends with do. So each size looks only
at places that the size before left over, and in ordinary text the long grams cost next to nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.text.compiled import compiled
from glm_data.text.sets import BASE, mask_for, spread

TOKENS = 1 << 14
"""Tokens of a document, from its start, whose n-grams are counted."""

CHARACTERS = 1 << 11
"""Characters of a document, from its start, whose grams are counted."""

GRAM_CHARACTERS = 1 << 17
"""Solid characters of a document, from its start, whose 13-character grams are counted."""

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)
"""Words in the n-grams of the Gopher rules (table A1): whose most frequent one counts, whose repeats count."""

_ONE, _PASSED, _PLACE = 1 << 32, 1 << 30, (1 << 30) - 1

HAN_CHARACTERS_A_WORD = 1.8
"""Han characters in a word as jieba cuts them: 1.85 in web pages, 1.76 in manuals and novels."""

WORD_SIZES = np.array((*TOP, *DUPLICATE), np.int64)
HAN_SIZES = np.array([round(size * HAN_CHARACTERS_A_WORD) for size in (*TOP, *DUPLICATE)], np.int64)
"""Tokens of each n-gram: in documents where most tokens are Han characters, as many of these as make n words."""

CHARACTER_SIZES = (3, 10)
"""Characters of the grams of ROOTS and Data-Juicer (Chinese, English)."""


class Scratch(NamedTuple):
    """Arrays that all documents of a block use in turn."""

    characters: NDArray[np.uint32]
    """The first code points."""
    solid: NDArray[np.uint32]
    """The first ones that are neither white space nor repeat the mark before them."""
    tokens: NDArray[np.uint64]
    """Hash of each token."""
    lengths: NDArray[np.int64]
    """Characters of each token; then of all tokens before it."""
    prefix: NDArray[np.uint64]
    """Hash of all tokens, or characters, before a place."""
    level: NDArray[np.uint8]
    """Up to which size the grams at a place are found more than once, sizes numbered from 1."""
    places: NDArray[np.int32]
    """The places where those of the last size are, in order."""
    slots: NDArray[np.int32]
    """Where the gram at each of ``places`` stands in ``found``."""
    found: NDArray[np.int64]
    """Pairs: a gram, hashed, or 0 where there is none; how often it is there, times 2 ** 32, and where first."""
    histogram: NDArray[np.int32]


def new_scratch(longest_bytes: int) -> Scratch:
    """Arrays for documents of up to ``longest_bytes``."""
    places = max(min(longest_bytes, TOKENS), CHARACTERS) + 1
    slots = 1 << max(4, (2 * places).bit_length())
    return Scratch(
        characters=np.zeros(min(longest_bytes, CHARACTERS), np.uint32),
        solid=np.zeros(min(longest_bytes, GRAM_CHARACTERS), np.uint32),
        tokens=np.zeros(places, np.uint64),
        lengths=np.zeros(places + 1, np.int64),
        prefix=np.zeros(places + 1, np.uint64),
        level=np.zeros(places, np.uint8),
        places=np.zeros(places, np.int32),
        slots=np.zeros(places, np.int32),
        found=np.zeros(2 * slots, np.int64),
        histogram=np.zeros(CHARACTERS + 1, np.int32),
    )


@compiled
def sum_up(scratch: Scratch, used: int) -> None:
    """Fill ``prefix``, and turn ``lengths`` of tokens into lengths of all before."""
    running, total = np.uint64(0), 0
    for at in range(used):
        length = scratch.lengths[at]
        scratch.prefix[at], scratch.lengths[at] = running, total
        running = running * BASE + scratch.tokens[at]
        total += length
    scratch.prefix[used], scratch.lengths[used] = running, total


@compiled
def power(exponent: int) -> Any:
    """``BASE ** exponent`` in 64 bits."""
    value = np.uint64(1)
    for _ in range(exponent):
        value *= BASE
    return value


@compiled
def count_all_grams(scratch: Scratch, used: int, size: int) -> tuple[int, int, int]:
    """Count all grams of ``size`` tokens and leave those found more than once in ``places`` and ``slots``.

    Returns how many places that are, and first place and number of the most frequent gram; number 0: no gram at all.
    """
    count = max(0, used - size + 1)
    scratch.level[:used] = 0
    for at in range(count):
        scratch.places[at] = at
    return count_grams(scratch, count, size, size, 1)


@compiled
def count_grams(scratch: Scratch, candidates: int, size: int, shorter: int, level: int) -> tuple[int, int, int]:
    """As :func:`count_all_grams`, of those at the first ``candidates`` of ``places``: where grams of ``shorter`` tokens
    were found more than once. Grams elsewhere are single, so the most frequent is the very first if there is no other.
    ``level`` numbers the sizes from 1.
    """
    found = scratch.found
    mask, leaving = 2 * mask_for(candidates, found.shape[0] // 2), power(size)
    found[: mask + 2] = 0
    best = taken = 0
    most = 1
    for index in range(candidates):
        at = scratch.places[index]
        if scratch.level[at + size - shorter] < level - 1:
            continue
        key = np.int64(spread(scratch.prefix[at + size] - scratch.prefix[at] * leaving) | np.uint64(1))
        slot = (key >> 20) & mask  # even, as the mask is
        while found[slot] != key and found[slot] != 0:
            slot = (slot + 2) & mask
        if found[slot] == 0:
            found[slot], found[slot + 1] = key, _ONE | at
        else:
            found[slot + 1] += _ONE
            count, first = found[slot + 1] >> 32, found[slot + 1] & _PLACE
            if count > most or (count == most and first < best):
                best, most = first, count
        scratch.places[taken], scratch.slots[taken] = at, slot
        taken += 1
    return _confirm(scratch, taken, level), best, most


@compiled
def _confirm(scratch: Scratch, taken: int, level: int) -> int:
    """Leave only places whose gram was counted more than once; returns how many."""
    left = 0
    for index in range(taken):
        slot = scratch.slots[index]
        if scratch.found[slot + 1] >= 2 * _ONE:
            scratch.places[left], scratch.slots[left] = scratch.places[index], slot
            scratch.level[scratch.places[left]] = level
            left += 1
    return left


@compiled
def count_passed(scratch: Scratch, repeated: int, size: int) -> int:
    """Characters of grams met again on a walk that leaps over each of them (Gopher's duplicate n-grams)."""
    characters = free = 0
    for index in range(repeated):
        at, slot = scratch.places[index], scratch.slots[index]
        if at < free:
            continue
        if scratch.found[slot + 1] & _PASSED:
            characters += scratch.lengths[at + size] - scratch.lengths[at]
            free = at + size
        else:
            scratch.found[slot + 1] |= _PASSED
    return characters


@compiled
def count_repetition(
    scratch: Scratch, used: int, sizes: NDArray[np.int64], counts: NDArray[np.int64], column: int
) -> None:
    """The repetition of a document's ``used`` tokens, into ``counts`` from ``column`` on.

    Three characters of top n-grams (count times length, joined by blanks), six of duplicate n-grams; then places of
    5-grams and how many of them hold a repeated one, and the same of 10-grams.
    """
    sum_up(scratch, used)
    repeated = 0
    for number in range(9):
        size = sizes[number]
        if number == 0:
            repeated, best, most = count_all_grams(scratch, used, size)
        else:
            repeated, best, most = count_grams(scratch, repeated, size, sizes[number - 1], number + 1)
        if number < 3:
            length = scratch.lengths[min(best + size, used)] - scratch.lengths[best]
            counts[column + number] = most * (length + number + 1) if used >= size else 0
            continue
        counts[column + number] = count_passed(scratch, repeated, size)
        if number == 3 or number == 8:
            at = column + 9 + 2 * (number // 8)
            counts[at], counts[at + 1] = max(0, used - size + 1), repeated


@compiled
def count_character_repetition(scratch: Scratch, used: int, counts: NDArray[np.int64], column: int) -> None:
    """ROOTS's repetition of the first ``used`` characters: for grams of 3 and of 10 all grams, and those that are among
    the ``sqrt(distinct grams)`` most frequent and not single.
    """
    running = np.uint64(0)
    for at in range(used):
        scratch.prefix[at] = running
        running = running * BASE + np.uint64(scratch.characters[at]) + np.uint64(1)
    scratch.prefix[used] = running
    repeated, _, _ = count_all_grams(scratch, used, 3)
    counts[column] = max(0, used - 2)
    counts[column + 1] = _most_frequent(scratch, used - 2, repeated)
    repeated, _, _ = count_grams(scratch, repeated, 10, 3, 2)
    counts[column + 2] = max(0, used - 9)
    counts[column + 3] = _most_frequent(scratch, used - 9, repeated)


@compiled
def _most_frequent(scratch: Scratch, grams: int, repeated: int) -> Any:
    """Occurrences of the grams that are not single, of at most the square root of all different ones."""
    distinct, largest = grams - repeated, np.int64(0)
    for index in range(repeated):
        found = scratch.found[scratch.slots[index] + 1]
        if found & _PLACE == scratch.places[index]:
            distinct += 1
            scratch.histogram[found >> 32] += 1
            largest = max(largest, found >> 32)
    left, frequent = np.int64(np.sqrt(max(distinct, 0))), np.int64(0)
    for count in range(largest, 1, -1):
        taken = min(left, np.int64(scratch.histogram[count]))
        frequent += taken * count
        left -= taken
        scratch.histogram[count] = 0
    return frequent
