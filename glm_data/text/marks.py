"""Phrases that tell pages apart, links, and the lines that C4 keeps: one walk over a document's bytes.

The phrases are built into one automaton (Aho and Corasick 1975) whose table knows the next state for every byte, so
that each byte costs one look-up however many phrases there are; ASCII letters match in either case.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import load_word

LOREM, SCRIPT, POLICY, ADVERTISEMENT, LINK = 1, 2, 4, 8, 16
"""What a phrase is."""

POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LINKS = ("http://", "https://", "www.")
MARK_COUNTS = (
    "c4_paper_sentences", "c4_paper_banned", "c4_tfds_sentences", "c4_tfds_banned", "links", "link_characters",
    "advertisement_marks",
)  # fmt: skip
"""What :func:`count_marks` counts: sentences of the lines that C4 keeps and lines that make it drop the page, by the
paper (lines of 3 words or more) and by the code of TensorFlow Datasets (5); links, their characters; marks."""

SLOTS, _SHORTEST = 1 << 13, 4
"""Slots of the table of phrases by their last ``_SHORTEST`` bytes, which none is shorter than."""
_FOLD, _FOLD_ALL, _MIX = np.uint64(0x20202020), np.uint64(0x2020202020202020), np.uint64(0x9E3779B97F4A7C15)
_PLACES = 5
"""Places at which a phrase may end that eight bytes tell about."""
_FOUR_BYTES = np.uint64(0xFFFFFFFF)


class Phrases(NamedTuple):
    """All phrases, numbered from 1; a number 0 stands for none."""

    heads: NDArray[np.uint8]
    """``[SLOTS]``: the first phrase whose last four bytes, letters in lower case, fall into a slot."""
    following: NDArray[np.uint8]
    """The next one of the same slot."""
    starts: NDArray[np.int64]
    """Where each begins in ``folded``, which ends where the next one begins."""
    kinds: NDArray[np.uint8]
    folded: NDArray[np.uint8]
    """The phrases' bytes, ASCII letters in lower case."""


@lru_cache(maxsize=1)
def advertisements() -> tuple[str, ...]:
    """What shops, advertisements and the frames of web pages say; one is nothing, many in few lines are such a page."""
    return tuple(Path(__file__).with_name("advertisements.txt").read_text(encoding="utf-8").split("\n"))[:-1]


@lru_cache(maxsize=1)
def phrase_table() -> Phrases:
    """All phrases, to be looked up by their ends."""
    by_kind = (
        (LOREM, ("lorem ipsum",)),
        (SCRIPT, ("javascript",)),
        (POLICY, POLICIES),
        (ADVERTISEMENT, advertisements()),
        (LINK, LINKS),
    )
    phrases = [(kind, phrase.lower().encode()) for kind, some in by_kind for phrase in some]
    heads, following = np.zeros(SLOTS, np.uint8), np.zeros(len(phrases) + 1, np.uint8)
    for number, (_, phrase) in enumerate(phrases, 1):
        slot = _slot_of(np.uint64(int.from_bytes(phrase[-_SHORTEST:], "little")))
        following[number], heads[slot] = heads[slot], number
    starts = np.cumsum([0, 0, *(len(phrase) for _, phrase in phrases)])
    kinds = np.array([0, *(kind for kind, _ in phrases)], np.uint8)
    return Phrases(heads, following, starts, kinds, np.frombuffer(b"".join(p for _, p in phrases), np.uint8).copy())


@inlined
def _slot_of(last: Any) -> Any:
    return ((last & _FOUR_BYTES | _FOLD) * _MIX) >> np.uint64(51)


@compiled
def find_phrases(
    data: Any, start: int, end: int, heads: Any, following: Any,
    starts: Any, kinds: Any, folded: Any, counts: Any,
) -> int:  # fmt: skip
    """Count links and advertisement marks of a line; returns the kinds of phrases in it, or-ed."""
    seen, link_end, position = 0, start, _next_place(data, start + _SHORTEST - 1, end, heads)
    while position < end:
        found = _kinds_at(data, start, position + 1, heads, following, starts, kinds, folded)
        seen |= found
        counts[6] += found & ADVERTISEMENT != 0
        if found & LINK and position >= link_end:
            link_end = _end_of_link(data, position + 1, end)
            counts[4] += 1
            counts[5] += link_end - position - 1 + _scheme_length(data, position)
        position = _next_place(data, position + 1, end, heads)
    return seen


@compiled
def _next_place(data: Any, start: int, end: int, heads: Any) -> int:
    """The first byte from ``start`` on, three bytes behind the beginning of the line at least, at which a phrase may
    end, or ``end``. A loop of its own, that asks for five places at a time."""
    position = start
    while position + _PLACES <= end:
        word = load_word(data, position - _SHORTEST + 1) | _FOLD_ALL
        found = 0
        for place in range(_PLACES):
            found |= heads[_slot_of(word >> np.uint64(8 * place))]
        if found:
            break
        position += _PLACES
    while position < end and heads[_slot_of(_last_bytes(data, position + 1))] == 0:
        position += 1
    return position


@compiled
def _kinds_at(
    data: Any, start: int, end: int, heads: Any, following: Any,
    starts: Any, kinds: Any, folded: Any,
) -> int:  # fmt: skip
    """The kinds of the phrases that end at ``end``, or-ed."""
    found = 0
    if end - start < _SHORTEST:
        return found
    number = heads[_slot_of(_last_bytes(data, end))]
    while number:
        first, size = starts[number], starts[number + 1] - starts[number]
        same = end - start >= size
        for place in range(size):
            if not same:
                break
            byte = data[end - size + place]
            same = folded[first + place] == (byte | 0x20 if 0x41 <= byte <= 0x5A else byte)
        found |= kinds[number] if same else 0
        number = following[number]
    return found


@inlined
def _last_bytes(data: Any, end: int) -> Any:
    last = np.uint64(0)
    for place in range(_SHORTEST):
        last |= np.uint64(data[end - _SHORTEST + place]) << np.uint64(8 * place)
    return last


@inlined
def _end_of_link(data: Any, position: int, end: int) -> int:
    while position < end:
        byte = data[position]
        if byte <= 0x20 or byte >= 0x7F or byte == 0x3C or byte == 0x3E or byte == 0x22:
            break
        position += 1
    return position


@compiled
def _scheme_length(data: Any, position: int) -> int:
    """Characters of the ``http://``, ``https://`` or ``www.`` that ends at ``position``."""
    if data[position] == 0x2E:
        return 4
    return 8 if data[position - 3] | 0x20 == 0x73 else 7
