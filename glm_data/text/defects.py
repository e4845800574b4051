"""Which documents need cleaning, found in one compiled pass, so that cleaning itself only sees those.

The test errs in one direction only: a document without a flag needs nothing of that kind. Mojibake is looked for in its
usual forms alone: UTF-8 read as Latin-1, Windows-1252 or GBK, and GBK read as Latin-1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.characters import FIRST_OF_HAN, LAST_OF_HAN, decode_at, misread_characters
from glm_data.text.counting import is_ascii_letter
from glm_data.text.machine import (
    LANES,
    count_ones,
    first_bytes,
    has_byte,
    leading_letters,
    pointer,
    trailing_zeros,
    within,
)
from glm_data.text.statistics import utf8_buffers

CONTROL, NEWLINES, ODD_SPACE, LAYOUT, MOJIBAKE, REPEATS, JOINER = 1, 2, 4, 8, 16, 32, 64
HTML, BLANK_LINES = 2048, 16384
MAIL, NUMBER, QQ, COLONS = (1 << place for place in range(16, 20))
PERSONAL = MAIL | NUMBER | QQ | COLONS
"""Flags of a document or line: holds control or zero-width characters; carriage returns or other line ends; spaces
other than blank and tab; blanks at line ends; what looks like UTF-8 read as Latin-1 or GBK, or GBK read as Latin-1;
runs of sentence marks; zero-width joiners; an entity or tag; needless blank lines, which lines are and documents have.
Of personal data: an ``@`` between a name and a host; digits as in the number of a phone, card or IPv4 address; what
names QQ; colons as in an IPv6 address."""

CONTROLS = (
    *range(0x09), 0x0B, 0x0C, *range(0x0E, 0x20), *range(0x7F, 0x85), *range(0x86, 0xA0), 0xAD, 0x180E, 0x200B,
    0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), 0xFFFE, 0xFFFF,
)  # fmt: skip
"""Control, zero-width, direction and interlinear characters: invisible, and no part of the text."""

LINE_ENDS = (0x0D, 0x85, 0x2028, 0x2029)
"""Line ends other than ``\\n``."""

SPACES = (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)
"""White space other than blank, tab and line ends."""

JOINERS = (0x200C, 0x200D)
REPEATABLE = "!?！？。，、；～…"
"""Sentence marks of which a run says no more than a few; not the marks that rulers and code are made of."""

RUN = 3
"""Marks in a row that may be too many: three ``…`` are, of the others four."""

# What the bytes 0x80 to 0xBF become in Windows-1252: they follow the first character of UTF-8 read as Latin-1.
_CONTINUATIONS = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_LEAD, _CONTINUATION, _REPEATABLE, _MISREAD, _NAMES_QQ = 128, 256, 512, 4096, 8192
_NEWLINE, _Q, _HEXADECIMAL = 0x0A, 0x71, 4
_BLANKS, _QS = np.uint64(0x2020202020202020), np.uint64(0x7171717171717171)
_HIGH_LATIN, _DIGITS, _DIGITS_OF_PLUS, _DOTS, _COLONS = 6, 10, 6, 3, 7
"""Letters of Latin-1 in a row that may be Chinese; digits that may be personal, and those after ``+``; dots between
digits that may be, and colons of an address without ``::``."""
_FEWEST_COLONS = 3
"""Colons of a line in which there may be such an address."""
_PLUS = 1 << 20
"""Added to a number of digits among which a ``+`` is."""
TAGS = (
    "p", "div", "span", "font", "b", "strong", "em", "i", "u", "a", "img", "ul", "ol", "li", "tr", "td", "th", "table",
    "tbody", "center", "h1", "h2", "h3", "h4", "h5", "h6", "br",
)  # fmt: skip
"""The tags that extraction leaves."""
_TAGS = np.array([int.from_bytes(tag.encode(), "big") for tag in TAGS], np.uint64)
_LONGEST_TAG, _LONGEST_ENTITY = max(map(len, TAGS)), 8
"""Letters of the name of a tag, and characters before the ``;`` of an entity."""


@lru_cache(maxsize=1)
def _tables() -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """The flags of every character of the plane, and a bit for each that has any."""
    table = np.zeros(0x10000, np.uint16)
    leads, continuations = range(0xC2, 0xF5), (*range(0x80, 0xC0), *map(ord, _CONTINUATIONS))
    for points, flag in (
        (CONTROLS, CONTROL),
        (LINE_ENDS, NEWLINES),
        (SPACES, ODD_SPACE),
        (JOINERS, JOINER),
        (range(0x80, 0xA0), MOJIBAKE),
        (leads, _LEAD),
        (continuations, _CONTINUATION),
        (map(ord, REPEATABLE), _REPEATABLE),
        (map(ord, misread_characters()), _MISREAD),
        (map(ord, "扣鹅"), _NAMES_QQ),
    ):
        table[list(points)] |= flag
    return table, np.packbits(table != 0, bitorder="little")


class Defects(NamedTuple):
    """What may need cleaning in a block.

    ``documents: uint32[documents]``: the flags of each. ``lines: int64[lines, 4]``: document, first byte, end (in the
    block's bytes) and flags of every line that has any, in order.
    """

    documents: NDArray[np.uint32]
    lines: NDArray[np.int64]


def find_defects(texts: pa.StringArray) -> Defects:
    """The flags of every text, and of the lines that they come from. Some 300 MB/s a core."""
    data, offsets = utf8_buffers(texts)
    flags = np.zeros(len(texts), np.uint32)
    newlines = np.count_nonzero(data[offsets[0] : offsets[-1]] == _NEWLINE) if len(texts) else 0
    lines = np.empty((newlines + len(texts), 4), np.int64)
    used = _find(data, offsets, *_tables(), flags, lines) if len(texts) else 0
    return Defects(flags, lines[:used])


@compiled
def _find(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint16], noted: NDArray[np.uint8],
    flags: NDArray[np.uint32], lines: NDArray[np.int64],
) -> int:  # fmt: skip
    used = 0
    for row in range(flags.shape[0]):
        start, end, newlines = offsets[row], offsets[row + 1], 2  # a leading blank line is one too many
        while start < end:
            last, found = _read_plain_line(pointer(data), data.shape[0], start, end)
            if last < 0:
                last, found = _read_line(pointer(data), data.shape[0], start, end, pointer(table), pointer(noted))
            is_blank = found & ~LAYOUT == 0 and _is_blank(pointer(data), start, last)
            newlines = newlines + 1 if is_blank else 1
            if is_blank and newlines > 2 and last < end:
                found = BLANK_LINES
            if found:
                lines[used, 0], lines[used, 1], lines[used, 2], lines[used, 3] = row, start, last, found
                used += 1
            found |= BLANK_LINES if last + 1 == end else 0
            flags[row] |= found
            start = last + 1
    return used


@inlined
def _is_blank(data: Any, start: int, end: int) -> bool:
    """Whether a line holds but blanks and tabs."""
    while start < end and (data[start] == 0x20 or data[start] == 0x09):
        start += 1
    return start == end


@inlined
def _read_plain_line(data: Any, limit: int, start: int, end: int) -> tuple[int, int]:
    """Where the line from byte ``start`` on ends, and its flags; -1 where it takes a closer look to tell: where it is
    not ASCII, or holds so many digits, marks or the like that something may be found.

    64 bytes are asked for at a time, of which two are those asked for before, for the sake of what stands together.
    """
    digits = dots = colons = 0
    has_plus = np.uint64(0)
    while start + LANES <= limit:
        ends = within(data, start, 0, _NEWLINE, 1)
        if start + LANES > end:
            ends |= np.uint64(1) << np.uint64(end - start)
        line = (ends & (~ends + np.uint64(1))) - np.uint64(1)
        number = within(data, start, 0, 0x30, 10)
        if _is_odd(data, start, number) & line:
            break
        digits += count_ones(number & line)
        dots += count_ones(within(data, start, 0, 0x2E, 1) & number << np.uint64(1) & line)
        colons += count_ones(within(data, start, 0, 0x3A, 1) & line)
        has_plus |= within(data, start, 0, 0x2B, 1) & line
        if ends:
            last = start + trailing_zeros(ends)
            if digits >= (_DIGITS_OF_PLUS if has_plus else _DIGITS) or dots >= _DOTS or colons >= _FEWEST_COLONS:
                break
            before = data[last - 1]
            return last, LAYOUT if line and (before == 0x20 or before == 0x09) else 0
        start += LANES - 2
    return -1, 0


@inlined
def _is_odd(data: Any, start: int, number: Any) -> Any:
    """Which of 64 bytes are neither ASCII nor a tab, or may be part of an address, a tag or entity, QQ, or a run of
    marks; ``number`` are the digits."""
    letter = within(data, start, 0x20, 0x61, 26)
    name = letter | number | within(data, start, 0, 0x23, 1)
    odd = ~(within(data, start, 0, 0x20, 0x5F) | within(data, start, 0, 0x09, 1))
    odd |= within(data, start, 0, 0x40, 1) & ~(within(data, start, 0, 0x20, 1) << np.uint64(1)) & ~np.uint64(1)  # @
    odd |= within(data, start, 0, 0x26, 1) & name >> np.uint64(1)  # &
    odd |= within(data, start, 0, 0x3C, 1) & (name | within(data, start, 0, 0x2F, 1)) >> np.uint64(1)  # < </
    q = within(data, start, 0x20, _Q, 1)
    marks = within(data, start, 0, 0x21, 1) | within(data, start, 0, 0x3F, 1)  # ! ?
    return odd | q & q << np.uint64(1) | marks & marks << np.uint64(1) & marks << np.uint64(2)


@compiled
def _read_line(data: Any, limit: int, start: int, end: int, table: Any, noted: Any) -> tuple[int, int]:
    """Where the line from byte ``start`` on ends, and its flags."""
    found = run = before_entry = digits = dots = colons = high = 0
    position = start
    before: Any = np.uint32(_NEWLINE)
    while position < end:
        byte = data[position]
        if is_ascii_letter(byte):
            word = first_bytes(data, position, min(end - position, 8), limit)
            letters = leading_letters(word)
            colons = colons if letters <= _HEXADECIMAL else 0
            if colons or has_byte(word | _BLANKS, _QS):  # seldom: letter by letter
                letters, colons = 1, colons if byte | 0x20 <= 0x66 else 0
                found |= QQ if byte | 0x20 == _Q and before | 0x20 == _Q else 0
            position += letters
            digits = dots = high = run = before_entry = 0
            before = np.uint32(data[position - 1])
            if position < end and data[position] == 0x20:  # most words have a blank behind them
                before, colons, position = np.uint32(0x20), 0, position + 1
            continue
        if byte == _NEWLINE:
            break
        if FIRST_OF_HAN <= byte <= LAST_OF_HAN:
            point, behind = _skip_han(data, position, end, noted)
            if behind > position:
                digits = dots = colons = high = before_entry = 0
                before, position = point, behind
                continue
        point, size = decode_at(data, position)
        position += size
        entry = table[point] if point < 0x10000 else 0
        if point < 0x80:
            high = 0
            digits, dots, colons = _follow_number(point, before, digits, dots, colons)
            is_number = digits & (_PLUS - 1) >= (_DIGITS_OF_PLUS if digits >= _PLUS else _DIGITS)
            found |= NUMBER if is_number or dots >= _DOTS else 0
            found |= COLONS if colons >= _COLONS else 0
            if point == 0x40 and _ends_name(before) and _may_be_host(data, position, end):  # @
                found |= MAIL
            if (point == 0x26 or point == 0x3C) and _may_be_html(data, position, end, point):  # & <
                found |= HTML
        else:
            digits, dots, colons = digits if point == 0xFF08 or point == 0xFF09 else 0, 0, 0  # brackets
            high = high + 1 if 0xA1 <= point <= 0xFF else 0
            found |= MOJIBAKE if high >= _HIGH_LATIN else 0
        if entry or point >= 0x10000:
            run = run + 1 if point == before and entry & _REPEATABLE else 1
            found |= REPEATS if run >= RUN else 0
            mixed = (entry & _CONTINUATION and before_entry & _LEAD) or entry & before_entry & _MISREAD
            found |= MOJIBAKE if mixed else 0
            found |= QQ if entry & _NAMES_QQ else 0
            found |= entry & (CONTROL | NEWLINES | ODD_SPACE | JOINER | MOJIBAKE)
        before, before_entry = point, entry
    if position > start and (before == 0x20 or before == 0x09):
        found |= LAYOUT
    return position, found


@inlined
def _skip_han(data: Any, start: int, end: int, noted: Any) -> tuple[Any, int]:
    """The last of the characters without a flag, U+4000 to U+9FFF, that stand from ``start`` on, and where they end."""
    last: Any = np.uint32(0)
    position = start
    while position < end and FIRST_OF_HAN <= data[position] <= LAST_OF_HAN:
        point, _ = decode_at(data, position)
        if noted[point >> 3] >> (point & 7) & 1:
            break
        last, position = point, position + 3
    return last, position


@inlined
def _ends_name(point: Any) -> bool:
    """Whether a character may stand before the ``@`` of an address."""
    if is_letter_or_digit(point):
        return True
    return bool(point == 0x2E or point == 0x5F or point == 0x25 or point == 0x2B or point == 0x2D)  # . _ % + -


@inlined
def is_letter_or_digit(point: Any) -> bool:
    """Whether a character is an ASCII letter or digit."""
    return bool(0x61 <= point | 0x20 <= 0x7A or 0x30 <= point <= 0x39)


@compiled
def _may_be_host(data: Any, position: int, end: int) -> bool:
    """Whether a name, a dot, and a letter or digit stand there."""
    first = position
    while position < end and (is_letter_or_digit(data[position]) or data[position] == 0x2D):
        position += 1
    return bool(first < position < end - 1 and data[position] == 0x2E and is_letter_or_digit(data[position + 1]))


@compiled
def _may_be_html(data: Any, position: int, end: int, point: Any) -> bool:
    """Whether what follows a ``&`` or ``<`` may be an entity or a tag."""
    if point == 0x3C and position < end and data[position] == 0x2F:  # </
        position += 1
    first, name = position, np.uint64(0)
    while position < end and _is_of_name(data[position]):
        name = name << np.uint64(8) | np.uint64(data[position] | 0x20)
        position += 1
    if position in (end, first):
        return False
    size, last = position - first, data[position]
    if point == 0x26:
        return bool(last == 0x3B and size <= _LONGEST_ENTITY)  # ;
    if size > _LONGEST_TAG or not (last == 0x3E or last == 0x20 or last == 0x2F):  # > blank /
        return False
    for tag in _TAGS:  # noqa: SIM110 - numba has no any()
        if tag == name:
            return True
    return False


@inlined
def _is_of_name(byte: Any) -> bool:
    return bool(is_ascii_letter(byte) or 0x30 <= byte <= 0x39 or byte == 0x23)


@inlined
def _follow_number(point: Any, before: Any, digits: int, dots: int, colons: int) -> tuple[int, int, int]:
    """Digits with no more than one blank or hyphen between two; dots among digits; colons among hexadecimal digits."""
    if 0x30 <= point <= 0x39:
        return digits + 1, dots, colons
    if point == 0x2E:  # .
        return 0, dots + 1 if 0x30 <= before <= 0x39 else 0, 0
    if point == 0x3A:  # : after a group of hexadecimal digits, or after two such groups and another
        if before == 0x3A:
            return 0, 0, _COLONS if colons >= 2 else 0
        is_group = 0x30 <= before <= 0x39 or 0x61 <= before | 0x20 <= 0x66
        return 0, 0, colons + 1 if is_group else 0
    if point == 0x2B:  # +
        return _PLUS, 0, 0
    if point == 0x28 or point == 0x29:  # ( )
        return digits, 0, 0
    if (point == 0x20 or point == 0x2D) and before != 0x20 and before != 0x2D:
        return digits, 0, 0
    return 0, 0, 0
