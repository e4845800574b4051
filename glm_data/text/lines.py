"""What lines and paragraphs are like, and which of their lines C4 keeps: counted where a line ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text import characters as ch
from glm_data.text.characters import decode_at, entry_of
from glm_data.text.machine import LANES, count_ones, first_lanes, pointer, within
from glm_data.text.marks import LOREM, POLICY, SCRIPT
from glm_data.text.sets import BASE, empty_table, hash_bytes, put_once, spread

SHORT_LINE, TITLE = 30, 40
"""Characters of a line that FineWeb calls short, and of one that can be a headline."""

LONGEST_WORD = 1000
"""Characters of a word that make C4 drop its line."""

LINE_COUNTS = (
    "newlines", "lines", "line_characters", "end_mark_lines", "terminal_lines", "bullet_lines", "dash_lines",
    "ellipsis_lines", "ellipses", "short_lines", "title_lines", "longest_line", "duplicate_lines",
    "duplicate_line_characters", "paragraphs", "duplicate_paragraphs", "duplicate_paragraph_characters",
)  # fmt: skip

NEWLINE = 0x0A

ENDS, DOTTED, BRACE, WORD_START, WORDS, LONGEST, SENTENCES, CLAUSES, DOTS, PARAGRAPH, PARAGRAPH_LENGTH = range(11)
"""Places of the state. Of C4's word so far whether it ends a sentence, has a dot, and its first character; of the line
whether it has a brace, its words, the longest, its sentences, and marks of clauses; dots in a row; of the paragraph its
hash and characters."""
FREE, STATES = 11, 32
"""The first place of the state that is not used here, and all places that there are."""


@compiled
def count_newlines(data: Any, limit: int, start: int, end: int) -> int:
    """Newlines from byte ``start`` to ``end`` of a pointer to ``limit`` bytes."""
    found, position = 0, start
    while position < end and position + LANES <= limit:
        found += count_ones(within(data, position, 0, NEWLINE, 1) & first_lanes(min(end - position, LANES)))
        position += LANES
    for place in range(position, end):
        found += data[place] == NEWLINE
    return found


@compiled
def most_newlines(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> int:
    """Newlines of the text that has most."""
    most = 0
    for row in range(offsets.shape[0] - 1):
        most = max(most, count_newlines(pointer(data), data.shape[0], offsets[row], offsets[row + 1]))
    return most


@inlined
def start_text(data: Any, limit: int, start: int, end: int, said: Any, slots: int, state: Any) -> int:
    """Make the state ready, and a table of what was said with room for the lines; returns its mask."""
    for place in range(STATES):
        state[place] = 0
    return empty_table(said, slots, 2 * count_newlines(data, limit, start, end) + 2)


@inlined
def mark_line(counts: Any, state: Any, point: Any, entry: Any, repeats: bool, characters: int) -> None:
    """Take note of a mark, or of another character that is neither space nor ASCII letter."""
    state[CLAUSES] |= entry & (ch.CLAUSE_MARK | ch.END_MARK)
    is_dot = point == 0x2E
    state[DOTS] = state[DOTS] * repeats + 1 if is_dot else 0
    counts[8] += point == 0x2026 or (is_dot and state[DOTS] % 3 == 0)
    if is_dot:
        # The dot of an initial, and the last one of "e.g." and "U.S.", ends no sentence.
        state[ENDS] = characters - state[WORD_START] >= 2 and not state[DOTTED]
        state[DOTTED] = 1
    elif point == 0x21 or point == 0x3F:  # ! ?
        state[ENDS] = 1
    elif not (point == 0x22 or point == 0x27 or point == 0x29 or point == 0x5D):  # closers " ' ) ]
        state[ENDS] = 0
        state[BRACE] |= point == 0x7B


@inlined
def end_word_of_c4(state: Any, characters: int) -> None:
    """Count a word between white space that ends before the character numbered ``characters``."""
    length = characters - state[WORD_START]
    if length > 0:
        state[WORDS] += 1
        state[LONGEST] = max(state[LONGEST], length)
        state[SENTENCES] += state[ENDS]
    state[ENDS], state[DOTTED], state[WORD_START] = 0, 0, characters + 1


@compiled
def end_line(
    data: Any, limit: int, first: int, last: int, table: Any, counts: Any, c4_counts: Any, state: Any, said: Any,
    mask: int, characters: int, seen: int,
) -> None:  # fmt: skip
    """Count the line from byte ``first`` to ``last``, of so many characters, in which phrases were ``seen``."""
    start, end, indent, trailing = _strip(data, first, last, table)
    if start < end:
        length = characters - indent - trailing
        _mark_ends(data, start, end, table, counts)
        counts[1] += 1
        counts[2] += length
        counts[9] += indent + length <= SHORT_LINE
        counts[10] += length <= TITLE and state[CLAUSES] == 0
        counts[11] = max(counts[11], length)
        hashed = hash_bytes(data, start, end, limit)
        if put_once(hashed, said, mask):
            counts[12] += 1
            counts[13] += length
        state[PARAGRAPH] = np.int64((np.uint64(state[PARAGRAPH]) + hashed + np.uint64(indent)) * BASE)
        state[PARAGRAPH_LENGTH] += indent + length + (state[PARAGRAPH_LENGTH] > 0)
        _count_c4(data, first, last, seen, c4_counts, state)
    else:
        end_paragraph(counts, state, said, mask)
    state[CLAUSES] = state[DOTS] = state[BRACE] = state[WORDS] = state[LONGEST] = state[SENTENCES] = 0


@inlined
def _strip(data: Any, first: int, last: int, table: Any) -> tuple[int, int, int, int]:
    """First byte and end of a line without the white space around it, and characters of that before and after."""
    indent = trailing = 0
    while first < last:
        point, size = decode_at(data, first)
        if entry_of(table, point) & ch.CLASS_BITS != ch.SPACE:
            break
        first, indent = first + size, indent + 1
    while last > first:
        place = _before(data, last)
        if entry_of(table, decode_at(data, place)[0]) & ch.CLASS_BITS != ch.SPACE:
            break
        last, trailing = place, trailing + 1
    return first, last, indent, trailing


@inlined
def _before(data: Any, position: int) -> int:
    """The first byte of the character that ends before ``position``."""
    position -= 1
    while data[position] & 0xC0 == 0x80:
        position -= 1
    return position


@inlined
def _mark_ends(data: Any, start: int, end: int, table: Any, counts: Any) -> None:
    """Count what a line, stripped, begins and ends with."""
    entry = entry_of(table, decode_at(data, start)[0])
    counts[5] += entry & ch.BULLET != 0
    counts[6] += entry & ch.DASH != 0
    place = _before(data, end)
    point = decode_at(data, place)[0]
    entry = entry_of(table, point)
    counts[4] += entry & ch.TERMINAL != 0
    dots = point == 0x2E and place - 2 >= start and data[place - 1] == 0x2E and data[place - 2] == 0x2E
    counts[7] += dots or point == 0x2026
    while entry & ch.CLOSER and place > start:
        place = _before(data, place)
        entry = entry_of(table, decode_at(data, place)[0])
    counts[3] += entry & ch.END_MARK != 0


@compiled
def end_paragraph(counts: Any, state: Any, said: Any, mask: int) -> None:
    """Count the paragraph that ends, if there is one."""
    if state[PARAGRAPH_LENGTH] == 0:
        return
    counts[14] += 1
    if put_once(spread(np.uint64(state[PARAGRAPH])), said, mask):
        counts[15] += 1
        counts[16] += state[PARAGRAPH_LENGTH]
    state[PARAGRAPH] = state[PARAGRAPH_LENGTH] = 0


# --- C4 ---------------------------------------------------------------------------------------------------------------


@inlined
def _count_c4(data: Any, start: int, end: int, seen: int, counts: Any, state: Any) -> None:
    """Count one line as C4 does."""
    words = state[WORDS]
    if words < 3 or state[LONGEST] > LONGEST_WORD or not _ends_sentence(data, start, end):
        return
    for number, least in ((0, 3), (1, 5)):
        if words < least:
            continue
        if seen & LOREM or (state[BRACE] and not seen & SCRIPT):
            counts[2 * number + 1] += 1
        elif not seen & (SCRIPT | POLICY):
            counts[2 * number] += max(state[SENTENCES], 1)


@compiled
def _ends_sentence(data: Any, start: int, end: int) -> bool:
    """Whether a line ends in one of ``.?!"``, not in ``...``, citations such as ``[1]`` left out."""
    while end > start:
        last = data[end - 1]
        if last == 0x20 or 0x09 <= last <= 0x0D:
            end -= 1
        elif last == 0x5D:  # ]
            opened = end - 2
            while opened > start and data[opened] != 0x5B:
                opened -= 1
            if data[opened] != 0x5B or not _is_citation(data, opened + 1, end - 1):
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
def _is_citation(data: Any, start: int, end: int) -> bool:
    """Whether ``edit``, ``citation needed`` or a number stands there."""
    first, last, size = data[start], data[end - 1], end - start
    if size == 4 and first == 0x65 and data[start + 1] == 0x64 and data[start + 2] == 0x69 and last == 0x74:
        return True
    if size == 15 and first == 0x63 and data[start + 8] == 0x20 and last == 0x64:
        return True
    for place in range(start, end):  # noqa: SIM110 - numba has no all()
        if not 0x30 <= data[place] <= 0x39:
            return False
    return True
