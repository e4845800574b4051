"""The folding of text to comparison keys, as one table from code point to folded code points.

Two texts that differ only in compatibility forms (full width, ligatures), case, traditional or simplified Chinese
characters, Latin accents, punctuation, white space or invisible characters fold to the same key. The text itself is
never changed: compiled kernels look the table up while they read the UTF-8.

A table entry is a ``uint32``::

    bits 0-20   the folded code point; of an expansion, the index of its first entry in ``expansions``
    bits 21-22  what the character is to a key: BREAK, WORD, CHARACTER or NOTHING
    bit  23     set if the character folds to several, an expansion
    bits 24-31  how many entries an expansion has (at most 18, for U+FDFA)

* ``BREAK`` (white space, punctuation, symbols, private use) ends a word and leaves no trace; but for white space and
  control characters its code point is :data:`SIGN`, so that keys made of single characters can count it;
* ``WORD`` is part of a word: letters, marks and digits of scripts that put spaces between words;
* ``CHARACTER`` counts as a word of its own: Han, Kana, Hangul, Thai and other scripts written without spaces;
* ``NOTHING`` (accents, voicing marks, zero-width and other invisible characters) is read over.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

BREAK, WORD, CHARACTER, NOTHING = range(4)
SIGN = 1
"""What every punctuation mark and symbol folds to."""
KIND_SHIFT, EXPANSION_FLAG, LENGTH_SHIFT, CODE_POINT_MASK = 21, 1 << 23, 24, (1 << 21) - 1
DIGIT = ord("0") | WORD << KIND_SHIFT
"""The entry of every decimal digit when digits are folded."""

_CODE_POINTS = 0x110000
_HAN = (
    (0x3400, 0x4DC0),
    (0x4E00, 0xA000),
    (0xF900, 0xFB00),
    (0x20000, 0x2FFFE),
    (0x30000, 0x3FFFE),
)
"""Unified and compatibility ideographs; planes 2 and 3 whole, so that extensions newer than Python count as Han."""
_WITHOUT_SPACES = (
    *((0x0E00, 0x0F00), (0x0F00, 0x1000), (0x1000, 0x10A0), (0x1100, 0x1200), (0x1780, 0x1800), (0x1A20, 0x1AB0)),
    *((0x2E80, 0x2FE0), (0x3005, 0x3008), (0x3021, 0x3030), (0x3031, 0x3100), (0x3100, 0x3200), (0x31F0, 0x3200)),
    *((0xA000, 0xA4D0), (0xA960, 0xA980), (0xAC00, 0xD800), (0x1B000, 0x1B170)),
    *_HAN,
)
"""Thai to Tibetan, Burmese, Khmer, Tai Tham, Kana, Bopomofo, Hangul, Yi, and Han."""
_READ_OVER = ((0x0300, 0x0370), (0x3099, 0x309B), (0xFE00, 0xFE10), (0xE0000, 0xE0FFF))
"""Combining accents, the two Kana voicing marks, variation selectors and tags."""
_WITHOUT_ACCENTS = dict.fromkeys(code_point for start, stop in _READ_OVER[:2] for code_point in range(start, stop))
_SCANNED = (range(0x80, 0x3400), range(0x4DC0, 0x4E00), range(0xA000, 0xD800), range(0xF900, 0x20000))
"""Where code points are looked up one by one; of the rest, only the ideographs that have another form."""


class FoldTable(NamedTuple):
    """``entries: uint32[0x110000]`` by code point, and ``expansions: uint32[...]`` that entries point into."""

    entries: npt.NDArray[np.uint32]
    expansions: npt.NDArray[np.uint32]
    growth: int
    """The most tokens that one byte of UTF-8 can become, rounded up: sizes the kernels' buffers."""


@functools.cache
def fold_table(fold_digits: bool = False) -> FoldTable:
    """Build the table (about half a second, once a process) from ``unicodedata`` and OpenCC.

    Args:
        fold_digits: fold every decimal digit to ``0``; kernels then read a run of digits as a single one.
    """
    simplified = _simplified_characters()
    alone = _mask(_WITHOUT_SPACES)
    entries = np.zeros(_CODE_POINTS, np.uint32)
    han = np.flatnonzero(np.frombuffer(_mask(_HAN), np.uint8)).astype(np.uint32)
    entries[han] = han | np.uint32(CHARACTER << KIND_SHIFT)
    expansions: list[int] = []
    growth = 1.0
    for character in _characters_to_scan(simplified):
        folded = [_entry(part, alone, fold_digits) for part in fold_character(character, simplified)]
        entries[ord(character)] = _pack(folded, expansions)
        if len(folded) > 1:
            growth = max(growth, _most_tokens(folded) / len(character.encode()))
    for start, stop in _READ_OVER:
        entries[start:stop] = NOTHING << KIND_SHIFT
    return FoldTable(entries, np.array(expansions, np.uint32), int(np.ceil(growth)))


def _characters_to_scan(simplified: dict[str, str]) -> Iterable[str]:
    yield from map(chr, range(0x80))
    for scanned in _SCANNED:
        yield from (character for character in map(chr, scanned) if unicodedata.category(character) != "Cn")
    yield from simplified
    yield from (character for character in map(chr, range(0x2F800, 0x2FA20)) if character not in simplified)


def _pack(folded: list[int], expansions: list[int]) -> int:
    if not folded:
        return NOTHING << KIND_SHIFT
    if len(folded) == 1:
        return folded[0]
    expansions.extend(folded)
    return (len(expansions) - len(folded)) | EXPANSION_FLAG | len(folded) << LENGTH_SHIFT


def _most_tokens(folded: list[int]) -> int:
    kinds = [entry >> KIND_SHIFT & 3 for entry in folded]
    return kinds.count(CHARACTER) + kinds.count(BREAK) + 1


def _entry(character: str, alone: bytes, fold_digits: bool) -> int:
    code_point = ord(character)
    category = unicodedata.category(character)
    if fold_digits and category == "Nd":
        return DIGIT
    if category[0] in "LMN" or (category == "Cn" and alone[code_point]):
        return code_point | (CHARACTER if alone[code_point] else WORD) << KIND_SHIFT
    if category == "Cf":
        return NOTHING << KIND_SHIFT
    return BREAK << KIND_SHIFT | (0 if category[0] == "Z" or category in ("Cc", "Cn") else SIGN)


def _mask(ranges: Iterable[tuple[int, int]]) -> bytes:
    mask = bytearray(_CODE_POINTS)
    for start, stop in ranges:
        mask[start:stop] = b"\1" * (stop - start)
    return bytes(mask)


def fold_character(character: str, simplified: dict[str, str]) -> str:
    """Fold one character: compatibility decomposition, accents off, case, then traditional to simplified.

    What is left is composed again, so that Hangul stays syllables. Breaks are still in the result (``½`` is ``1⁄2``).
    """
    if unicodedata.is_normalized("NFKD", character) and character == character.casefold():
        return simplified.get(character, character)
    for _ in range(2):
        character = unicodedata.normalize("NFKD", character).translate(_WITHOUT_ACCENTS).casefold()
    composed = unicodedata.normalize("NFC", character.translate(_WITHOUT_ACCENTS))
    return "".join(simplified.get(part, part) for part in composed)


@functools.cache
def _simplified_characters() -> dict[str, str]:
    """Han characters whose simplified form differs, by OpenCC's conversion of the character alone.

    Taiwan's and Hong Kong's variants are taken along; phrases are not looked at: both twins fold alike, which is all
    that a key needs (measured: a traditional twin keeps a Jaccard of 0.998 with its original on the average).
    """
    import opencc

    characters = [chr(code_point) for start, stop in _HAN for code_point in range(start, stop)]
    joined = "\n".join(characters)
    for config in ("tw2s", "hk2s") * 2:  # twice, so that no form is left that would itself be simplified
        joined = opencc.OpenCC(config).convert(joined)
    converted = joined.split("\n")
    return {before: after for before, after in zip(characters, converted, strict=True) if before != after}
