"""How much of a document says again what it said: n-grams of tokens and of characters.

A gram of n tokens can only be one that repeats if the shorter grams it begins and ends with do. So each size looks only
at places that the size before left over, and in ordinary text the long grams cost next to nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import load_word, pointer
from glm_data.text.sets import BASE, empty_table, put_once, spread

TOKENS = 1 << 14
"""Tokens of a document, from its start, whose n-grams are counted."""

CHARACTERS = 1 << 11
"""Characters of a document, from its start, whose grams are counted."""

GRAM_CHARACTERS = 1 << 17
"""Solid characters of a document, from its start, whose 13-character grams are counted."""

GRAM = 13
"""Characters of such a gram: white space and rulers left out, 13 as in ChineseWebText's repetition rule."""
GRAM_COUNTS = ("grams", "repeated_grams")

LONG_BYTES, SAMPLED = 1 << 12, 3
"""Of documents longer than ``LONG_BYTES``, one in ``2 ** SAMPLED`` grams is taken, by a hash of its beginning, so
that equal grams are taken together and the share stays the same."""

SLACK = 8
"""Further places of arrays of characters, so that eight can always be written at once."""

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)
"""Words in the n-grams of the Gopher rules (table A1): whose most frequent one counts, whose repeats count."""

_PLACE, _PASSED, _ONE, _COUNT, _TAG = 0x3FFF, 1 << 14, 1 << 15, 15, np.uint64(0xFFFFFFFF << 32)
"""Parts of a slot: where its gram is first; whether a walk passed it; how often it is there; half of its hash."""

HAN_CHARACTERS_A_WORD = 1.8
"""Han characters in a word as jieba cuts them: 1.85 in web pages, 1.76 in manuals and novels."""

WORD_SIZES = np.array((*TOP, *DUPLICATE), np.int64)
HAN_SIZES = np.array([round(size * HAN_CHARACTERS_A_WORD) for size in (*TOP, *DUPLICATE)], np.int64)
"""Tokens of each n-gram: in documents where most tokens are Han characters, as many of these as make n words."""

_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)

LONGEST_GRAM = int(HAN_SIZES.max())


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
    keys: NDArray[np.uint64]
    """Hash of the gram at each of ``places``."""
    found: NDArray[np.uint64]
    """Hash table of grams, in slots of the parts above; 0 where there is none."""
    histogram: NDArray[np.int32]
    table: NDArray[np.uint64]
    """Hash table of lines and paragraphs, and then of grams of characters."""
    state: NDArray[np.int64]
    """What a walk over a document keeps in mind."""


def new_scratch(newlines: int) -> Scratch:
    """Arrays for documents of up to so many ``newlines``."""
    hashes = max(2 * newlines + 2, GRAM_CHARACTERS)
    places = TOKENS + 1
    return Scratch(
        characters=np.zeros(CHARACTERS + SLACK, np.uint32),
        solid=np.zeros(GRAM_CHARACTERS + SLACK, np.uint32),
        tokens=np.zeros(places, np.uint64),
        lengths=np.zeros(places + 1, np.int64),
        prefix=np.zeros(places + LONGEST_GRAM, np.uint64),
        level=np.zeros(places + LONGEST_GRAM, np.uint8),
        places=np.zeros(places, np.int32),
        slots=np.zeros(places, np.int32),
        keys=np.zeros(places, np.uint64),
        found=np.zeros(4 * TOKENS, np.uint64),
        histogram=np.zeros(CHARACTERS + 1, np.int32),
        table=np.zeros(1 << max(4, (2 * hashes).bit_length()), np.uint64),
        state=np.zeros(32, np.int64),
    )


@compiled
def sum_up(scratch: Scratch, used: int) -> None:
    """Fill ``prefix``, and turn ``lengths`` of tokens into lengths of all before."""
    prefix, lengths, tokens = pointer(scratch.prefix), pointer(scratch.lengths), pointer(scratch.tokens)
    running, total = np.uint64(0), 0
    for at in range(used):
        length = lengths[at]
        prefix[at], lengths[at] = running, total
        running = running * BASE + tokens[at]
        total += length
    prefix[used], lengths[used] = running, total


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
    scratch.level[: used + LONGEST_GRAM] = 0  # what begins in the last places would go beyond them
    for at in range(count):
        scratch.places[at] = at
    return count_grams(scratch, count, size, size, 1)


@compiled
def count_grams(scratch: Scratch, candidates: int, size: int, shorter: int, level: int) -> tuple[int, int, int]:
    """As :func:`count_all_grams`, of those at the first ``candidates`` of ``places``: where grams of ``shorter`` tokens
    were found more than once. Grams elsewhere are single, so the most frequent is the very first if there is no other.
    ``level`` numbers the sizes from 1.
    """
    taken = _hash_grams(
        pointer(scratch.places), pointer(scratch.level), pointer(scratch.prefix), pointer(scratch.keys), candidates,
        size, shorter, level - 1,
    )  # fmt: skip
    mask = empty_table(scratch.found, taken)
    best, most = _tally(
        pointer(scratch.places), pointer(scratch.keys), pointer(scratch.slots), pointer(scratch.found), taken, mask
    )
    return _confirm(scratch, taken, level), best, most


@compiled
def _hash_grams(
    places: Any, levels: Any, prefix: Any, keys: Any, candidates: int, size: int, shorter: int, least: int
) -> int:
    """Leave only places whose gram ends with one that is not single either, and hash theirs; returns how many."""
    leaving, taken = power(size), 0
    for index in range(candidates):
        at = places[index]
        places[taken] = at
        keys[taken] = spread(prefix[at + size] - prefix[at] * leaving)
        taken += levels[at + size - shorter] >= least
    return taken


@compiled
def _tally(places: Any, keys: Any, slots: Any, found: Any, taken: int, mask: int) -> tuple[Any, Any]:
    """Count equal keys in the table; returns first place and number of the most frequent gram."""
    best: Any = 0
    most: Any = 1
    for index in range(taken):
        key = keys[index]
        slot = np.int64(key) & mask
        value = found[slot]
        while value != 0 and (value ^ key) & _TAG:
            slot = (slot + 1) & mask
            value = found[slot]
        slots[index] = slot
        if value == 0:
            found[slot] = key & _TAG | np.uint64(_ONE | places[index])
            continue
        value += np.uint64(_ONE)
        found[slot] = value
        count, first = _count_of(value), np.int64(value) & _PLACE
        if count > most or (count == most and first < best):
            best, most = first, count
    return best, most


@inlined
def _count_of(value: Any) -> Any:
    return (np.int64(value) & 0xFFFFFFFF) >> _COUNT


@compiled
def _confirm(scratch: Scratch, taken: int, level: int) -> int:
    """Leave only places whose gram was counted more than once; returns how many."""
    places, slots, found = pointer(scratch.places), pointer(scratch.slots), pointer(scratch.found)
    levels, left = pointer(scratch.level), 0
    for index in range(taken):
        slot, place = slots[index], places[index]
        places[left], slots[left] = place, slot
        several = _count_of(found[slot]) >= 2
        levels[place] = level if several else levels[place]
        left += several
    return left


@compiled
def count_passed(scratch: Scratch, repeated: int, size: int) -> int:
    """Characters of grams met again on a walk that leaps over each of them (Gopher's duplicate n-grams)."""
    characters = free = 0
    for index in range(repeated):
        at, slot = scratch.places[index], scratch.slots[index]
        if at < free:
            continue
        if scratch.found[slot] & np.uint64(_PASSED):
            characters += scratch.lengths[at + size] - scratch.lengths[at]
            free = at + size
        else:
            scratch.found[slot] |= np.uint64(_PASSED)
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
        found = scratch.found[scratch.slots[index]]
        if np.int64(found) & _PLACE == scratch.places[index]:
            distinct += 1
            scratch.histogram[_count_of(found)] += 1
            largest = max(largest, _count_of(found))
    left, frequent = np.int64(np.sqrt(max(distinct, 0))), np.int64(0)
    for count in range(largest, 1, -1):
        taken = min(left, np.int64(scratch.histogram[count]))
        frequent += taken * count
        left -= taken
        scratch.histogram[count] = 0
    return frequent


@compiled
def count_grams_of_13(
    solid: NDArray[np.uint32], used: int, is_long: bool, table: NDArray[np.uint64], counts: Any
) -> None:
    """Fill ``counts`` with :data:`GRAM_COUNTS` of the first ``used`` solid characters."""
    for sampled in (is_long, False):
        if counts[0] == 0:  # of a text that says one thing for ever no gram at all may be chosen
            grams = max(used - GRAM + 1, 0)
            mask = empty_table(table, grams >> SAMPLED if sampled else grams)
            counts[0], counts[1] = _put_grams(pointer(solid), grams, sampled, pointer(table), mask)


@compiled
def _put_grams(solid: Any, grams: int, sampled: bool, table: Any, mask: int) -> tuple[int, int]:
    found = repeated = 0
    for at in range(grams):
        key = load_word(solid, at) * BASE + load_word(solid, at + 2) * _SECOND
        if sampled and key >> np.uint64(64 - SAMPLED):
            continue
        for place in range(4, GRAM - 1, 2):
            key = (key ^ load_word(solid, at + place)) * BASE
            key ^= key >> np.uint64(32)
        found += 1
        repeated += put_once(spread(key + np.uint64(solid[at + GRAM - 1])), table, mask)
    return found, repeated
