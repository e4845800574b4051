"""Counts the words of a corpus: what a vocabulary is trained on, in memory that does not grow with the corpus.

Merging never crosses certain places, so a text may be cut there and equal parts counted together. Cut are ::

    line ends and tabs, runs of spaces       symbols of their own: between words, in no word
    digits                                   each a word of its own
    foo(bar_baz, 中文。)                      foo | (bar_baz | , | ␣中文 | 。 | )

that is: letters with one space or sign before them; Han and kana; signs of ASCII; signs of Chinese typesetting; each
with a space before it if it has just one. Long Han runs hardly repeat, so they are cut again where two neighbours are
rarer together than any piece worth having: a piece is at most as frequent as any two neighbours in it, so cutting
between pairs below a bound loses no piece of that frequency or more. The pairs are counted first (:class:`Survey`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from glm_data.kernels import compiled
from tokenizer.kernels import CODE_POINTS, read_point, slot

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

LONGEST_WORD = 64
"""Characters; longer runs are cut there. No piece has more than 16."""

LETTER, HAN, SIGN, WIDE_SIGN, DIGIT, SPACE, BOUNDARY = range(7)
"""Classes of characters."""

_LONGEST_SPACES = 16
_HAN_RANGES = ((0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_WIDE_RANGES = ((0x00A0, 0x00BF), (0x2000, 0x206F), (0x3000, 0x3004), (0x3008, 0x3020), (0xFE30, 0xFE4F))
_FULL_WIDTH = (0xFF00, 0xFFEF)
_BOUNDARIES = (0x00, 0x09, 0x0A, 0x1F, 0x2581, 0x2585)
"""Symbols of their own, and what SentencePiece's trainer keeps for itself."""

_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_GROUP_FACTOR = np.uint64(0x9E3779B1)
_PAIR_SHIFT = 21


class Words(NamedTuple):
    """Different words and how often each occurred in which group: word i is ``letters[ends[i] : ends[i + 1]]``."""

    letters: Bytes
    ends: Integers
    """``int64[words + 1]``, from 0."""
    groups: npt.NDArray[np.int32]
    counts: Integers
    hashes: npt.NDArray[np.uint64]
    """Of the letters alone."""


def character_classes() -> Bytes:
    """``uint8[0x110001]``: the class of every code point; the last place is for bytes that are not UTF-8."""
    classes = np.full(CODE_POINTS + 1, LETTER, np.uint8)
    classes[:0x80] = [LETTER if chr(point).isalpha() or chr(point) == "_" else SIGN for point in range(0x80)]
    for kind, ranges in ((HAN, _HAN_RANGES), (WIDE_SIGN, (*_WIDE_RANGES, _FULL_WIDTH))):
        for first, last in ranges:
            classes[first : last + 1] = kind
    classes[0xFF10:0xFF1A] = DIGIT
    classes[0x30:0x3A] = DIGIT
    classes[0x20] = SPACE
    classes[0xD800:0xE000] = BOUNDARY
    classes[[*_BOUNDARIES, CODE_POINTS]] = BOUNDARY
    return classes


class Survey:
    """First pass: how often each character occurs by language, and each pair of Han neighbours."""

    def __init__(self) -> None:
        self.characters = np.zeros((0, CODE_POINTS + 1), np.int64)
        """``int64[languages, 0x110001]``: occurrences by code point; as many languages as were met."""
        self._classes = character_classes()
        self._pairs, self._counts = _empty_map(1 << 12)
        self._used = 0

    def add(self, text: Bytes, offsets: Integers, languages: npt.NDArray[np.int32]) -> None:
        """Read texts ``text[offsets[i] : offsets[i + 1]]``; ``languages`` are their numbers, from 0."""
        text, missing = _frozen(text), int(languages.max(initial=-1)) + 1 - len(self.characters)
        if missing > 0:
            self.characters = np.concatenate([self.characters, np.zeros((missing, CODE_POINTS + 1), np.int64)])
        for document, language in enumerate(languages.tolist()):
            at, end = int(offsets[document]), int(offsets[document + 1])
            while at < end:
                characters = self.characters[language]
                at, self._used = _survey(
                    text, at, end, self._classes, characters, self._pairs, self._counts, self._used
                )
                if at < end:
                    self._grow()

    def pairs(self) -> tuple[Integers, Integers]:
        """Pairs of Han neighbours (``left << 21 | right``), ascending, and how often each occurred."""
        found = np.flatnonzero(self._pairs >= 0)
        order = found[np.argsort(self._pairs[found])]
        return self._pairs[order], self._counts[order]

    def _grow(self) -> None:
        held, counts = self.pairs()
        self._pairs, self._counts = _empty_map(2 * len(self._pairs))
        _refill(held, counts, self._pairs, self._counts)


class WordCounter:
    """Second pass: counts words in a table of fixed size, and hands it on whenever it is full."""

    def __init__(
        self,
        pairs: Integers | None,
        hand_on: Callable[[Words], None],
        most_words: int = 1 << 20,
        most_bytes: int = 1 << 25,
    ) -> None:
        """``pairs`` are the Han neighbours that stay together (None: all). A word may be handed on more than once."""
        self._classes = character_classes()
        self._pairs = np.full(1, -2, np.int64) if pairs is None else pair_table(pairs)
        self._hand_on = hand_on
        self._slots = np.zeros(1 << (2 * most_words - 1).bit_length(), np.int64)
        self._hashes, self._groups = np.empty(most_words, np.uint64), np.empty(most_words, np.int32)
        self._ends, self._counts = np.zeros(most_words + 1, np.int64), np.zeros(most_words, np.int64)
        self._letters = np.empty(most_bytes, np.uint8)
        self._words = 0

    def add(self, text: Bytes, offsets: Integers, groups: npt.NDArray[np.int32]) -> None:
        """Count the words of texts as in :meth:`Survey.add`; ``groups`` are any numbers from 0."""
        text = _frozen(text)
        for document, group in enumerate(groups.tolist()):
            at, end = int(offsets[document]), int(offsets[document + 1])
            while at < end:
                at, self._words = _count(text, at, end, group, self._classes, self._pairs, self._words, self._table())
                if at < end:
                    self.flush()

    def flush(self) -> None:
        """Hand on what is in the table, and empty it; to be called after the last text, too."""
        words = self._words
        if words:
            letters = self._letters[: self._ends[words]].copy()
            ends, groups = self._ends[: words + 1].copy(), self._groups[:words].copy()
            self._hand_on(Words(letters, ends, groups, self._counts[:words].copy(), self._hashes[:words].copy()))
        self._slots[:] = 0
        self._words = 0

    def _table(self) -> tuple[Any, ...]:
        return self._slots, self._hashes, self._groups, self._ends, self._counts, self._letters


def pair_table(pairs: Integers) -> Integers:
    """Pairs as the hash set that the kernel reads."""
    slots, counts = _empty_map(max(16, 1 << (2 * len(pairs)).bit_length()))
    _refill(pairs, np.ones(len(pairs), np.int64), slots, counts)
    return slots


def _empty_map(size: int) -> tuple[Integers, Integers]:
    return np.full(size, -1, np.int64), np.zeros(size, np.int64)


def _frozen(text: Bytes) -> Bytes:
    """Read-only, or numba would compile everything once more for arrays that may be written."""
    text = text.view()
    text.flags.writeable = False
    return text


# --- compiled ---------------------------------------------------------------------------------------------------------


@compiled
def _refill(keys: np.ndarray, counts: np.ndarray, slots: np.ndarray, held: np.ndarray) -> None:
    for index in range(len(keys)):
        at = slot(keys[index], slots)
        slots[at], held[at] = keys[index], counts[index]


@compiled
def _survey(
    text: np.ndarray,
    at: int,
    end: int,
    classes: np.ndarray,
    characters: np.ndarray,
    pairs: np.ndarray,
    counts: np.ndarray,
    used: int,
) -> tuple[int, int]:
    """Count from ``text[at]`` to ``end``, or to where the table of pairs is half full; returns (at, used)."""
    left = np.int64(-1)
    while at < end and 2 * used < len(pairs):
        point, size = read_point(text, at, end)
        characters[point] += 1
        if classes[point] != HAN:
            left = np.int64(-1)
        else:
            if left >= 0:
                place = slot(left << _PAIR_SHIFT | point, pairs)
                used += pairs[place] == -1
                pairs[place] = left << _PAIR_SHIFT | point
                counts[place] += 1
            left = np.int64(point)
        at += size
    if at < end and left >= 0:  # the pair that spans the stop is counted when reading goes on at its left character
        at -= 3 if left < 0x10000 else 4
        characters[left] -= 1
    return at, used


@njit(cache=True, nogil=True, inline="always")
def word_end(text: np.ndarray, at: int, end: int, classes: np.ndarray, pairs: np.ndarray) -> int:
    """Where the word ends that begins at ``text[at]``, which is not in a run of spaces."""
    left, size = read_point(text, at, end)
    kind, stop = classes[left], at + size
    if stop == end or kind in (BOUNDARY, DIGIT):
        return stop
    right, size = read_point(text, stop, end)
    other = classes[right]
    if kind == SPACE:
        if other in (BOUNDARY, DIGIT, SPACE):
            return stop
        kind, left, stop = other, right, stop + size
    elif kind == SIGN and other == LETTER:
        kind, left, stop = other, right, stop + size
    cuts = kind == HAN and pairs[0] != -2
    length = 1
    while stop < end and length < LONGEST_WORD:
        right, size = read_point(text, stop, end)
        if classes[right] != kind or (cuts and pairs[slot(left << _PAIR_SHIFT | right, pairs)] == -1):
            break
        left, stop, length = right, stop + size, length + 1
    return stop


@compiled
def _count(
    text: np.ndarray,
    at: int,
    end: int,
    group: int,
    classes: np.ndarray,
    pairs: np.ndarray,
    words: int,
    table: tuple[Any, ...],
) -> tuple[int, int]:
    """Count the words from ``text[at]`` to ``end``, or to the first for which there is no room; returns (at, words)."""
    slots, hashes, groups, ends, counts, letters = table
    last = len(slots) - 1
    while at < end:
        run = 0
        while at + run < end and text[at + run] == 0x20:
            run += 1
        if run > 1:  # SentencePiece takes the longest symbols first: of 17 spaces one is left to the word
            at += run - (run % _LONGEST_SPACES == 1)
            continue
        stop = word_end(text, at, end, classes, pairs)
        if classes[read_point(text, at, end)[0]] == BOUNDARY:
            at = stop
            continue
        hashed = _FNV_OFFSET
        for place in range(at, stop):
            hashed = (hashed ^ np.uint64(text[place])) * _FNV_PRIME
        where = np.int64(((hashed ^ hashed >> np.uint64(29)) + np.uint64(group) * _GROUP_FACTOR) & np.uint64(last))
        while slots[where] and not _is(slots[where] - 1, text, at, stop, group, hashed, hashes, groups, ends, letters):
            where = (where + 1) & last
        if slots[where]:
            counts[slots[where] - 1] += 1
        else:
            begin = ends[words]
            if words == len(hashes) or begin + stop - at > len(letters):
                return at, words
            for place in range(at, stop):  # not a slice: numba would spend two seconds on the error of one that fails
                letters[begin + place - at] = text[place]
            hashes[words], groups[words], counts[words], ends[words + 1] = hashed, group, 1, begin + stop - at
            words += 1
            slots[where] = words
        at = stop
    return at, words


@njit(cache=True, nogil=True, inline="always")
def _is(
    word: int,
    text: np.ndarray,
    at: int,
    stop: int,
    group: int,
    hashed: int,
    hashes: np.ndarray,
    groups: np.ndarray,
    ends: np.ndarray,
    letters: np.ndarray,
) -> bool:
    begin = ends[word]
    if hashes[word] != hashed or groups[word] != group or ends[word + 1] - begin != stop - at:
        return False
    place = 0
    while place < stop - at and letters[begin + place] == text[at + place]:
        place += 1
    return place == stop - at
