"""Splits a stream into JSON lines, with over-long lines passed over in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

from glm_data.formats.blocks import BadRecordError, Record, Unreadable, excerpt
from glm_data.formats.records import decode_json
from glm_data.formats.streams import BrokenStreamError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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

    def feed(self, chunk: bytes) -> Iterator[Record | Unreadable]:
        """Yield the records that ``chunk`` completes."""
        end = chunk.rfind(b"\n")
        if end < 0:
            yield from self._extend(chunk)
            return
        first, *rest = chunk[:end].split(b"\n")
        yield from self._end_line(first)
        for line in rest:
            yield from self._line(line, self._offset)
            self._offset += len(line) + 1
        yield from self._extend(chunk[end + 1 :])

    def finish(self, broken: BrokenStreamError | None) -> Iterator[Record | Unreadable]:
        """Yield what the stream's end leaves: a last line, or why there is none."""
        tail = bytes(self._tail)
        if broken is None:
            yield from self._end_line(b"")
            if self._number == 0:
                yield Unreadable(0, 0, "empty", "the file holds no record", "")
            return
        if tail and _is_json(tail):
            yield from self._end_line(b"")
            tail = b""
        yield Unreadable(self._number, self._offset, broken.reason, broken.detail, excerpt(tail))

    def _extend(self, piece: bytes) -> Iterator[Unreadable]:
        if self._passing_over:
            self._offset += len(piece)
            return
        self._tail += piece
        if len(self._tail) > self._limit:
            yield self._too_long(self._tail, self._offset)
            self._offset += len(self._tail)
            self._tail.clear()
            self._passing_over = True

    def _end_line(self, piece: bytes) -> Iterator[Record | Unreadable]:
        """End the line that the tail began."""
        if self._passing_over:
            self._passing_over = False
        else:
            yield from self._line(bytes(self._tail) + piece, self._offset)
        self._offset += len(self._tail) + len(piece) + 1
        self._tail.clear()

    def _line(self, line: bytes, offset: int) -> Iterator[Record | Unreadable]:
        if offset == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if len(line) > self._limit:
            yield self._too_long(line, offset)
        elif line and not line.isspace():
            yield Record(self._number, offset, line)
            self._number += 1

    def _too_long(self, line: bytes | bytearray, offset: int) -> Unreadable:
        self._number += 1
        detail = f"the record is longer than {self._limit} bytes"
        return Unreadable(self._number - 1, offset, "too_long", detail, excerpt(line))


def _is_json(data: bytes) -> bool:
    try:
        decode_json(data)
    except BadRecordError:
        return False
    return True
