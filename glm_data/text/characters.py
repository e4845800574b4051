"""Classes of characters as one table over the Basic Multilingual Plane, for kernels that walk UTF-8.

An entry of the table is a class in its low four bits, and marks above them. Planes beyond are classed by rule: Han
in 2 and 3, symbols (emoji) in 1, letters elsewhere.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.text.compiled import compiled

HAN, KANA, HANGUL, LATIN, LETTER, DIGIT, SPACE, PUNCTUATION, SYMBOL, GARBLED, CONTROL = range(11)
"""Classes. ``LETTER`` is a letter of any other script; ``GARBLED`` U+FFFD, private use and unassigned."""

CLASS_BITS = 0xF
END_MARK, CLOSER, BULLET, SIMPLIFIED, TRADITIONAL = 0x10, 0x20, 0x40, 0x80, 0x100
"""Marks. ``CLOSER``: quotes and brackets that may follow an end mark. ``SIMPLIFIED``, ``TRADITIONAL``: characters that
OpenCC changes on the way to the other script, so that they tell which one a text is in."""

END_MARKS = ".!?。！？…．｡"
CLOSERS = "\"'”’»)]}」』）】》〉］｝"
BULLETS = "•-*+·●○■□▪◆◇▶►–—※★☆"

_HAN_RANGES = ((0x3005, 0x3007), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
_KANA_RANGES = ((0x3041, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D))
_HANGUL_RANGES = ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3))
_SCRIPTS = ((HAN, _HAN_RANGES), (KANA, _KANA_RANGES), (HANGUL, _HANGUL_RANGES))
_BY_CATEGORY = {"L": LETTER, "M": LETTER, "N": DIGIT, "P": PUNCTUATION, "S": SYMBOL, "Z": SPACE}


def classify(character: str) -> int:
    """The class of one character."""
    point = ord(character)
    if point > 0xFFFF:
        return HAN if 0x20000 <= point < 0x40000 else SYMBOL if point < 0x20000 else LETTER
    if character in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85":
        return SPACE
    for script, ranges in _SCRIPTS:
        if any(first <= point <= last for first, last in ranges) and character != "〆":
            return script
    category = unicodedata.category(character)
    if character == "\ufffd" or category in ("Co", "Cn", "Cs"):
        return GARBLED
    if category[0] == "C" or 0xFE00 <= point <= 0xFE0F:  # variation selectors belong to the character before
        return CONTROL
    if category[0] in "LM" and ("LATIN" in unicodedata.name(character, "") or 0x0300 <= point <= 0x036F):
        return LATIN
    return _BY_CATEGORY[category[0]]


@lru_cache(maxsize=1)
def character_table() -> NDArray[np.uint16]:
    """``uint16[65536]``: class and marks of every character of the plane (0.1 s, once a process)."""
    table = np.array([classify(chr(point)) for point in range(0x10000)], np.uint16)
    for marks, bit in ((END_MARKS, END_MARK), (CLOSERS, CLOSER), (BULLETS, BULLET)):
        table[[ord(mark) for mark in marks]] |= bit
    simplified, traditional = script_characters()
    table[[ord(character) for character in simplified]] |= SIMPLIFIED
    table[[ord(character) for character in traditional]] |= TRADITIONAL
    return table


@lru_cache(maxsize=1)
def script_characters() -> tuple[frozenset[str], frozenset[str]]:
    """The Han characters that only simplified and only traditional Chinese uses, by OpenCC's tables."""
    import opencc

    characters = [chr(point) for first, last in _HAN_RANGES[1:3] for point in range(first, last + 1)]
    lines = "\n".join(characters)
    to_simplified = opencc.OpenCC("t2s").convert(lines).split("\n")
    to_traditional = opencc.OpenCC("s2t").convert(lines).split("\n")
    traditional = {mine for mine, other in zip(characters, to_simplified, strict=True) if mine != other}
    simplified = {mine for mine, other in zip(characters, to_traditional, strict=True) if mine != other}
    return frozenset(simplified - traditional), frozenset(traditional - simplified)


@compiled
def decode_at(data: NDArray[np.uint8], position: int) -> Any:
    """The code point at ``position`` of valid UTF-8, and its number of bytes."""
    first = np.uint32(data[position])
    if first < 0x80:
        return first, 1
    second = np.uint32(data[position + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, 2
    third = np.uint32(data[position + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0xF) << 12 | second << 6 | third, 3
    return (first & 7) << 18 | second << 12 | third << 6 | np.uint32(data[position + 3]) & 0x3F, 4


@compiled
def entry_of(table: NDArray[np.uint16], point: int) -> Any:
    """The table's entry of a code point of any plane."""
    if point < 0x10000:
        return table[point]
    if 0x20000 <= point < 0x40000:
        return np.uint16(0)  # HAN
    return np.uint16(8) if point < 0x20000 else np.uint16(4)  # SYMBOL, LETTER
