"""Splits a stream that is one JSON array (WuDao's files) into its elements, in bounded memory, past damage.

The array may be wrapped (``{"RECORDS": [...]}``), indented, concatenated with others, or have lost its brackets.
A damaged element costs itself: the reader takes up again at the next ``{"<first key>":``, which cannot stand inside a
sound JSON string, because quotes are escaped there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from glm_data.formats import array_scan as scan
from glm_data.formats.blocks import Records, Unreadable, cut_records, excerpt
from glm_data.formats.streams import BrokenStreamError

_SCALAR_FIELD = rb'\s*"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[\w.+-]+)\s*'
WRAPPER = re.compile(
    rb"\s*\{(?:" + _SCALAR_FIELD + rb',)*\s*"(?:records|data|rows|documents)"\s*:\s*\[(?=\s*[\]{])', re.IGNORECASE
)
"""An object around the array: scalar fields, then the one that holds it."""

_WRAPPER_END = re.compile(rb"\s*(?:," + _SCALAR_FIELD + rb")*\}")
_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[\s,\]}]*")
"""What may stand between arrays without meaning a record."""

_KEY = rb'"[^"\\]{1,64}"\s*:'
_FIRST_KEY = re.compile(rb'\{\s*("[^"\\]{1,64}")\s*:')
_ANY_ELEMENT = re.compile(rb"(?P<element>\{\s*" + _KEY + rb")")
_LONGEST_HEAD = 1 << 16
"""Bytes of an object around an array, blanks left out, before or behind it."""
_LONGEST_MARK = 1 << 12
"""Bytes kept while searching for the next element, so that its mark may lie across two chunks."""
_BETWEEN, _INSIDE, _SEARCHING = "between arrays", "inside an array", "searching the next element"


class ArraySplitter:
    """Feed chunks, get records."""

    def __init__(self, max_record_bytes: int) -> None:
        self._limit = max_record_bytes
        self._buffer = bytearray()
        self._offset = 0
        """Offset of the buffer's first byte in the stream."""
        self._scanned = 0
        self._number = 0
        self._state = scan.new_state()
        self._ends = np.empty((4096, 2), np.int64)
        self._mode = _BETWEEN
        self._anything = False
        self._bracket = False
        """Whether the array at hand was opened by a bracket, so that one must close it."""
        self._wrapped = False
        self._passing_over = False
        """Inside an element that was too long and is reported already."""
        self._element = _ANY_ELEMENT

    def feed(self, chunk: bytes) -> Iterator[Records | Unreadable]:
        """Yield the records that ``chunk`` completes."""
        self._buffer += chunk
        yield from self._advance(at_end=False)

    def finish(self, broken: BrokenStreamError | None) -> Iterator[Records | Unreadable]:
        """Yield what the stream's end leaves: elements behind an unfinished one, and why something is missing."""
        yield from self._advance(at_end=True)
        if broken is not None:
            yield self._report(broken.reason, broken.detail, self._buffer)
            return
        while self._mode == _INSIDE and self._is_open() and (match := self._element.search(self._buffer, 1)):
            yield self._report("malformed_json", "the element does not end", self._buffer)
            self._resume(match)
            yield from self._advance(at_end=True)
        if self._mode == _INSIDE and not self._passing_over and (self._bracket or self._is_open()):
            yield self._report("truncated", "the file ends inside an array", self._buffer)
        elif self._wrapped and self._mode == _BETWEEN:
            yield self._report("truncated", "the file ends inside the object around an array", self._buffer)
        elif not self._anything:
            yield Unreadable(0, 0, "empty", "the file holds no record", "")

    def _advance(self, *, at_end: bool) -> Iterator[Records | Unreadable]:
        """Step until nothing moves any more."""
        before = None
        while before != (self._mode, self._offset, self._scanned):
            before = (self._mode, self._offset, self._scanned)
            if self._mode == _BETWEEN:
                yield from self._open_array(at_end)
            elif self._mode == _INSIDE:
                yield from self._scan()
            elif match := self._element.search(self._buffer):
                self._resume(match)
            else:
                self._drop(max(0, len(self._buffer) - _LONGEST_MARK))

    def _open_array(self, at_end: bool) -> Iterator[Unreadable]:
        wait = not at_end and self._may_be_head()
        if self._wrapped:
            end = _WRAPPER_END.match(self._buffer)
            if end is None and (wait or (at_end and _BLANK.fullmatch(self._buffer))):
                return
            self._wrapped = False
            self._drop(end.end() if end else 0)
        blank = _BLANK.match(self._buffer)
        self._drop(blank.end() if blank else 0)
        if not self._buffer:
            return
        wait = not at_end and self._may_be_head()
        self._anything = True
        if self._buffer[0] == ord("["):
            self._enter(1, bracket=True)
        elif self._buffer[0] != ord("{"):
            yield self._damaged(0)
        elif wrapper := WRAPPER.match(self._buffer):
            self._wrapped = True
            self._enter(wrapper.end(), bracket=True)
        elif not wait:
            self._enter(0, bracket=False)

    def _may_be_head(self) -> bool:
        """Whether what is held may still be the beginning of a head; blanks do not count, as long as they fit."""
        size = len(self._buffer)
        if _LONGEST_HEAD <= size < self._limit:
            size = len(self._buffer.translate(None, b" \t\r\n"))
        return size < _LONGEST_HEAD

    def _enter(self, count: int, *, bracket: bool) -> None:
        self._drop(count)
        self._state, self._scanned = scan.new_state(), 0
        self._mode, self._bracket = _INSIDE, bracket

    def _scan(self) -> Iterator[Records | Unreadable]:
        view = np.frombuffer(self._buffer, np.uint8)
        count, self._scanned, how = scan.scan_elements(view, self._scanned, self._state, self._ends)
        del view  # a buffer that is looked at cannot grow
        yield from self._records(self._ends[:count])
        if how == scan.CLOSED:
            self._mode = _BETWEEN
            self._drop(self._scanned)
        elif how == scan.DAMAGED:
            position = self._scanned if self._passing_over else int(self._state[scan.START])
            if not self._passing_over:
                yield self._damaged(position)
            self._drop(position + 1)
            self._mode = _SEARCHING
        else:
            yield from self._keep_open_element()

    def _keep_open_element(self) -> Iterator[Unreadable]:
        """Drop what is done with, and pass over the open element once it is too long."""
        start = int(self._state[scan.START])
        self._drop(start if start >= 0 and not self._passing_over else self._scanned)
        if start >= 0 and not self._passing_over and len(self._buffer) > self._limit:
            yield self._too_long(0)
            self._passing_over = True
            self._drop(self._scanned)

    def _records(self, bounds: NDArray[np.int64]) -> Iterator[Records | Unreadable]:
        """Yield the elements that were found, without the rest of one that was passed over."""
        if self._passing_over and len(bounds):
            self._passing_over = False
            bounds = bounds[1:]
        if not len(bounds):
            return
        first, last = int(bounds[0, 0]), int(bounds[-1, 1])
        data = bytes(memoryview(self._buffer)[first:last])
        self._learn(data)
        yield from cut_records(Records(data, bounds - first, self._number, self._offset + first), self._limit)
        self._number += len(bounds)

    def _learn(self, data: bytes | bytearray) -> None:
        """Learn how elements begin, once, to find the next one behind damage."""
        if self._element is _ANY_ELEMENT and (match := _FIRST_KEY.match(data)):
            own = rb"(?P<element>\{\s*" + re.escape(match.group(1)) + rb"\s*:)"
            other = rb"\}\s*,\s*(?P<other>\{\s*" + _KEY + rb")"
            self._element = re.compile(own + rb"|" + other)

    def _damaged(self, position: int) -> Unreadable:
        self._mode = _SEARCHING
        data = self._buffer[position : position + _LONGEST_MARK]
        self._learn(data)
        place = self._offset + max(position, self._scanned)
        return self._report("malformed_json", f"unexpected byte at offset {place}", data, position)

    def _too_long(self, position: int) -> Unreadable:
        data = self._buffer[position : position + _LONGEST_MARK]
        return self._report("too_long", f"the record is longer than {self._limit} bytes", data, position)

    def _report(self, reason: str, detail: str, data: bytearray, position: int = 0) -> Unreadable:
        self._number += 1
        return Unreadable(self._number - 1, self._offset + position, reason, detail, excerpt(data))

    def _is_open(self) -> bool:
        return self._state[scan.START] >= 0 and not self._passing_over

    def _resume(self, match: re.Match[bytes]) -> None:
        """Go on at the element that ``match`` found."""
        self._passing_over = False
        bracket = self._bracket
        self._enter(match.start(match.lastgroup or 0), bracket=bracket)

    def _drop(self, count: int) -> None:
        if count:
            del self._buffer[:count]
            self._offset += count
            self._scanned = max(0, self._scanned - count)
            self._state[scan.START] = max(-1, self._state[scan.START] - count)
