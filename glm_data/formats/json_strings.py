"""Strings in the bytes of JSON, in compiled code: found, checked and copied, 64 bytes at a time.

Functions read ``joined`` from place ``at`` on; ``end`` is the end of the record. What lies behind it may be looked at,
where ``joined`` has so much, but counts for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glm_data.kernels import compiled, inlined
from glm_data.text.machine import LANES, copy_lanes, count_ones, first_lanes, pointer, trailing_zeros, within

QUOTE, BACKSLASH = 0x22, 0x5C
SPACE = np.zeros(256, np.bool_)
SPACE[[0x20, 0x09, 0x0A, 0x0D]] = True
_PLAIN = np.ones(256, np.bool_)
_PLAIN[:0x20] = _PLAIN[0x80:] = _PLAIN[[0x22, 0x5C]] = False
"""Bytes of a string that stand for themselves alone."""
_NO_ESCAPE = 0xFF
_ESCAPES = np.full(256, _NO_ESCAPE, np.uint8)
for _letter, _meant in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_letter] = _meant
_KEPT = _ESCAPES != _NO_ESCAPE
_KEPT[ord("/")] = False
"""Which escapes the encoder writes, too."""
_HEX = np.full(256, 0x10000, np.int64)
for _value in range(16):
    _HEX[ord(f"{_value:x}")] = _HEX[ord(f"{_value:X}")] = _value
_ONE = np.uint64(1)
_SEEN = LANES + 2
"""Bytes that are looked at to see whether 64 are UTF-8."""


@compiled
def skip_space(joined: Any, at: int, end: int) -> int:
    """The first place that holds no blank."""
    while at < end and SPACE[joined[at]]:
        at += 1
    return at


@compiled
def skip_string(joined: Any, at: int, end: int) -> int:
    """Behind the string that begins with the quote at ``at``; ``end`` if it does not end."""
    at += 1
    lanes = pointer(joined)
    while at < end:
        if at + LANES <= joined.size:
            found = within(lanes, at, 0, QUOTE, 1) | within(lanes, at, 0, BACKSLASH, 1)
            at += trailing_zeros(found)
            if found == 0:
                continue
            if at >= end:
                break
        byte = joined[_at(at)]
        if byte == QUOTE:
            return at + 1
        at += 2 if byte == BACKSLASH else 1
    return end


@compiled
def end_of_plain_string(rests: Any, at: int, end: int) -> int:
    """Behind the string that begins at ``at``, -1 if it has escapes or is unsound."""
    at = _end_of_run(rests, at + 1, end)
    return at + 1 if at < end and rests[at] == QUOTE else -1


@compiled
def end_of_kept_string(rests: Any, at: int, end: int) -> int:
    """As :func:`end_of_plain_string`, but with such escapes as the encoder would write."""
    at += 1
    while at < end:
        at = _end_of_run(rests, at, end)
        if at + 1 >= end or rests[at] != BACKSLASH or not _KEPT[rests[at + 1]]:
            break
        at += 2
    return at + 1 if at < end and rests[at] == QUOTE else -1


@compiled
def copy_bytes(data: Any, start: int, end: int, copied: Any, used: int) -> int:
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
def copy_string(joined: Any, at: int, end: int, data: Any, used: int) -> Any:
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
        if byte == QUOTE:
            return (at + 1, used - first) if _is_utf8(data, first, used) else (-1, 0)
        if byte < 0x20 or (byte == BACKSLASH and at + 1 >= end):
            break
        meant = byte if byte != BACKSLASH else _ESCAPES[joined[_at(at + 1)]]
        if meant != _NO_ESCAPE or byte != BACKSLASH:
            data[_at(used)] = meant
            at, used = at + 1 + (byte == BACKSLASH), used + 1
            continue
        code, at = _read_unicode(joined, at, end)
        if code < 0:
            break
        used = _write_utf8(data, used, code)
    return -1, 0


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
    return within(lanes, at, 0, 0, 0x20) | within(lanes, at, 0, QUOTE, 1) | within(lanes, at, 0, BACKSLASH, 1)


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
    if at + 6 > end or joined[at] != BACKSLASH or joined[at + 1] != 0x75:
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
