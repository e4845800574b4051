"""How much of a document says again what it said: n-grams of tokens and of characters.

A gram of n tokens can only be one that repeats if the shorter grams it begins and ends with do. So each size looks only
at places that the size before left over, and in ordinary text the long grams cost next to nothing.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.lines import STATES
from glm_data.text.machine import load_word, pointer
from glm_data.text.sets import BASE, empty_table, mask_for, put_once, spread

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

_PLACE, _PASSED, _ONE, _COUNT, _TAKEN, _TAG = 0x3FFF, 1 << 14, 1 << 15, 15, 1 << 31, np.uint64(0xFFFFFFFF << 32)
"""Parts of a slot: where its gram is first; whether a walk passed it; how often it is there; that it is taken; half of
its hash."""

HAN_CHARACTERS_A_WORD = 1.8
"""Han characters in a word as jieba cuts them: 1.85 in web pages, 1.76 in manuals and novels."""

WORD_SIZES = np.array((*TOP, *DUPLICATE), np.int64)
HAN_SIZES = np.array([round(size * HAN_CHARACTERS_A_WORD) for size in (*TOP, *DUPLICATE)], np.int64)
"""Tokens of each n-gram: in documents where most tokens are Han characters, as many of these as make n words."""

_SEEN, _SEEN_SHIFT = 4, 20
"""Slots of ``seen`` are at least 2 * ``_SEEN`` for each gram, and found by the bits of its hash from the shift on."""
_FOUND_SLOTS, _SEEN_SLOTS = 4 * TOKENS, 8 * TOKENS
PLANE, NUMBER_BITS = 1 << 16, 7
GRAMS_OF_3 = 1 << 3 * NUMBER_BITS

SECOND = np.uint64(0xC2B2AE3D27D4EB4F)

LONGEST_GRAM = int(HAN_SIZES.max())
_POWERS = np.array([pow(int(BASE), exponent, 1 << 64) for exponent in range(LONGEST_GRAM + 1)], np.uint64)
"""``BASE`` to the power of each number, in 64 bits."""


class Scratch(NamedTuple):
    """Arrays that all documents of a thread use in turn; 0 in all places to begin with."""

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
    seen: NDArray[np.uint8]
    """By part of the hash of a gram whether one was there, in the lowest bit, and whether another was."""
    numbers: NDArray[np.uint8]
    """By code point the number that a document gives it; 0 where there is none, as everywhere between documents."""
    numbered: NDArray[np.uint16]
    """How often the gram of three such numbers is there; 0 between documents."""
    histogram: NDArray[np.int32]
    """By number of times how many grams are there so often, 0 between documents; behind it places that are not read."""
    table: NDArray[np.uint64]
    """Hash table of lines and paragraphs, and then of grams of characters."""
    state: NDArray[np.int64]
    """What a walk over a document keeps in mind."""
    table_slots: int


_of_thread = threading.local()


def scratch_for(newlines: int) -> Scratch:
    """Arrays for documents of up to so many ``newlines``: this thread's own, unless those are too small."""
    if 2 * newlines + 2 > GRAM_CHARACTERS:
        return _new_scratch(newlines)
    if not hasattr(_of_thread, "scratch"):
        _of_thread.scratch = _new_scratch(0)
    return cast(Scratch, _of_thread.scratch)


def _new_scratch(newlines: int) -> Scratch:
    slots = 1 << (2 * max(2 * newlines + 2, GRAM_CHARACTERS)).bit_length()
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
        found=np.zeros(_FOUND_SLOTS, np.uint64),
        seen=np.zeros(_SEEN_SLOTS, np.uint8),
        numbers=np.zeros(PLANE, np.uint8),
        numbered=np.zeros(GRAMS_OF_3, np.uint16),
        histogram=np.zeros(CHARACTERS + 1 + 8, np.int32),
        table=np.zeros(slots, np.uint64),
        state=np.zeros(STATES, np.int64),
        table_slots=slots,
    )


@inlined
def point_at(scratch: Scratch) -> Scratch:
    """The scratch with pointers in place of arrays: counting the references of arrays would cost more than counting
    the grams of a short document."""
    return Scratch(
        pointer(scratch.characters),
        pointer(scratch.solid),
        pointer(scratch.tokens),
        pointer(scratch.lengths),
        pointer(scratch.prefix),
        pointer(scratch.level),
        pointer(scratch.places),
        pointer(scratch.slots),
        pointer(scratch.keys),
        pointer(scratch.found),
        pointer(scratch.seen),
        pointer(scratch.numbers),
        pointer(scratch.numbered),
        pointer(scratch.histogram),
        pointer(scratch.table),
        pointer(scratch.state),
        scratch.table_slots,
    )


Work = Any
"""Pointers to those arrays of the scratch that grams are counted in."""


@inlined
def work_of(scratch: Scratch) -> Work:
    """The :data:`Work` arrays: ``places``, ``slots``, ``keys``, ``found``, ``seen``, ``level``, ``prefix``."""
    return (
        scratch.places, scratch.slots, scratch.keys, scratch.found, scratch.seen, scratch.level, scratch.prefix,
    )  # fmt: skip


@inlined
def sum_up(prefix: Any, lengths: Any, tokens: Any, used: int) -> None:
    """Fill ``prefix``, and turn ``lengths`` of tokens into lengths of all before."""
    running, total = np.uint64(0), 0
    for at in range(used):
        length = lengths[at]
        prefix[at], lengths[at] = running, total
        running = running * BASE + tokens[at]
        total += length
    prefix[used], lengths[used] = running, total


@compiled
def count_all_grams(work: Work, used: int, size: int) -> tuple[int, int, int]:
    """Count all grams of ``size`` tokens and leave those found more than once in ``places`` and ``slots``.

    Returns how many places that are, and first place and number of the most frequent gram; number 0: no gram at all.
    """
    places, level = work[0], work[5]
    count = max(0, used - size + 1)
    for at in range(used + LONGEST_GRAM):  # what begins in the last places would go beyond them
        level[at] = 0
    for at in range(count):
        places[at] = at
    return count_grams(work, count, size, size, 1)


@compiled
def count_grams(work: Work, candidates: int, size: int, shorter: int, level: int) -> tuple[int, int, int]:
    """As :func:`count_all_grams`, of those at the first ``candidates`` of ``places``: where grams of ``shorter`` tokens
    were found more than once. Grams elsewhere are single, so the most frequent is the very first if there is no other.
    ``level`` numbers the sizes from 1.
    """
    places, _, keys, _, _, levels, prefix = work
    taken = _hash_grams(places, levels, prefix, keys, candidates, size, shorter, level - 1)
    return count_keys(work, taken, level)


@compiled
def count_keys(work: Work, taken: int, level: int) -> tuple[int, int, int]:
    """As :func:`count_grams`, of ``taken`` places whose ``keys`` are there."""
    places, slots, keys, found, seen, levels, _ = work
    taken = _leave_out_single(places, keys, seen, taken)
    if taken < 2:
        return 0, 0, 1
    mask = mask_for(taken, _FOUND_SLOTS)
    for slot in range(mask + 1):
        found[slot] = 0
    best, most = _tally(places, keys, slots, found, taken, mask)
    return _confirm(places, slots, found, levels, taken, level), best, most


@inlined
def _leave_out_single(places: Any, keys: Any, seen: Any, taken: int) -> int:
    """Leave all places whose gram is there more than once, and few others: of most grams no other has the same part of
    its hash, which is found out without a branch. Returns how many."""
    left, mask = 0, mask_for(_SEEN * taken, _SEEN_SLOTS)
    for part in range(mask + 1):
        seen[part] = 0
    for index in range(taken):
        slot = np.int64(keys[index] >> np.uint64(_SEEN_SHIFT)) & mask
        seen[slot] = seen[slot] << 1 | 1
    for index in range(taken):
        key, place = keys[index], places[index]
        keys[left], places[left] = key, place
        left += seen[np.int64(key >> np.uint64(_SEEN_SHIFT)) & mask] > 1
    return left


@inlined
def _hash_grams(
    places: Any, levels: Any, prefix: Any, keys: Any, candidates: int, size: int, shorter: int, least: int
) -> int:
    """Leave only places whose gram ends with one that is not single either, and hash theirs; returns how many."""
    leaving, taken = _POWERS[size], 0
    for index in range(candidates):
        at = places[index]
        places[taken] = at
        keys[taken] = spread(prefix[at + size] - prefix[at] * leaving)
        taken += levels[at + size - shorter] >= least
    return taken


@inlined
def _tally(places: Any, keys: Any, slots: Any, found: Any, taken: int, mask: int) -> tuple[Any, Any]:
    """Count equal keys in the table; returns first place and number of the most frequent gram."""
    rank = np.uint64(_TAKEN | _ONE | _PLACE)  # of a gram that is there once, in the very first place
    for index in range(taken):
        key = keys[index]
        slot = np.int64(key) & mask
        value = found[slot]
        while _is_other(value, key):
            slot = (slot + 1) & mask
            value = found[slot]
        value = (value if value != 0 else key & _TAG | np.uint64(_TAKEN | places[index])) + np.uint64(_ONE)
        slots[index], found[slot] = slot, value
        rank = max(rank, value & ~_TAG ^ np.uint64(_PLACE))
    return _PLACE - (np.int64(rank) & _PLACE), count_of(rank)


@inlined
def _is_other(value: Any, key: Any) -> bool:
    """Whether a slot is taken by another gram. Seldom; whether it is free cannot be foreseen, and is not branched on."""
    if_taken = np.int64(value << np.uint64(32)) >> np.int64(63)
    return bool(np.int64((value ^ key) & _TAG) & if_taken)


@inlined
def count_of(value: Any) -> Any:
    """How often the gram of a slot is there."""
    return (np.int64(value) & (_TAKEN - 1)) >> _COUNT


@inlined
def is_first(value: Any, place: Any) -> Any:
    """Whether the gram of a slot is there for the first time at a place."""
    return np.int64(value) & _PLACE == place


@inlined
def _confirm(places: Any, slots: Any, found: Any, levels: Any, taken: int, level: int) -> int:
    """Leave only places whose gram was counted more than once; returns how many."""
    left = 0
    for index in range(taken):
        slot, place = slots[index], places[index]
        places[left], slots[left] = place, slot
        several = count_of(found[slot]) >= 2
        levels[place] = level if several else levels[place]
        left += several
    return left


@inlined
def count_passed(work: Work, lengths: Any, repeated: int, size: int) -> int:
    """Characters of grams met again on a walk that leaps over each of them (Gopher's duplicate n-grams)."""
    places, slots, _, found, _, _, _ = work
    characters = free = 0
    for index in range(repeated):
        at, slot = places[index], slots[index]
        if at < free:
            continue
        if found[slot] & np.uint64(_PASSED):
            characters += lengths[at + size] - lengths[at]
            free = at + size
        else:
            found[slot] |= np.uint64(_PASSED)
    return characters


@compiled
def count_repetition(
    scratch: Scratch, used: int, sizes: Any, counts: Any, column: int
) -> None:
    """The repetition of a document's ``used`` tokens, into ``counts`` from ``column`` on; all of them pointers.

    Three characters of top n-grams (count times length, joined by blanks), six of duplicate n-grams; then places of
    5-grams and how many of them hold a repeated one, and the same of 10-grams.
    """
    work, lengths = work_of(scratch), scratch.lengths
    sum_up(work[6], lengths, scratch.tokens, used)
    repeated = 0
    for number in range(9):
        size = sizes[number]
        if number == 0:
            repeated, best, most = count_all_grams(work, used, size)
        else:
            repeated, best, most = count_grams(work, repeated, size, sizes[number - 1], number + 1)
        if number < 3:
            length = lengths[min(best + size, used)] - lengths[best]
            counts[column + number] = most * (length + number + 1) if used >= size else 0
            continue
        counts[column + number] = count_passed(work, lengths, repeated, size)
        if number == 3 or number == 8:
            at = column + 9 + 2 * (number // 8)
            counts[at], counts[at + 1] = max(0, used - size + 1), repeated


@compiled
def count_grams_of_13(scratch: Scratch, used: int, is_long: bool, counts: Any) -> None:
    """Fill ``counts`` with :data:`GRAM_COUNTS` of the first ``used`` solid characters; all of them pointers."""
    solid, table, grams = scratch.solid, scratch.table, max(used - GRAM + 1, 0)
    if is_long:
        mask = empty_table(table, scratch.table_slots, grams >> SAMPLED)
        counts[0], counts[1] = _put_sampled(solid, grams, table, mask, scratch.places)
    first = 0 if counts[0] == 0 else grams  # of a text that says one thing for ever no gram at all may be chosen
    if first < grams:
        mask = empty_table(table, scratch.table_slots, grams)
        counts[0], counts[1] = grams, _put_all(work_of(scratch), solid, grams, table, mask)


@compiled
def _put_all(work: Work, solid: Any, grams: int, table: Any, mask: int) -> int:
    """How many grams were there before."""
    places, _, keys, _, seen, _, _ = work
    repeated, first, leaving, running = 0, 0, _POWERS[GRAM - 1], np.uint64(0)
    for at in range(GRAM - 1):
        running = running * BASE + solid[at]
    while first < grams:
        behind = min(first + TOKENS, grams)
        for at in range(first, behind):
            running = running * BASE + solid[at + GRAM - 1]
            keys[at - first] = spread(running)
            running -= solid[at] * leaving
        first, taken = behind, behind - first
        if taken == grams:  # else equal ones may be far apart
            taken = _leave_out_single(places, keys, seen, taken)
        for index in range(taken):
            repeated += put_once(keys[index], table, mask)
    return repeated


@compiled
def _put_sampled(solid: Any, grams: int, table: Any, mask: int, places: Any) -> tuple[int, int]:
    """How many grams are taken, by the hash of their first four characters, and how many were there before."""
    found = repeated = first = 0
    while first < grams:
        behind, taken = min(first + TOKENS, grams), 0
        for at in range(first, behind):
            places[taken] = at
            taken += _hash_four(solid, at) >> np.uint64(64 - SAMPLED) == 0
        for index in range(taken):
            place = places[index]
            key = _hash_four(solid, place)
            for pair in range(4, GRAM - 1, 2):
                key = (key ^ load_word(solid, place + pair)) * BASE
                key ^= key >> np.uint64(32)
            repeated += put_once(spread(key + np.uint64(solid[place + GRAM - 1])), table, mask)
        first, found = behind, found + taken
    return found, repeated


@inlined
def _hash_four(solid: Any, at: int) -> Any:
    return load_word(solid, at) * BASE + load_word(solid, at + 2) * SECOND
