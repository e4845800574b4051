"""Two texts side by side: where they differ, by words and by single characters of Chinese."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import NamedTuple

from glm_data.viewer.styled import Span, clip, reveal

_SEGMENT = re.compile(r"[^\n。！？；.!?;]*(?:[\n。！？；]|[.!?;]+\s*|$)")
"""A line or a sentence: what is matched first, so that long texts stay quick to compare."""
_TOKEN = re.compile(
    r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]|[^\W\u2e80-\u9fff\uac00-\ud7af]+|\s+|."
)
"""A single Han, Kana or Hangul character, a word, white space, any other character."""
_SHORT = 9
"""Characters alike between two passages that are passed over without a word."""
_MOST_TOKENS = 1500
"""Tokens of a differing passage that are matched one by one; longer ones are shown as wholly different."""


class Passage(NamedTuple):
    """Passages that face each other: pieces of text, and whether each differs from the other side."""

    left: tuple[tuple[str, bool], ...]
    right: tuple[tuple[str, bool], ...]
    alike_before: int
    """Characters alike between the passage before and this one."""


def passages(left: str, right: str) -> Iterator[Passage]:
    """The passages in which two texts differ, in order; none for equal texts."""
    one, other = _split(left), _split(right)
    alike = 0
    for name, a, a_end, b, b_end in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if name == "equal":
            alike += sum(map(len, one[a:a_end]))
            continue
        yield Passage(*_mark("".join(one[a:a_end]), "".join(other[b:b_end])), alike)
        alike = 0


def _split(text: str) -> list[str]:
    return [part for part in _SEGMENT.findall(text) if part]


def _mark(left: str, right: str) -> tuple[tuple[tuple[str, bool], ...], tuple[tuple[str, bool], ...]]:
    one, other = _TOKEN.findall(left), _TOKEN.findall(right)
    if max(len(one), len(other)) > _MOST_TOKENS:
        return ((left, True),), ((right, True),)
    marked: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    steps = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    for number, (name, a, a_end, b, b_end) in enumerate(steps):
        is_gap = 0 < number < len(steps) - 1 and "".join(one[a:a_end]).isspace()  # a blank between words that differ
        for side, tokens in zip(marked, (one[a:a_end], other[b:b_end]), strict=True):
            _extend(side, "".join(tokens), differs=name != "equal" or is_gap)
    return tuple(marked[0]), tuple(marked[1])


def _extend(side: list[tuple[str, bool]], text: str, *, differs: bool) -> None:
    """Append ``text``, to the last piece if that is of its kind."""
    if text and side and side[-1][1] == differs:
        side[-1] = (side[-1][0] + text, differs)
    elif text:
        side.append((text, differs))


class Facing(NamedTuple):
    """A passage as spans to be painted; the last may hold none and only say how much is alike behind the others."""

    left: list[Span]
    right: list[Span]
    alike_before: int


def side_by_side(left: str, right: str, characters: int) -> list[Facing]:
    """The passages in which two texts differ as spans, ``removed`` on the left and ``added`` on the right, at most
    ``characters`` of each side; few characters alike between two passages or behind the last are passed over."""
    found = list(passages(left, right))
    facing = [
        Facing(
            _spans(passage.left, "removed", characters),
            _spans(passage.right, "added", characters),
            passage.alike_before if passage.alike_before > _SHORT else 0,
        )
        for passage in found
    ]
    behind = len(left) - sum(passage.alike_before + sum(len(text) for text, _ in passage.left) for passage in found)
    return [*facing, Facing([], [], behind)] if found and behind > _SHORT else facing


def _spans(pieces: tuple[tuple[str, bool], ...], style: str, characters: int) -> list[Span]:
    return clip((span for text, differs in pieces for span in reveal(text, style if differs else "")), characters)
