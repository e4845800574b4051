"""Which documents need cleaning, found in one compiled pass, so that cleaning itself only sees those.

The test errs in one direction only: a document without a flag needs nothing of that kind. Mojibake is looked for in its
usual forms alone: UTF-8 read as Latin-1, Windows-1252 or GBK, and GBK read as Latin-1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.text.characters import decode_at, misread_characters
from glm_data.text.compiled import compiled
from glm_data.text.statistics import utf8_buffers

CONTROL, NEWLINES, ODD_SPACE, LAYOUT, MOJIBAKE, REPEATS, JOINER = 1, 2, 4, 8, 16, 32, 64
PERSONAL, HTML = 1024, 2048
"""Flags of a document: holds control or zero-width characters; carriage returns or other line ends; spaces other than
blank and tab; blanks at line ends or needless blank lines; what looks like UTF-8 read as Latin-1 or GBK, or GBK read as
Latin-1; runs of sentence marks; zero-width joiners; an ``@`` between letters, or digits as in a number of a phone, card
or address; an entity or tag."""

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
_HIGH_LATIN, _DIGITS = 6, 7
"""Letters of Latin-1 in a row that may be Chinese; digits, and dots after them, that may be personal."""


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint16]:
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
    return table


def find_defects(texts: pa.StringArray) -> NDArray[np.uint16]:
    """The flags of every text: ``uint16[documents]``. About 300 MB/s a core."""
    data, offsets = utf8_buffers(texts)
    flags = np.zeros(len(texts), np.uint16)
    if len(texts):
        _find(data, offsets, _table(), flags)
    return flags


@compiled
def _find(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint16], flags: NDArray[np.uint16]
) -> None:
    for row in range(flags.shape[0]):
        flags[row] = _flags_of(data, offsets[row], offsets[row + 1], table)


@compiled
def _flags_of(data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16]) -> int:
    found, position, run, newlines = 0, start, 0, 2  # newlines: a leading blank line is one too many
    before_entry = digits = colons = high = 0
    before: Any = np.uint32(0x0A)
    while position < end:
        point, size = decode_at(data, position)
        position += size
        if point == 0x0A:
            newlines += 1
            if newlines > 2 or before == 0x20 or before == 0x09:
                found |= LAYOUT
            before, run, before_entry, digits, colons, high = point, 0, 0, 0, 0, 0
            continue
        newlines = 0
        entry = table[point] if point < 0x10000 else 0
        if point < 0x80:
            high = 0
            digits, colons = _follow_number(point, digits, colons)
            is_qq = point | 0x20 == 0x71 and before | 0x20 == 0x71
            following = data[position] if position < end else np.uint8(0)
            if digits >= _DIGITS or colons >= 2 or is_qq or (point == 0x40 and following >= 0x30):
                found |= PERSONAL
            if (point == 0x26 and (following | 0x20 >= 0x61 or following == 0x23)) or (
                point == 0x3C and (following | 0x20 >= 0x61 or following == 0x2F)
            ):
                found |= HTML
        else:
            high = high + 1 if 0xA1 <= point <= 0xFF else 0
            if high >= _HIGH_LATIN:
                found |= MOJIBAKE
        if entry or point >= 0x10000:
            run = run + 1 if point == before and entry & _REPEATABLE else 1
            if run >= RUN:
                found |= REPEATS
            if (entry & _CONTINUATION and before_entry & _LEAD) or entry & before_entry & _MISREAD:
                found |= MOJIBAKE
            if entry & _NAMES_QQ:
                found |= PERSONAL
            found |= entry & (CONTROL | NEWLINES | ODD_SPACE | JOINER | MOJIBAKE)
        before, before_entry = point, entry
    if end > start and (before == 0x0A or before == 0x20 or before == 0x09):
        found |= LAYOUT
    return found


@compiled
def _follow_number(point: Any, digits: int, colons: int) -> tuple[int, int]:
    """Digits near each other, parted by no more than marks of numbers; colons among hexadecimal digits."""
    is_digit = 0x30 <= point <= 0x39
    if is_digit:
        return digits + 1, colons
    if point == 0x3A:  # :
        return digits, colons + 1
    if point == 0x2E and digits:
        return digits + 1, 0
    if point == 0x20 or 0x28 <= point <= 0x2D:  # blank ( ) * + , -
        return digits, 0
    return 0, colons if 0x61 <= point | 0x20 <= 0x66 else 0
