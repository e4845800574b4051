"""Answers taken from a passage: exact match and F1 as CMRC 2018's own evaluation counts them, for CLUE's reading sets.

A text is cut into units: every character that is none of ASCII by itself, and runs of ASCII without blanks; punctuation
is left out (of ASCII what stands between words: a point or per cent sign belongs to its number) and case does not
matter. F1 is of the longest run of units that answer and target have in common.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_UNIT = re.compile(r"[\x21-\x7e]+|[^\x00-\x20\x7f]")
_BETWEEN = frozenset("-:_*^/\\~`+=～")


def units(text: str) -> list[str]:
    """What is counted of an answer."""
    plain = "".join(" " if _is_punctuation(character) else character for character in text.lower())
    return [unit for unit in _UNIT.findall(plain) if not unit.isspace()]


def _is_punctuation(character: str) -> bool:
    return character in _BETWEEN or (not character.isascii() and unicodedata.category(character)[0] == "P")


def is_exact(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer is one of those accepted, punctuation, blanks and case apart."""
    said = "".join(units(answer))
    return any(said == "".join(units(target)) for target in accepted)


def f1(answer: str, accepted: Sequence[str]) -> float:
    """The best F1 that the answer has with one of those accepted, from 0 to 1."""
    said = units(answer)
    return max((_f1(said, units(target)) for target in accepted), default=0.0)


def _f1(said: list[str], target: list[str]) -> float:
    common = longest_common_run(said, target)
    return 2 * common / (len(said) + len(target)) if common else 0.0


def longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Units of the longest stretch that stands in both."""
    longest, before = 0, [0] * (len(second) + 1)
    for unit in first:
        row = [0] * (len(second) + 1)
        for place, other in enumerate(second):
            if unit == other:
                row[place + 1] = before[place] + 1
        longest, before = max(longest, *row), row
    return longest
