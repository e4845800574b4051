"""Takes the text out of JSON records in compiled code: most of a record is its text, of which no string is made.

The scan finds the text among the record's own fields, checks it and undoes its escapes. It trusts nothing else: what is
left of the record, with an empty string in place of the text, goes through the decoder, and a record with anything
unusual about it (a field twice, a text that is no string, broken UTF-8, a lone surrogate) goes there whole.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.formats.blocks import Records
from glm_data.kernels import compiled, inlined
from glm_data.text.machine import LANES, copy_lanes, count_ones, first_lanes, pointer, trailing_zeros, within

_SPACE = np.zeros(256, np.bool_)
_SPACE[[0x20, 0x09, 0x0A, 0x0D]] = True
_PLAIN = np.ones(256, np.bool_)
_PLAIN[:0x20] = _PLAIN[0x80:] = _PLAIN[[0x22, 0x5C]] = False
"""Bytes of a string that stand for themselves alone."""
_NO_ESCAPE = 0xFF
_ESCAPES = np.full(256, _NO_ESCAPE, np.uint8)
for _letter, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_letter] = _meant
_HEX = np.full(256, 0x10000, np.int64)
for _value in range(16):
    _HEX[ord(f"{_value:x}")] = _HEX[ord(f"{_value:X}")] = _value
_ONE = np.uint64(1)
_SEEN = LANES + 2
"""Bytes that are looked at to see whether 64 are UTF-8."""
_QUOTE, _BACKSLASH, _COMMA, _COLON, _OPEN, _CLOSE = 0x22, 0x5C, 0x2C, 0x3A, 0x7B, 0x7D
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

    def each(self) -> list[bytes]:
        """The same as objects."""
        data = self.data.tobytes()
        return [data[start:end] for start, end in itertools.pairwise(self.bounds.tolist())]


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
            rest = _copy(joined, start, value + 1, rests, rest)
            rest = _copy(joined, value_end - 1, end, rests, rest)
        bounds[0, record + 1], bounds[1, record + 1] = used, rest


@compiled
def _copy(data: Any, start: int, end: int, copied: Any, used: int) -> int:
    """Copy bytes, and what lies behind them where there is room; the place behind them."""
    here, there = pointer(data), pointer(copied)
    while start < end and start + LANES <= data.size and used + LANES <= copied.size:
        copy_lanes(there, used, here, start)
        size = min(LANES, end - start)
        start, used = start + size, used + size
    for at in range(start, end):
        copied[_at(used)] = data[_at(at)]
        used += 1
    return used


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
                said = _copy(rests, found[source, 3] + 1, found[source, 4] - 1, sources, said)
        bounds[2, record + 1], bounds[3, record + 1] = used, said


@compiled
def _parse_fields(rests: Any, at: int, end: int, fields: Any) -> int:
    """Fill in a row a field of a rest, whose structure the scan has seen, those of an object ``meta`` among them: what
    its name means, where name and value begin and end, and whether it is one of ``meta``.

    The number of fields; 0 if a name comes twice, or a value is not a string without escapes, a small integer or a
    constant, or ``meta`` is empty or names a text, or the record may be one of our own."""
    count = depth = metas = langs = 0
    while count < fields.shape[0]:
        name = _skip_space(rests, at + 1, end)
        behind = _end_of_plain_string(rests, name, end)
        if behind < 0:
            return 0
        for other in range(count):
            if _is_same(rests, name, behind, fields[other, 1], fields[other, 2]):
                return 0
        kind = _name_of(rests, name + 1, behind - 1)
        value = _skip_space(rests, _skip_space(rests, behind, end) + 1, end)
        if depth and (kind < _DATA_TYPE or kind == _META):
            return 0
        if kind == _META and rests[value] == _OPEN and not metas:
            at, depth, metas = value, 1, 1
            continue
        langs += depth == 0 and kind == _LANG
        at = _end_of_plain_string(rests, value, end) if rests[value] == _QUOTE else _end_of_scalar(rests, value, end)
        if at < 0 or kind == _META:
            return 0
        fields[count, 0], fields[count, 5] = kind, depth
        fields[count, 1], fields[count, 2], fields[count, 3], fields[count, 4] = name, behind, value, at
        count += 1
        at = _skip_space(rests, at, end)
        if rests[at] == _CLOSE and depth:
            at, depth = _skip_space(rests, at + 1, end), 0
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
        if names_source and rests[value] == _QUOTE and end > value + 2:
            source = place
        elif kind != text:
            used = _copy(rests, name, behind, metas, used)
            metas[used] = _COLON
            used = _copy(rests, value, end, metas, used + 1)
            metas[used] = _COMMA
            used += 1
    used -= used > first + 1
    metas[used] = _CLOSE
    return used + 1, text, source


@compiled
def _end_of_plain_string(rests: Any, at: int, end: int) -> int:
    """Behind the string that begins at ``at``, -1 if it has escapes or is unsound."""
    at = _end_of_run(rests, at + 1, end)
    return at + 1 if at < end and rests[at] == _QUOTE else -1


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
    at = _skip_space(joined, at, end)
    if at >= end or joined[at] != _OPEN:
        return _SLOW, _SLOW, 0
    at += 1
    while True:
        at = _skip_space(joined, at, end)
        if at >= end or joined[at] != _QUOTE:
            return _SLOW, _SLOW, 0
        key = at + 1
        at = _skip_string(joined, at, end)
        rank = _rank_of(joined, key, at - 1)
        at = _skip_space(joined, at, end)
        if at >= end or joined[at] != _COLON:
            return _SLOW, _SLOW, 0
        at = _skip_space(joined, at + 1, end)
        if at >= end or rank == 3 or (rank < 3 and (joined[at] != _QUOTE or rank == best)):
            return _SLOW, _SLOW, 0
        if rank < best:
            best, value = rank, at
            at, size = _copy_string(joined, at + 1, end, data, used)
            value_end = at
        else:
            at = _skip_value(joined, at, end)
        if at < 0:
            return _SLOW, _SLOW, 0
        at = _skip_space(joined, at, end)
        if at >= end:
            return _SLOW, _SLOW, 0
        byte = joined[at]
        at += 1
        if byte == _CLOSE:
            break
        if byte != _COMMA:
            return _SLOW, _SLOW, 0
    if best == 4 or _skip_space(joined, at, end) != end:
        return _SLOW, _SLOW, 0
    return value, value_end, size


@compiled
def _rank_of(joined: Any, start: int, end: int) -> Any:
    """0 to 2 for the keys ``text``, ``content`` and ``raw_content``, 3 for one with an escape, 4 for any other."""
    rank = _name_of(joined, start, end)
    if rank < 3:
        return rank
    for at in range(start, end):
        if joined[at] == _BACKSLASH:
            return 3
    return 4


@compiled
def _skip_space(joined: Any, at: int, end: int) -> int:
    while at < end and _SPACE[joined[at]]:
        at += 1
    return at


@compiled
def _skip_string(joined: Any, at: int, end: int) -> int:
    """Behind the string that begins with the quote at ``at``; ``end`` if it does not end."""
    at += 1
    lanes = pointer(joined)
    while at < end:
        if at + LANES <= joined.size:
            found = within(lanes, at, 0, _QUOTE, 1) | within(lanes, at, 0, _BACKSLASH, 1)
            at += trailing_zeros(found)
            if found == 0:
                continue
            if at >= end:
                break
        byte = joined[_at(at)]
        if byte == _QUOTE:
            return at + 1
        at += 2 if byte == _BACKSLASH else 1
    return end


@compiled
def _skip_value(joined: Any, at: int, end: int) -> int:
    """Behind the value that begins at ``at``, brackets matched by number alone."""
    depth = 0
    while at < end:
        byte = joined[at]
        if byte == _QUOTE:
            at = _skip_string(joined, at, end)
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
        elif depth == 0 and (byte == _COMMA or _SPACE[byte]):
            return at
        at += 1
    return at


@compiled
def _copy_string(joined: Any, at: int, end: int, data: Any, used: int) -> Any:
    """Copy a string from behind its quote on, escapes undone; ``(behind its end, size)``, -1 if anything is wrong.

    Whether it is UTF-8 is seen in the copy, which is in one piece: an escape stands for whole characters.
    """
    first, lanes, there = used, pointer(joined), pointer(data)
    while at < end:
        if at + LANES <= joined.size:  # and so much room: texts are no longer than records
            copy_lanes(there, used, lanes, at)
            size = min(trailing_zeros(_specials(lanes, at)), end - at)
            at, used = at + size, used + size
            if size == LANES or at == end:
                continue
        byte = joined[_at(at)]
        if byte == _QUOTE:
            return (at + 1, used - first) if _is_utf8(data, first, used) else (_SLOW, 0)
        if byte < 0x20 or (byte == _BACKSLASH and at + 1 >= end):
            break
        meant = byte if byte != _BACKSLASH else _ESCAPES[joined[_at(at + 1)]]
        if meant != _NO_ESCAPE or byte != _BACKSLASH:
            data[_at(used)] = meant
            at, used = at + 1 + (byte == _BACKSLASH), used + 1
            continue
        code, at = _read_unicode(joined, at, end)
        if code < 0:
            break
        used = _write_utf8(data, used, code)
    return _SLOW, 0


@compiled
def _is_utf8(data: Any, at: int, end: int) -> Any:
    lanes = pointer(data)
    while at < end:
        if at + _SEEN <= data.size:
            at += _sound_bytes(lanes, at, min(end - at, LANES))
        if at < end:
            size = 1 if data[_at(at)] < 0x80 else _utf8_size(data, at, end)
            if size == 0:
                return False
            at += size
    return True


@compiled
def _end_of_run(joined: Any, at: int, end: int) -> int:
    """Where a run of sound characters that stand for themselves ends, looked for in 64 bytes at a time."""
    lanes = pointer(joined)
    while at < end:
        if at + _SEEN <= joined.size:
            at += _plain_bytes(lanes, at, min(end - at, LANES))
            if at == end:
                break
        byte = joined[_at(at)]
        if byte >= 0x80:
            size = _utf8_size(joined, at, end)
            if size == 0:
                break
            at += size
        elif _PLAIN[byte]:
            at += 1
        else:
            break
    return at


@inlined
def _plain_bytes(lanes: Any, at: int, size: int) -> Any:
    """How many bytes, of the next ``size``, are whole sound characters that stand for themselves, as
    :func:`_sound_bytes` finds them."""
    size = min(size, trailing_zeros(_specials(lanes, at)))
    return _sound_bytes(lanes, at, size) if size else 0


@inlined
def _specials(lanes: Any, at: int) -> Any:
    """Which of 64 bytes cannot stand for themselves in a string."""
    return within(lanes, at, 0, 0, 0x20) | within(lanes, at, 0, _QUOTE, 1) | within(lanes, at, 0, _BACKSLASH, 1)


@inlined
def _sound_bytes(lanes: Any, at: int, size: int) -> Any:
    """How many bytes, of the next ``size`` (1 to 64), are whole characters of at most three bytes; none if the UTF-8 of
    any is broken."""
    high = within(lanes, at, 0, 0x80, 0x80)
    if high & first_lanes(size) == 0:
        return size
    two, three = within(lanes, at, 0, 0xC2, 30), within(lanes, at, 0, 0xE0, 16)
    following = within(lanes, at, 0, 0x80, 0x40)
    size = min(size, trailing_zeros(high & ~(two | three | following)))
    for back in (1, 2):  # a character that is not whole
        begun = two | three if back == 1 else three
        size -= back if size >= back and begun >> np.uint64(size - back) & _ONE else 0
    if size == 0:
        return 0
    inside = first_lanes(size)
    # places are shifted by looking elsewhere, as LLVM makes single bits of shifted outcomes
    second, third = within(lanes, at + 1, 0, 0x80, 0x40), within(lanes, at + 2, 0, 0x80, 0x40)
    upper = within(lanes, at + 1, 0, 0xA0, 0x20)
    too_long, surrogate = within(lanes, at, 0, 0xE0, 1), within(lanes, at, 0, 0xED, 1)
    wrong = (two | three) & ~second | three & ~third | too_long & ~upper | surrogate & upper
    needed = count_ones(two & inside) + 2 * count_ones(three & inside)
    return 0 if wrong & inside or count_ones(following & inside) != needed else size


@compiled
def _at(index: int) -> Any:
    """An index known not to be negative, which spares Numba its wrap-around."""
    return np.uint64(index)


@compiled
def _utf8_size(joined: Any, at: int, end: int) -> int:
    """Bytes of the well-formed sequence at ``at`` (Unicode 16, table 3-7), 0 if it is not."""
    first = joined[at]
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or first > 0xF4 or at + size > end:
        return 0
    second = joined[at + 1]
    low = 0xA0 if first == 0xE0 else 0x90 if first == 0xF0 else 0x80
    high = 0x9F if first == 0xED else 0x8F if first == 0xF4 else 0xBF
    if second < low or second > high:
        return 0
    for i in range(2, size):
        if joined[at + i] & 0xC0 != 0x80:
            return 0
    return size


@compiled
def _read_unicode(joined: Any, at: int, end: int) -> Any:
    r"""``(code point, behind it)`` of a ``\uXXXX`` escape, or of a pair of them; -1 for what is neither."""
    code = _hex4(joined, at, end)
    if 0xD800 <= code < 0xDC00:
        low = _hex4(joined, at + 6, end)
        if not 0xDC00 <= low < 0xE000:
            return -1, at
        return 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00), at + 12
    if 0xDC00 <= code < 0xE000:
        return -1, at
    return code, at + 6


@compiled
def _hex4(joined: Any, at: int, end: int) -> int:
    if at + 6 > end or joined[at] != _BACKSLASH or joined[at + 1] != 0x75:
        return -1
    code = 0
    for i in range(2, 6):
        code = code * 16 + _HEX[joined[at + i]]
    return code if code < 0x10000 else -1


@compiled
def _write_utf8(data: Any, used: int, code: int) -> int:
    if code < 0x80:
        data[used] = code
        return used + 1
    if code < 0x800:
        data[used], data[used + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
        return used + 2
    if code < 0x10000:
        data[used], data[used + 1], data[used + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
        return used + 3
    data[used], data[used + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
    data[used + 2], data[used + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
    return used + 4
