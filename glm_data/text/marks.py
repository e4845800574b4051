"""Phrases that tell pages apart, links, and the lines that C4 keeps: one walk over a document's bytes.

The phrases are built into one automaton (Aho and Corasick 1975) whose table knows the next state for every byte, so
that each byte costs one look-up however many phrases there are; ASCII letters match in either case.
"""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.text.compiled import compiled

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

LONGEST_WORD = 1000
"""Characters of a word that make C4 drop its line."""


class Automaton(NamedTuple):
    """``next: uint16[states, 256]``; ``found: uint8[states]``, what phrases end at a state, or-ed."""

    next: NDArray[np.uint16]
    found: NDArray[np.uint8]


@lru_cache(maxsize=1)
def advertisements() -> tuple[str, ...]:
    """What shops, advertisements and the frames of web pages say; one is nothing, many in few lines are such a page."""
    return tuple(Path(__file__).with_name("advertisements.txt").read_text(encoding="utf-8").split("\n"))[:-1]


@lru_cache(maxsize=1)
def phrase_automaton() -> Automaton:
    """The automaton of all phrases."""
    kinds = {
        LOREM: ("lorem ipsum",),
        SCRIPT: ("javascript",),
        POLICY: POLICIES,
        ADVERTISEMENT: advertisements(),
        LINK: LINKS,
    }
    children: list[dict[int, int]] = [{}]
    found = [0]
    for kind, phrases in kinds.items():
        for phrase in phrases:
            state = 0
            for byte in phrase.lower().encode():
                if byte not in children[state]:
                    children[state][byte] = len(children)
                    children.append({})
                    found.append(0)
                state = children[state][byte]
            found[state] |= kind
    table = np.zeros((len(children), 256), np.uint16)
    fail = [0] * len(children)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        if state:
            table[state] = table[fail[state]]
            found[state] |= found[fail[state]]
        for byte, child in children[state].items():
            fail[child] = int(table[state, byte]) if state else 0
            table[state, byte] = child
            queue.append(child)
    table[:, ord("A") : ord("Z") + 1] = table[:, ord("a") : ord("z") + 1]
    return Automaton(table, np.array(found, np.uint8))


@compiled
def count_marks(
    data: NDArray[np.uint8], start: int, end: int, next_states: NDArray[np.uint16], found: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:  # fmt: skip
    """Fill ``counts`` with :data:`MARK_COUNTS`."""
    position, line, state = start, start, 0
    seen: Any = 0
    in_link: Any = False
    while position <= end:
        byte = data[position] if position < end else np.uint8(0x0A)
        if byte == 0x0A:
            _count_c4(data, line, position, seen, counts)
            line, state, seen, in_link = position + 1, 0, 0, False
            position += 1
            continue
        state = next_states[state, byte]
        kinds = found[state]
        if kinds:
            seen |= kinds
            counts[6] += kinds & ADVERTISEMENT != 0
            if kinds & LINK and not in_link:
                in_link = True
                counts[4] += 1
                counts[5] += _scheme_length(data, position)
                position += 1
                continue
        if in_link:
            in_link = 0x20 < byte < 0x7F and byte != 0x3C and byte != 0x3E and byte != 0x22
            counts[5] += in_link
        position += 1


@compiled
def _scheme_length(data: NDArray[np.uint8], position: int) -> int:
    """Characters of the ``http://``, ``https://`` or ``www.`` that ends at ``position``."""
    if data[position] == 0x2E:
        return 4
    return 8 if data[position - 3] | 0x20 == 0x73 else 7


@compiled
def _count_c4(data: NDArray[np.uint8], start: int, end: int, seen: int, counts: NDArray[np.int64]) -> None:
    """Count one line as C4 does."""
    if not _ends_sentence(data, start, end):
        return
    words, longest, sentences, has_brace = _measure_line(data, start, end)
    if longest > LONGEST_WORD:
        return
    for number, least in ((0, 3), (1, 5)):
        if words < least:
            continue
        if seen & LOREM or (has_brace and not seen & SCRIPT):
            counts[2 * number + 1] += 1
        elif not seen & (SCRIPT | POLICY):
            counts[2 * number] += max(sentences, 1)


@compiled
def _measure_line(data: NDArray[np.uint8], start: int, end: int) -> tuple[int, int, int, bool]:
    """Words between white space, characters of the longest, sentences, and whether a ``{`` is among them."""
    words = longest = length = sentences = 0
    has_brace = ends = has_dot = False
    for position in range(start, end + 1):
        byte = data[position] if position < end else np.uint8(0x20)
        if byte == 0x20 or 0x09 <= byte <= 0x0D:
            if length:
                words += 1
                longest = max(longest, length)
                sentences += ends
            length, ends, has_dot = 0, False, False
            continue
        length += byte & 0xC0 != 0x80
        has_brace |= byte == 0x7B
        if byte == 0x21 or byte == 0x3F:  # ! ?
            ends = True
        elif byte == 0x2E:
            # The dot of an initial, and the last one of "e.g." and "U.S.", ends no sentence.
            ends, has_dot = length > 2 and not has_dot, True
        elif not (byte == 0x22 or byte == 0x27 or byte == 0x29 or byte == 0x5D):  # closers " ' ) ]
            ends = False
    return words, longest, sentences, has_brace


@compiled
def _ends_sentence(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Whether a line ends in one of ``.?!"``, not in ``...``, citations such as ``[1]`` left out."""
    while end > start:
        last = data[end - 1]
        if last == 0x20 or 0x09 <= last <= 0x0D:
            end -= 1
        elif last == 0x5D:  # ]
            opened = end - 2
            while opened > start and data[opened] != 0x5B:
                opened -= 1
            if data[opened] != 0x5B or not _is_citation(data[opened + 1 : end - 1]):
                return False
            end = opened
        else:
            break
    if end <= start:
        return False
    last = data[end - 1]
    if last == 0x2E:
        return not (end - start >= 3 and data[end - 2] == 0x2E and data[end - 3] == 0x2E)
    return bool(last == 0x3F or last == 0x21 or last == 0x22)


@compiled
def _is_citation(inside: NDArray[np.uint8]) -> bool:
    if inside.shape[0] == 4:
        edit = inside[0] == 0x65 and inside[1] == 0x64 and inside[2] == 0x69 and inside[3] == 0x74
        if edit:
            return True
    if inside.shape[0] == 15 and inside[0] == 0x63 and inside[8] == 0x20 and inside[14] == 0x64:  # citation needed
        return True
    for byte in inside:  # noqa: SIM110 - numba has no all()
        if not 0x30 <= byte <= 0x39:
            return False
    return True
