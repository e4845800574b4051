"""Takes the text out of JSON records in compiled code: most of a record is its text, of which no string is made.

The scan finds the text among the record's own fields, checks it and undoes its escapes. It trusts nothing else: what is
left of the record, with an empty string in place of the text, goes through the decoder, and a record with anything
unusual about it (a field twice, a text that is no string, broken UTF-8, a lone surrogate) goes there whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.formats.blocks import Records
from glm_data.formats.json_strings import (
    BACKSLASH,
    QUOTE,
    SPACE,
    copy_bytes,
    copy_string,
    end_of_kept_string,
    end_of_plain_string,
    skip_space,
    skip_string,
)
from glm_data.kernels import compiled

_COMMA, _COLON, _OPEN, _CLOSE = 0x2C, 0x3A, 0x7B, 0x7D
_SLOW = -1
_MINUS, _ZERO, _NINE = 0x2D, 0x30, 0x39
_WORDS: tuple[bytes, ...] = (
    b"text",
    b"content",
    b"raw_content",
    b"dataType",
    b"pile_set_name",
    b"source",
    b"meta",
    b"lang",
)
CONTENT, _DATA_TYPE, _PILE_SET, _SOURCE, _META, _LANG, _NAMES = 1, 3, 4, 5, 6, 7, len(_WORDS)
_WORDS += (b"true", b"false", b"null")
_SIZES = np.array([len(word) for word in _WORDS], np.int64)
_SPELT = np.array([list(word.ljust(16)) for word in _WORDS], np.uint8)
NOT_FLAT = -1
_MOST_FIELDS, _MOST_DIGITS = 16, 15


class Spans(NamedTuple):
    """UTF-8 strings one after the other, one a record."""

    data: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    """``int64[records + 1]``."""

    def strings(self) -> pa.Array:
        """The same as a string array, without a copy."""
        offsets = self.bounds.astype(np.int32)
        return pa.StringArray.from_buffers(offsets.size - 1, pa.py_buffer(offsets), pa.py_buffer(self.data))

    def at(self, place: int) -> bytes:
        """One of them as an object."""
        return self.data[self.bounds[place] : self.bounds[place + 1]].tobytes()


class Extracted(NamedTuple):
    """The texts of some records, taken out; of a record that has to be decoded whole, neither text nor rest."""

    texts: Spans
    rests: Spans
    """The records without their texts: an empty string stands there."""
    metas: Spans
    """Of the rests that are flat, the JSON of their fields but those of text and source, on a level with those of an
    object ``meta``."""
    sources: Spans
    """What a flat rest says of its source, or nothing."""
    fields: NDArray[np.int64]
    """``int64[records]``: :data:`NOT_FLAT`, or :data:`CONTENT` and others for the text's field."""


def extract_texts(records: Records) -> Extracted:
    """Take the text (``text``, else ``content``, else ``raw_content``) out of JSON objects."""
    data = np.frombuffer(records.data, np.uint8)
    count = len(records.bounds)
    texts, rests = np.empty(data.size, np.uint8), np.empty(data.size, np.uint8)
    bounds, fields = np.zeros((4, count + 1), np.int64), np.empty(count, np.int64)
    _extract_kernel(data, records.bounds, texts, rests, bounds)
    rests = rests[: bounds[1, -1]]
    metas, sources = np.empty(rests.size, np.uint8), np.empty(rests.size, np.uint8)
    _flatten_kernel(rests, metas, sources, bounds, fields)
    columns = zip((texts, rests, metas, sources), bounds, strict=True)
    text, rest, meta, source = (Spans(array[: ends[-1]], ends) for array, ends in columns)
    return Extracted(text, rest, meta, source, fields)


@compiled
def _extract_kernel(joined: Any, records: Any, texts: Any, rests: Any, bounds: Any) -> None:
    used = rest = 0
    for record in range(records.shape[0]):
        start, end = records[record, 0], records[record, 1]
        value, value_end, size = _extract(joined, start, end, texts, used)
        used += size
        if value >= 0:
            rest = copy_bytes(joined, start, value + 1, rests, rest)
            rest = copy_bytes(joined, value_end - 1, end, rests, rest)
        bounds[0, record + 1], bounds[1, record + 1] = used, rest


@compiled
def _flatten_kernel(rests: Any, metas: Any, sources: Any, bounds: Any, fields: Any) -> None:
    found = np.empty((_MOST_FIELDS, 6), np.int64)
    used = said = 0
    for record in range(fields.size):
        start, end = bounds[1, record], bounds[1, record + 1]
        fields[record] = NOT_FLAT
        count = _parse_fields(rests, start, end, found) if end > start else 0
        if count:
            used, fields[record], source = _flatten(rests, found, count, metas, used)
            if source >= 0:
                said = copy_bytes(rests, found[source, 3] + 1, found[source, 4] - 1, sources, said)
        bounds[2, record + 1], bounds[3, record + 1] = used, said


@compiled
def _parse_fields(rests: Any, at: int, end: int, fields: Any) -> int:
    """Fill in a row a field of a rest, whose structure the scan has seen, those of an object ``meta`` among them: what
    its name means, where name and value begin and end, and whether it is one of ``meta``.

    The number of fields; 0 if a name comes twice, or a value is not a string as the encoder writes it, a small integer
    or a constant, or ``meta`` is empty or names a text, or the record may be one of our own."""
    count = depth = metas = langs = 0
    while count < fields.shape[0]:
        name = skip_space(rests, at + 1, end)
        behind = end_of_plain_string(rests, name, end)
        if behind < 0:
            return 0
        for other in range(count):
            if _is_same(rests, name, behind, fields[other, 1], fields[other, 2]):
                return 0
        kind = _name_of(rests, name + 1, behind - 1)
        value = skip_space(rests, skip_space(rests, behind, end) + 1, end)
        if depth and (kind < _DATA_TYPE or kind == _META):
            return 0
        if kind == _META and rests[value] == _OPEN and not metas:
            at, depth, metas = value, 1, 1
            continue
        langs += depth == 0 and kind == _LANG
        at = end_of_kept_string(rests, value, end) if rests[value] == QUOTE else _end_of_scalar(rests, value, end)
        if at < 0 or kind == _META:
            return 0
        fields[count, 0], fields[count, 5] = kind, depth
        fields[count, 1], fields[count, 2], fields[count, 3], fields[count, 4] = name, behind, value, at
        count += 1
        at = skip_space(rests, at, end)
        if rests[at] == _CLOSE and depth:
            at, depth = skip_space(rests, at + 1, end), 0
        if rests[at] == _CLOSE:
            return 0 if metas and langs else count
        if rests[at] != _COMMA:
            return 0
    return 0


@compiled
def _flatten(rests: Any, fields: Any, count: int, metas: Any, used: int) -> Any:
    """Write fields but those of text and source as the encoder would, those of ``meta`` last: the place behind, the
    kind of the text's field (``NOT_FLAT`` if that cannot be done), the place of the source's."""
    text, source, first = _NAMES, NOT_FLAT, used
    for place in range(count):
        text = min(text, fields[place, 0])
    metas[used] = _OPEN
    used += 1
    for again in range(2 * count):
        depth, place = again // count, again % count
        kind, name, behind = fields[place, 0], fields[place, 1], fields[place, 2]
        value, end = fields[place, 3], fields[place, 4]
        names_source = kind == _DATA_TYPE if text == CONTENT else (kind == _PILE_SET) | (kind == _SOURCE)
        if fields[place, 5] != depth:
            continue
        if names_source and source >= 0:
            return first, NOT_FLAT, NOT_FLAT
        if names_source and rests[value] == QUOTE and end > value + 2:
            if end_of_plain_string(rests, value, end) != end:
                return first, NOT_FLAT, NOT_FLAT
            source = place
        elif kind != text:
            used = copy_bytes(rests, name, behind, metas, used)
            metas[used] = _COLON
            used = copy_bytes(rests, value, end, metas, used + 1)
            metas[used] = _COMMA
            used += 1
    used -= used > first + 1
    metas[used] = _CLOSE
    return used + 1, text, source


@compiled
def _end_of_scalar(rests: Any, at: int, end: int) -> int:
    """Behind an integer of few digits, or a constant; -1 for anything else."""
    for word in range(_NAMES, _SIZES.size):
        if _says(rests, at, min(at + _SIZES[word], end), word):
            return at + _SIZES[word]
    at += rests[at] == _MINUS
    first = at
    while at < end and _ZERO <= rests[at] <= _NINE:
        at += 1
    is_small = 0 < at - first <= _MOST_DIGITS
    return at if is_small and (rests[first] != _ZERO or (at == first + 1 and rests[first - 1] != _MINUS)) else -1


@compiled
def _is_same(data: Any, start: int, end: int, other: int, other_end: int) -> Any:
    """Whether two spans hold the same bytes."""
    same = end - start == other_end - other
    for i in range(end - start if same else 0):
        same &= data[start + i] == data[other + i]
    return same


@compiled
def _says(data: Any, start: int, end: int, word: int) -> Any:
    """Whether a span holds the bytes of one of :data:`_WORDS`."""
    same = end - start == _SIZES[word]
    for i in range(_SIZES[word] if same else 0):
        same &= data[start + i] == _SPELT[word, i]
    return same


@compiled
def _name_of(data: Any, start: int, end: int) -> Any:
    """The place of a field's name in :data:`_WORDS`, or ``_NAMES`` for any other."""
    for name in range(_NAMES):
        if _says(data, start, end, name):
            return name
    return _NAMES


@compiled
def _extract(joined: Any, at: int, end: int, data: Any, used: int) -> Any:
    """``(start, end, size)`` of the text's string in ``joined`` and of the text in ``data``; start is -1 for slow."""
    best, value, value_end, size = 4, _SLOW, _SLOW, 0
    at = skip_space(joined, at, end)
    if at >= end or joined[at] != _OPEN:
        return _SLOW, _SLOW, 0
    at += 1
    while True:
        at = skip_space(joined, at, end)
        if at >= end or joined[at] != QUOTE:
            return _SLOW, _SLOW, 0
        key = at + 1
        at = skip_string(joined, at, end)
        rank = _rank_of(joined, key, at - 1)
        at = skip_space(joined, at, end)
        if at >= end or joined[at] != _COLON:
            return _SLOW, _SLOW, 0
        at = skip_space(joined, at + 1, end)
        if at >= end or rank == 3 or (rank < 3 and (joined[at] != QUOTE or rank == best)):
            return _SLOW, _SLOW, 0
        if rank < best:
            best, value = rank, at
            at, size = copy_string(joined, at + 1, end, data, used)
            value_end = at
        else:
            at = _skip_value(joined, at, end)
        if at < 0:
            return _SLOW, _SLOW, 0
        at = skip_space(joined, at, end)
        if at >= end:
            return _SLOW, _SLOW, 0
        byte = joined[at]
        at += 1
        if byte == _CLOSE:
            break
        if byte != _COMMA:
            return _SLOW, _SLOW, 0
    if best == 4 or skip_space(joined, at, end) != end:
        return _SLOW, _SLOW, 0
    return value, value_end, size


@compiled
def _rank_of(joined: Any, start: int, end: int) -> Any:
    """0 to 2 for the keys ``text``, ``content`` and ``raw_content``, 3 for one with an escape, 4 for any other."""
    rank = _name_of(joined, start, end)
    if rank < 3:
        return rank
    for at in range(start, end):
        if joined[at] == BACKSLASH:
            return 3
    return 4


@compiled
def _skip_value(joined: Any, at: int, end: int) -> int:
    """Behind the value that begins at ``at``, brackets matched by number alone."""
    depth = 0
    while at < end:
        byte = joined[at]
        if byte == QUOTE:
            at = skip_string(joined, at, end)
            if depth == 0:
                return at
            continue
        if byte == _OPEN or byte == 0x5B:
            depth += 1
        elif byte == _CLOSE or byte == 0x5D:
            if depth == 0:
                return at
            depth -= 1
            if depth == 0:
                return at + 1
        elif depth == 0 and (byte == _COMMA or SPACE[byte]):
            return at
        at += 1
    return at
