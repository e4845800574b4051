"""Splits a stream into JSON lines, with over-long lines passed over in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from glm_data.formats.blocks import BadRecordError, Records, Unreadable, cut_records, excerpt
from glm_data.formats.records import decode_json
from glm_data.formats.streams import BrokenStreamError
from glm_data.kernels import compiled
from glm_data.text.machine import LANES, count_ones, pointer, trailing_zeros, within

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _SPACE = 0x0A, 0x20


class LineSplitter:
    """Feed chunks, get records; blank lines are no records."""

    def __init__(self, max_record_bytes: int) -> None:
        self._limit = max_record_bytes
        self._tail = bytearray()
        self._offset = 0
        """Offset of the tail's first byte in the stream."""
        self._number = 0
        self._passing_over = False
        """Inside a line that was too long and is reported already."""

    def feed(self, chunk: bytes) -> Iterator[Records | Unreadable]:
        """Yield the records that ``chunk`` completes."""
        end = chunk.rfind(b"\n") + 1
        if not end:
            yield from self._extend(chunk)
            return
        start = 0
        if self._passing_over:
            start = chunk.find(b"\n") + 1
            self._offset += start
            self._passing_over = False
        yield from self._lines(b"".join([self._tail, memoryview(chunk)[start:end]]))
        self._tail.clear()
        yield from self._extend(chunk[end:])

    def finish(self, broken: BrokenStreamError | None) -> Iterator[Records | Unreadable]:
        """Yield what the stream's end leaves: a last line, or why there is none."""
        tail = bytes(self._tail)
        if broken is None:
            yield from self._lines(tail + b"\n")
            if self._number == 0:
                yield Unreadable(0, 0, "empty", "the file holds no record", "")
            return
        if tail and _is_json(tail):
            yield from self._lines(tail + b"\n")
            tail = b""
        yield Unreadable(self._number, self._offset, broken.reason, broken.detail, excerpt(tail))

    def _extend(self, piece: bytes) -> Iterator[Unreadable]:
        if self._passing_over:
            self._offset += len(piece)
            return
        self._tail += piece
        mark = self._mark_size(self._tail)
        if len(self._tail) - mark > self._limit:
            detail = f"the record is longer than {self._limit} bytes"
            yield Unreadable(self._number, self._offset + mark, "too_long", detail, excerpt(self._tail[mark:]))
            self._number += 1
            self._offset += len(self._tail)
            self._tail.clear()
            self._passing_over = True

    def _lines(self, data: bytes) -> Iterator[Records | Unreadable]:
        """Yield the records of some lines, each with its end."""
        view = np.frombuffer(data, np.uint8)
        ends = _find_newlines(view)
        starts = np.zeros(ends.size, np.int64)
        starts[1:] = ends[:-1] + 1
        starts[:1] = self._mark_size(data)
        is_record = ends > starts
        for line in np.flatnonzero(is_record & (view[starts] <= _SPACE)).tolist():
            is_record[line] = not data[starts[line] : ends[line]].isspace()
        is_record |= ends - starts > self._limit
        bounds = np.stack([starts, ends], 1)[is_record]
        yield from cut_records(Records(data, bounds, self._number, self._offset), self._limit)
        self._number += len(bounds)
        self._offset += len(data)

    def _mark_size(self, data: bytes | bytearray) -> int:
        """Bytes of the byte order mark that ``data`` begins with, which only the stream's first line may."""
        return len(_BYTE_ORDER_MARK) if self._offset == 0 and data.startswith(_BYTE_ORDER_MARK) else 0


@compiled
def _find_newlines(data: Any) -> Any:
    """``int64[newlines]``: where they stand; 64 bytes are looked at at once, first only to count."""
    lanes, whole, count = pointer(data), data.size // LANES * LANES, 0
    for at in range(0, whole, LANES):
        count += count_ones(within(lanes, at, 0, _NEWLINE, 1))
    ends, used = np.empty(count + data.size - whole, np.int64), 0
    for at in range(0, whole, LANES):
        found = within(lanes, at, 0, _NEWLINE, 1)
        while found:
            ends[used] = at + trailing_zeros(found)
            found &= found - np.uint64(1)
            used += 1
    for place in range(whole, data.size):
        ends[used] = place
        used += data[place] == _NEWLINE
    return ends[:used]


def _is_json(data: bytes) -> bool:
    try:
        decode_json(data)
    except BadRecordError:
        return False
    return True
