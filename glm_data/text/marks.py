"""Phrases that tell pages apart, and links, looked up by the four bytes that they end with.

However many phrases there are, two bytes cost one look-up: a bit says whether a phrase may end at a place or at the one
behind it. ASCII letters match in either case.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import has_zero_byte, load_word

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

_SLOT_BITS, _SHORTEST = 13, 4
"""The logarithm of the slots of phrases by their last ``_SHORTEST`` bytes, which none is shorter than."""
_NEAR_BITS = 16
"""The logarithm of the bits that say whether four bytes are the last ones of a phrase, or those before its last."""
_FOLD, _FOLD_ALL, _MIX = np.uint64(0x20202020), np.uint64(0x2020202020202020), np.uint64(0x9E3779B97F4A7C15)
_PLACES = 6
"""Places at which a phrase may end that eight bytes tell about."""
_FOUR_BYTES = np.uint64(0xFFFFFFFF)
_WS, _NO_PAIR = np.uint64(0x7777777777777777), np.uint64(0xFF << 56)


class Phrases(NamedTuple):
    """All phrases, numbered from 1; a number 0 stands for none."""

    near: NDArray[np.uint8]
    """A bit for each hash of four bytes that end a phrase, or stand before its last byte."""
    heads: NDArray[np.uint8]
    """The first phrase whose last four bytes, letters in lower case, fall into a slot."""
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
    near = np.zeros(1 << _NEAR_BITS, np.uint8)
    heads, following = np.zeros(1 << _SLOT_BITS, np.uint8), np.zeros(len(phrases) + 1, np.uint8)
    for number, (_, phrase) in enumerate(phrases, 1):
        slot = _hash_of(_packed(phrase[-_SHORTEST:]), _SLOT_BITS)
        following[number], heads[slot] = heads[slot], number
        for four in (phrase[-_SHORTEST:], phrase[-_SHORTEST - 1 : -1]):
            near[_hash_of(_packed(four), _NEAR_BITS)] |= len(four) == _SHORTEST  # of www. a pair of w tells
    near = np.packbits(near, bitorder="little")
    starts = np.cumsum([0, 0, *(len(phrase) for _, phrase in phrases)])
    kinds = np.array([0, *(kind for kind, _ in phrases)], np.uint8)
    folded = np.frombuffer(b"".join(phrase for _, phrase in phrases), np.uint8).copy()
    return Phrases(near, heads, following, starts, kinds, folded)


def _packed(four: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(four, "little"))


@inlined
def _hash_of(last: Any, bits: int) -> Any:
    """A hash, of so many bits, of the lowest four bytes, ASCII letters in lower case."""
    return ((last & _FOUR_BYTES | _FOLD) * _MIX) >> np.uint64(64 - bits)


@compiled
def find_phrases(
    data: Any, position: int, start: int, end: int, text_end: int, phrases: Any, counts: Any
) -> tuple[int, int]:
    """Count links and advertisement marks of the line from byte ``start`` to ``end``, from ``position`` on, where the
    first may end; returns the kinds of phrases in it, or-ed, and where the next of the text may end."""
    near, heads, following, starts, kinds, folded = phrases
    seen, link_end = 0, start
    while position < end:
        found = _kinds_at(data, start, position + 1, heads, following, starts, kinds, folded)
        seen |= found
        counts[6] += found & ADVERTISEMENT != 0
        if found & LINK and position >= link_end:
            link_end = _end_of_link(data, position + 1, end)
            counts[4] += 1
            counts[5] += link_end - position - 1 + _scheme_length(data, position)
        position = _next_place(data, position + 1, text_end, near, heads)
    return seen, position


@inlined
def find_first_phrase(data: Any, start: int, end: int, phrases: Any) -> int:
    """Where the first phrase of a text may end; ``phrases`` are pointers to the arrays of :class:`Phrases`."""
    return _next_place(data, start + _SHORTEST - 1, end, phrases[0], phrases[1])


@compiled
def _next_place(data: Any, start: int, end: int, near: Any, heads: Any) -> int:
    """The first byte from ``start`` on, three bytes behind the beginning of the text at least, at which a phrase may
    end, or ``end`` or beyond. Six places are asked for at a time."""
    position = start
    while position < end:
        while position + _PLACES <= end and not _is_near(load_word(data, position - _SHORTEST + 1), near):
            position += _PLACES
        behind = min(position + _PLACES, end)
        while position < behind:
            if heads[_hash_of(_last_bytes(data, position + 1), _SLOT_BITS)]:
                return position
            position += 1
    return position


@inlined
def _is_near(word: Any, near: Any) -> bool:
    """Whether a phrase may end with the fourth of eight bytes, or with one of the four bytes behind it, or the next."""
    found = np.uint64(0)
    for place in (0, 2, 4):
        four = _hash_of(word >> np.uint64(8 * place), _NEAR_BITS)
        found |= np.uint64(near[four >> np.uint64(3)]) >> (four & np.uint64(7))
    apart = (word | _FOLD_ALL) ^ _WS
    return bool(found & np.uint64(1)) or has_zero_byte(apart | apart >> np.uint64(8) | _NO_PAIR)


@compiled
def _kinds_at(
    data: Any, start: int, end: int, heads: Any, following: Any,
    starts: Any, kinds: Any, folded: Any,
) -> int:  # fmt: skip
    """The kinds of the phrases that end at ``end``, or-ed."""
    found = 0
    if end - start < _SHORTEST:
        return found
    number = heads[_hash_of(_last_bytes(data, end), _SLOT_BITS)]
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
