"""Edits of a block's texts: spans of bytes that others replace, all made in one compiled copy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import pointer
from glm_data.text.statistics import utf8_buffers

_NEWLINE = 0x0A


class Edited(NamedTuple):
    """The texts of a block, and which of them lost line ends at their beginning or end: ``bool[texts]``."""

    texts: pa.StringArray
    stripped: NDArray[np.bool_]


def edit_texts(
    texts: pa.StringArray, spans: NDArray[np.int64], replacements: bytes, strip: NDArray[np.bool_]
) -> Edited:
    """Replace spans of bytes, then take ``\\n`` from both ends of the texts that ``strip: bool[texts]`` names.

    ``spans: int64[edits, 4]`` are text, first byte and end (in the block's bytes), and bytes that come in place, which
    stand one after the other in ``replacements``; in order, and none over another.
    """
    data, offsets = utf8_buffers(texts)
    edited = np.empty(int(offsets[-1] - offsets[0]) + len(replacements), np.uint8)
    bounds, stripped = np.zeros(len(texts) + 1, np.int32), np.zeros(len(texts), np.bool_)
    used = _edit(data, offsets, spans, np.frombuffer(replacements, np.uint8), strip, edited, bounds, stripped)
    return Edited(pa.StringArray.from_buffers(len(texts), pa.py_buffer(bounds), pa.py_buffer(edited[:used])), stripped)


@compiled
def _edit(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], spans: NDArray[np.int64], replacements: NDArray[np.uint8],
    strip: NDArray[np.bool_], edited: NDArray[np.uint8], bounds: NDArray[np.int32], stripped: NDArray[np.bool_],
) -> int:  # fmt: skip
    used = edit = taken = 0
    for row in range(strip.shape[0]):
        at, first = offsets[row], used
        while edit < spans.shape[0] and spans[edit, 0] == row:
            used = _copy(pointer(data), at, spans[edit, 1], pointer(edited), used)
            used = _copy(pointer(replacements), taken, taken + spans[edit, 3], pointer(edited), used)
            at, taken, edit = spans[edit, 2], taken + spans[edit, 3], edit + 1
        used = _copy(pointer(data), at, offsets[row + 1], pointer(edited), used)
        if strip[row]:
            before = used
            used = _strip(pointer(edited), first, used)
            stripped[row] = used < before
        bounds[row + 1] = used
    return used


@inlined
def _copy(data: Any, start: int, end: int, copied: Any, used: int) -> int:
    """Copy bytes; the place behind them."""
    for at in range(end - start):
        copied[used + at] = data[start + at]
    return used + max(end - start, 0)


@inlined
def _strip(edited: Any, first: int, end: int) -> int:
    """Take line ends from both ends of a text; the place behind what is left of it."""
    while end > first and edited[end - 1] == _NEWLINE:
        end -= 1
    start = first
    while start < end and edited[start] == _NEWLINE:
        start += 1
    return _copy(edited, start, end, edited, first) if start > first else end


def begin_with(texts: pa.StringArray, rows: NDArray[np.int64], starts: pa.StringArray) -> NDArray[np.bool_]:
    """Whether the text of each of ``rows`` begins with its own of ``starts``: ``bool[rows]``."""
    found = np.zeros(len(rows), np.bool_)
    _begin_with(*utf8_buffers(texts), rows, *utf8_buffers(starts), found)
    return found


@compiled
def _begin_with(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], rows: NDArray[np.int64], starts: NDArray[np.uint8],
    bounds: NDArray[np.int64], found: NDArray[np.bool_],
) -> None:  # fmt: skip
    for number in range(rows.shape[0]):
        at, size = offsets[rows[number]], bounds[number + 1] - bounds[number]
        same = size <= offsets[rows[number] + 1] - at
        for place in range(size):
            if not same:
                break
            same = data[at + place] == starts[bounds[number] + place]
        found[number] = same


@compiled
def cut_blanks(
    data: NDArray[np.uint8], lines: NDArray[np.int64], layout: int, blank_lines: int, spans: NDArray[np.int64]
) -> None:
    """Fill ``spans`` of :func:`edit_texts`, one for each of ``lines`` (text, first byte, end, flags): blanks and tabs
    at the end of those of kind ``layout``, and all of those of kind ``blank_lines``; an empty one of others."""
    for line in range(lines.shape[0]):
        first, last, flags = lines[line, 1], lines[line, 2], lines[line, 3]
        spans[line, 0], spans[line, 1], spans[line, 2], spans[line, 3] = lines[line, 0], last, last, 0
        if flags == layout:
            while last > first and (data[last - 1] == 0x20 or data[last - 1] == 0x09):
                last -= 1
            spans[line, 1] = last
        elif flags == blank_lines:
            spans[line, 1], spans[line, 2] = first, last + 1
