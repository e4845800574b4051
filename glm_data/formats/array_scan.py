"""Finds where the elements of a JSON array begin and end, in compiled code, at memory speed.

The scan checks brackets, quotes and the order of tokens, not numbers or escapes: enough to notice damage within a few
bytes of where it happens, so that the reader can take up again at the next element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled

# Slots of the state, which lives across chunks.
START, DEPTH, KINDS, PREVIOUS, STRING = range(5)
# How a scan ends.
MORE, FULL, DAMAGED, CLOSED = range(4)
# The token before, as far as it decides what may follow: a value only after the first three, never after the others.
_OPEN, _COMMA, _COLON, _VALUE, _SCALAR = range(5)
# Whether the scan is inside a string, and then just behind a backslash.
_OUTSIDE, _INSIDE, _ESCAPED = range(3)
_DEEPEST = 62
"""Levels that fit the bits of ``KINDS`` (1 = object)."""


def new_state() -> NDArray[np.int64]:
    """The state just behind the array's ``[``: no element open, depth 1."""
    state = np.zeros(5, np.int64)
    state[START], state[DEPTH], state[PREVIOUS] = -1, 1, _COMMA
    return state


@compiled
def scan_elements(buffer: NDArray[np.uint8], position: int, state: NDArray[np.int64], ends: NDArray[np.int64]) -> Any:
    """Scan ``buffer`` from ``position``; returns (elements found, position reached, how it ended).

    ``ends: int64[N, 2]`` receives start and end of every finished element. ``state[START]`` is the start of the
    element that is still open, or -1. ``DAMAGED`` stops at the byte that cannot stand there, ``CLOSED`` behind the
    array's ``]``, ``FULL`` when ``ends`` is.
    """
    count = 0
    size = buffer.shape[0]
    while position < size:
        byte = buffer[position]
        if state[STRING] == _ESCAPED:
            state[STRING] = _INSIDE
            position += 1
            continue
        if state[STRING] == _INSIDE:
            while position < size:
                byte = buffer[position]
                if byte == 0x22 or byte == 0x5C or byte < 0x20:
                    break
                position += 1
            if position == size:
                break
            if byte < 0x20:
                return count, position, DAMAGED
            if byte == 0x22:
                state[STRING] = _OUTSIDE
                state[PREVIOUS] = _VALUE
            else:
                state[STRING] = _ESCAPED
            position += 1
            continue
        if byte == 0x20 or 0x09 <= byte <= 0x0D:
            position += 1
            continue
        if count == ends.shape[0]:
            return count, position, FULL
        if state[DEPTH] == 1:
            found, closed = _between(byte, position, state, ends, count)
            count += found
            if closed:
                return count, position + 1, CLOSED
        if not _token(byte, state):
            return count, position, DAMAGED
        position += 1
        if state[DEPTH] == 1 and (byte == 0x7D or byte == 0x5D):
            ends[count, 0], ends[count, 1] = state[START], position
            state[START] = -1
            count += 1
    return count, position, MORE


@compiled
def _between(byte: int, position: int, state: NDArray[np.int64], ends: NDArray[np.int64], count: int) -> Any:
    """Begin an element, or end a scalar one; a missing or doubled comma between elements loses nothing."""
    found = 0
    if state[START] >= 0 and (byte == 0x2C or byte == 0x5D):
        ends[count, 0], ends[count, 1] = state[START], position
        state[START] = -1
        found = 1
    if byte == 0x5D:
        return found, True
    if byte == 0x2C:
        state[PREVIOUS] = _VALUE
    elif state[START] < 0:
        state[START] = position
        state[PREVIOUS] = _COMMA
    return found, False


@compiled
def _token(byte: int, state: NDArray[np.int64]) -> bool:
    """Take one structural byte or a byte of a number or word; whether it may stand here."""
    previous, depth = state[PREVIOUS], state[DEPTH]
    in_object = (state[KINDS] >> depth) & 1 == 1
    if byte == 0x22:  # a string: a key or a value
        state[STRING] = _INSIDE
        return bool(previous <= _COLON)
    if byte == 0x7B or byte == 0x5B:
        if depth >= _DEEPEST:
            return False
        allowed = previous == _COLON if in_object else previous <= _COMMA
        bit = np.int64(1) << (depth + 1)
        state[KINDS] = state[KINDS] | bit if byte == 0x7B else state[KINDS] & ~bit
        state[DEPTH] = depth + 1
        state[PREVIOUS] = _OPEN
        return bool(allowed)
    if byte == 0x7D or byte == 0x5D:
        allowed = in_object == (byte == 0x7D) and previous != _COMMA and previous != _COLON
        state[DEPTH] = depth - 1
        state[PREVIOUS] = _VALUE
        return bool(allowed and depth > 1)
    if byte == 0x2C:
        state[PREVIOUS] = _COMMA
        return bool(previous >= _VALUE)
    if byte == 0x3A:
        state[PREVIOUS] = _COLON
        return bool(in_object and previous == _VALUE)
    state[PREVIOUS] = _SCALAR
    return bool(previous != _VALUE and _is_scalar_byte(byte))


@compiled
def _is_scalar_byte(byte: int) -> bool:
    """Digits, ``+ - .`` and the letters of numbers and of true, false, null."""
    if 0x30 <= byte <= 0x39 or byte == 0x2B or byte == 0x2D or byte == 0x2E or byte == 0x45:
        return True
    # a e f l n r s t u
    return bool(
        byte == 0x61 or byte == 0x65 or byte == 0x66 or byte == 0x6C or byte == 0x6E
        or byte == 0x72 or byte == 0x73 or byte == 0x74 or byte == 0x75
    )  # fmt: skip
