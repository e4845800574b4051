"""The similarity of two texts in plain Python, by its definition alone: compiled code is held against it.

Nothing here uses :mod:`glm_data.text` or the tables made for it. A text is folded character by character with
``unicodedata`` and OpenCC, becomes words and single characters, and every ``ngram`` of them in a row is a shingle.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Any, NamedTuple

_UNSPACED = (
    "CJK ",
    "HIRAGANA ",
    "KATAKANA",
    "HANGUL ",
    "BOPOMOFO ",
    "YI ",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
    "TIBETAN ",
)
"""How the names of characters begin whose scripts put no spaces between words."""
_ACCENTS = (*range(0x0300, 0x0370), 0x3099, 0x309A)


class Similarity(NamedTuple):
    """How alike two texts are."""

    jaccard: float
    """Shingles of both among the shingles of either."""
    containment: float
    """Shingles of both among the shingles of the first."""


def compare(first: str, second: str, ngram: int, *, fold_digits: bool = False, unit: str = "word") -> Similarity:
    """Compare two texts by their sets of shingles."""
    one, other = (shingles(text, ngram, fold_digits=fold_digits, unit=unit) for text in (first, second))
    shared = len(one & other)
    return Similarity(shared / len(one | other), shared / len(one))


def shingles(text: str, ngram: int, *, fold_digits: bool = False, unit: str = "word") -> set[Any]:
    """The set of a text's shingles: tuples of tokens, or the one text itself where it has no token."""
    apart = unit == "character" or (unit == "auto" and has_ideographs(text))
    found = characters(text, fold_digits=fold_digits) if apart else tokens(text, fold_digits=fold_digits)
    if apart and len(found) < ngram:
        found = [character for character in found if character != "!"]
    if not found:
        return {text}
    return {tuple(found[at : at + ngram]) for at in range(max(1, len(found) - ngram + 1))}


def tokens(text: str, *, fold_digits: bool = False) -> list[str]:
    """The words and single characters of a text, folded, in order."""
    found: list[str] = [""]
    for character in "".join(map(fold, text)):
        kind = unicodedata.category(character)
        if kind == "Cf" or _is_selector(character):
            continue
        if kind[0] not in "LMN":
            found.append("")
        elif _stands_alone(character) and not (fold_digits and kind == "Nd"):
            found += [character, ""]
        elif fold_digits and kind == "Nd":
            found[-1] += "" if found[-1].endswith("0") else "0"
        else:
            found[-1] += character
    return [token for token in found if token]


def characters(text: str, *, fold_digits: bool = False) -> list[str]:
    """The letters, digits and marks of a text, folded, in order; any sign is ``!``."""
    found: list[str] = []
    for character in "".join(map(fold, text)):
        kind = unicodedata.category(character)
        if kind in ("Cc", "Cf", "Cn") or kind[0] == "Z" or _is_selector(character):
            continue
        if fold_digits and kind == "Nd":
            found += [] if found and found[-1] == "0" else ["0"]
        else:
            found.append(character if kind[0] in "LMN" else "!")
    return found


def has_ideographs(text: str) -> bool:
    """Whether one in 64 visible characters lies from U+4000 to U+DFFF: Han and Hangul."""
    found = sum("\u4000" <= character <= "\udfff" for character in text)
    return found * 64 >= sum(character > " " and character != "\u3000" for character in text) and found > 0


@functools.cache
def fold(character: str) -> str:
    """A character as it is compared: compatibility forms, accents, case and traditional forms undone."""
    for _ in range(2):
        character = _without_accents(unicodedata.normalize("NFKD", character)).casefold()
    composed = unicodedata.normalize("NFC", _without_accents(character))
    return "".join(map(_simplify, composed))


def _without_accents(text: str) -> str:
    return "".join(part for part in text if ord(part) not in _ACCENTS)


def _simplify(character: str) -> str:
    for _ in range(2):
        for converter in _converters():
            character = converter.convert(character)
    return character


@functools.cache
def _converters() -> tuple[Any, ...]:
    import opencc

    return opencc.OpenCC("tw2s"), opencc.OpenCC("hk2s")


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _stands_alone(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED) or character in "々〇"
