"""ROOTS's repetition of characters: how often the most frequent grams of 3 and of 10 characters are found."""

from __future__ import annotations

from typing import Any

import numpy as np

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import load_word
from glm_data.text.repetition import (
    CHARACTERS,
    GRAMS_OF_3,
    NUMBER_BITS,
    PLANE,
    SECOND,
    Scratch,
    Work,
    count_keys,
    count_of,
    is_first,
    work_of,
)
from glm_data.text.sets import BASE, spread

_MOST_NUMBERS = (1 << NUMBER_BITS) - 1


@compiled
def count_character_repetition(scratch: Scratch, used: int, counts: Any, column: int) -> None:
    """ROOTS's repetition of the first ``used`` characters, all of them pointers: for grams of 3 and of 10 all grams, and those that are among
    the ``sqrt(distinct grams)`` most frequent and not single.
    """
    counts[column], counts[column + 2] = max(0, used - 2), max(0, used - 9)
    if used < 3:
        return
    work, points, histogram = work_of(scratch), scratch.characters, scratch.histogram
    places, slots, _, found, _, level, _ = work
    single: Any = 0
    if _number_grams_of_3(points, scratch.numbers, slots, used):
        single, largest = _count_numbered(slots, places, scratch.numbered, level, histogram, used - 2)
    else:
        repeated = _count_grams(work, points, 3, used - 2)
        single, largest = used - 2 - repeated, _fill_histogram(found, slots, places, histogram, repeated)
    counts[column + 1] = _take_most_frequent(histogram, single, largest)
    repeated = _count_grams(work, points, 10, _find_runs(level, places, used - 2))
    largest = _fill_histogram(found, slots, places, histogram, repeated)
    counts[column + 3] = _take_most_frequent(histogram, used - 9 - repeated, largest)


@inlined
def _number_grams_of_3(points: Any, numbers: Any, grams: Any, used: int) -> bool:
    """Write each gram as three numbers of seven bits: the characters themselves if all are ASCII, else theirs in order
    of appearance; whether these are enough."""
    together = np.uint32(0)
    for at in range(used):
        together |= points[at]
    if together < 1 << NUMBER_BITS:
        for at in range(used - 2):
            grams[at] = _join(points[at], points[at + 1], points[at + 2])
        return True
    return _number_characters(points, numbers, grams, used)


@inlined
def _join(first: Any, second: Any, third: Any) -> Any:
    """Three numbers of seven bits as one: the five lower bits of each lie together, so that grams of small letters, or
    of the first numbers, share few lines and pages of memory, and no more sets of the cache than they must."""
    low = (first & 31) << 10 | (second & 31) << 5 | third & 31
    return (first >> 5) << 19 | (second >> 5) << 17 | (third >> 5) << 15 | low


@inlined
def _number_characters(points: Any, numbers: Any, grams: Any, used: int) -> bool:
    first: Any = 0
    second: Any = 0
    distinct = at = 0
    while at < used and points[at] < PLANE:
        number: Any = numbers[points[at]]
        if number == 0:
            if distinct == _MOST_NUMBERS:
                break
            distinct += 1
            number = distinct
            numbers[points[at]] = number
        grams[max(at - 2, 0)] = _join(first, second, number)
        first, second, at = second, number, at + 1
    for before in range(at):
        numbers[points[before]] = 0
    return at == used


@inlined
def _count_numbered(
    grams: Any, distinct: Any, numbered: Any, level: Any, histogram: Any, count: int
) -> tuple[Any, Any]:
    """Count numbered grams in a table that has a place for each, and how many are there how often, into ``histogram``;
    ``distinct`` is room for each gram once.

    Returns how many are there once, and how often the most frequent one is.
    """
    single: Any = 0
    largest: Any = 0
    used = 0
    for at in range(count):
        gram = grams[at]
        times = np.int64(numbered[gram])
        numbered[gram] = times + 1
        distinct[used] = gram
        used += times == 0
    for at in range(count):
        level[at] = numbered[grams[at]] > 1
    for index in range(used):
        times = np.int64(numbered[distinct[index]])
        numbered[distinct[index]] = 0
        single += times == 1
        # Most are single: if those counted in one place, each would wait for the one before.
        histogram[times if times > 1 else CHARACTERS + 1 + (index & 7)] += 1
        largest = max(largest, times)
    return single, largest


@compiled
def _count_grams(work: Work, points: Any, size: int, candidates: int) -> int:
    """Count the grams of 3 characters, or those of 10 at ``candidates`` of ``places``, as :func:`count_grams`."""
    places, _, keys, _, _, level, _ = work
    if size == 3:
        for at in range(candidates):
            places[at], level[at] = at, 0
            keys[at] = spread(load_word(points, at) * BASE + np.uint64(points[at + 2]) * SECOND)
    else:
        for index in range(candidates):
            key = load_word(points, places[index]) * BASE
            for pair in range(2, size, 2):
                key = (key ^ load_word(points, places[index] + pair)) * BASE
                key ^= key >> np.uint64(32)
            keys[index] = spread(key)
    repeated, _, _ = count_keys(work, candidates, 1)
    return repeated


@inlined
def _find_runs(level: Any, places: Any, count: int) -> int:
    """The places where a gram of 10 characters can repeat: all eight grams of 3 in it do. Returns how many."""
    run = found = 0
    for at in range(count):
        run = run + 1 if level[at] else 0
        places[found] = at - 7
        found += run >= 8
    return found


@inlined
def _fill_histogram(found: Any, slots: Any, places: Any, histogram: Any, repeated: int) -> int:
    """How many of the grams at the ``repeated`` places are there so often; how often the most frequent one is."""
    largest: Any = 0
    for index in range(repeated):
        value = found[slots[index]]
        times = count_of(value)
        histogram[times] += is_first(value, places[index])
        largest = max(largest, times)
    return largest


@compiled
def _take_most_frequent(histogram: Any, single: int, largest: int) -> int:
    """Occurrences of the grams that are not single, of at most the square root of all different ones; empties the
    histogram."""
    distinct: Any = single
    frequent: Any = 0
    for times in range(2, largest + 1):
        distinct += histogram[times]
    left = np.int64(np.sqrt(max(distinct, 0)))
    for times in range(largest, 1, -1):
        taken = min(left, np.int64(histogram[times]))
        frequent += taken * times
        left -= taken
        histogram[times] = 0
    return frequent
