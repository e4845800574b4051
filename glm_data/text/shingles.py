"""Shingles of folded keys: script-aware n-grams as 64-bit hashes, compiled, over a block's UTF-8.

A key is a stream of tokens: a word of a script that puts spaces between words is one token, and so is every character
of a script that does not (Han, Kana, Hangul, Thai, see :mod:`glm_data.text.folding`). A shingle is ``ngram`` tokens in
a row, so English has word 5-grams, Chinese character 5-grams, and a mixed text both, joined where the scripts meet.
A text of fewer tokens has one shingle, all of it; a text without any token (``"!!!"``) has one made of its raw bytes.

::

    token    t = mix(w) with w = (w ^ code point) * WORD_FACTOR over the word, from WORD_SEED      all modulo 2^64
    shingle  mix(t1 * G^(n-1) + ... + tn)           short: mix(t1 * G^(k-1) + ... + tk + k * SHORT_FACTOR), k < n
    mix      the 64-bit finaliser of MurmurHash3
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.text.folding import (
    BREAK,
    CHARACTER,
    CODE_POINT_MASK,
    DIGIT,
    KIND_SHIFT,
    LENGTH_SHIFT,
    NOTHING,
    WORD,
    fold_table,
)

NGRAM = 5
LONGEST_NGRAM = _RING = 64

WORD_SEED = np.uint64(0xCBF29CE484222325)
WORD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
RAW_SEED = np.uint64(0x8A5CD789635D2DFF)
GRAM_FACTOR = np.uint64(0xD1342543DE82EF95)
SHORT_FACTOR = np.uint64(0xA0761D6478BD642F)
_NOTHING_ENTRY = np.uint32(NOTHING << KIND_SHIFT)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_KEY_1, _KEY_2 = np.uint64(0x9FB21C651E98DF25), np.uint64(0xE7037ED1A0B428DB)

Uint64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]


class Shingles(NamedTuple):
    """The shingles of a block's texts in order of occurrence, repeats included, as compressed rows.

    ``hashes: uint64[shingles]``; those of text ``i`` are ``hashes[offsets[i]:offsets[i + 1]]``, never none.
    """

    hashes: Uint64s
    offsets: Int64s


def shingle_texts(
    texts: pa.Array, ngram: int = NGRAM, *, fold_digits: bool = False, characters: bool = False
) -> Shingles:
    """Hash the shingles of a string array's texts; ``ngram`` is 1 to 64 tokens.

    With ``characters`` every letter and digit is a token, whatever its script.
    """
    if not 1 <= ngram <= LONGEST_NGRAM:
        raise ValueError(f"ngram must be 1 to {LONGEST_NGRAM}, not {ngram}")
    data, offsets = utf8_buffers(texts)
    table = fold_table(fold_digits)
    size = int(offsets[-1] - offsets[0])
    bounds = np.empty(len(texts) + 1, np.int64)
    for most in (size // 2, size * table.growth):  # what texts have as a rule, and what they may have at most
        hashes = np.empty(most + len(texts), np.uint64)
        if _shingle_kernel(data, offsets, table[:2], (fold_digits, characters), ngram, hashes, bounds):
            break
    return Shingles(hashes[: bounds[-1]], bounds)


def utf8_buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], Int64s]:
    """The UTF-8 bytes of a string array and the offsets of its texts in them, without a copy of the bytes."""
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    bounds = np.zeros(1, np.int64)
    if len(texts):
        bounds = np.frombuffer(offsets, kind, len(texts) + 1, texts.offset * np.dtype(kind).itemsize).astype(np.int64)
    bytes_read = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    bytes_read.flags.writeable = False  # one type, so that kernels are compiled once
    return bytes_read, bounds


def exact_keys(shingles: Shingles) -> Uint64s:
    """A 128-bit hash of every folded key (``uint64[texts, 2]``): equal for texts of one key, and only for them."""
    keys = np.empty((shingles.offsets.size - 1, 2), np.uint64)
    _key_kernel(shingles.hashes, shingles.offsets, keys)
    return keys


def distinct_sorted(shingles: Shingles) -> Shingles:
    """Every text's shingles as a set: ascending, without repeats."""
    hashes = np.empty_like(shingles.hashes)
    offsets = np.empty_like(shingles.offsets)
    _distinct_kernel(shingles.hashes, shingles.offsets, hashes, offsets)
    return Shingles(hashes[: offsets[-1]], offsets)


def _compiled(function: Any) -> Any:
    return numba.njit(nogil=True, cache=True)(function)


@_compiled
def _at(index: int) -> Any:
    """An index known not to be negative, which spares Numba its wrap-around."""
    return np.uint64(index)


@_compiled
def mix64(value: Any) -> Any:
    """Spread every bit of a ``uint64`` over all of them: a bijection."""
    value ^= value >> np.uint64(33)
    value *= _MIX_1
    value ^= value >> np.uint64(33)
    value *= _MIX_2
    return value ^ (value >> np.uint64(33))


@_compiled
def _decode(data: Any, at: int, end: int) -> Any:
    """Code point and length (in the bits above 21) of the UTF-8 sequence at ``at``; a broken one is a NUL of 1 byte."""
    first = np.int64(data[at])
    if 0xC2 <= first < 0xE0 and at + 2 <= end:
        return 2 << 21 | (first & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F
    if 0xF0 <= first < 0xF5 and at + 4 <= end:
        low = (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F
        high = (first & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
        return 4 << 21 | np.int64(min(int(high | low), 0x10FFFF))
    return 1 << 21


@_compiled
def _decode_three(data: Any, at: int) -> Any:
    """The code point of the three bytes at ``at``."""
    high, middle = np.int64(data[_at(at)]) & 0x0F, np.int64(data[_at(at + 1)]) & 0x3F
    return high << 12 | middle << 6 | np.int64(data[_at(at + 2)]) & 0x3F


@_compiled
def _read_letters(data: Any, at: int, end: int, entries: Any, entry: Any, word: Any) -> Any:
    """Go on with a word while ASCII letters follow: ``(word, entry of what comes then, behind it)``."""
    while entry >> np.uint32(KIND_SHIFT) == WORD:
        word = (word ^ np.uint64(entry & np.uint32(0x7F))) * WORD_FACTOR
        if at >= end or data[_at(at)] >= 0x80:
            return word, _NOTHING_ENTRY, at
        entry = entries[data[_at(at)]]
        at += 1
    return word, entry, at


@_compiled
def _shingle_kernel(data: Any, bounds: Any, table: Any, modes: Any, ngram: int, hashes: Any, offsets: Any) -> Any:
    """Write the shingles of every text; whether ``hashes`` had room. The last tokens stand in a ring, not in memory."""
    entries, expansions = table
    fold_digits, characters = modes
    has_words = not (fold_digits or characters)
    ring = np.zeros(_RING, np.uint64)
    factor = _power(ngram)
    used = offsets[0] = 0
    for text in range(bounds.size - 1):
        at, end = bounds[text], bounds[text + 1]
        word, in_word, before, part, last = WORD_SEED, False, np.uint32(0), np.int64(0), np.int64(0)
        window, count, first_of_text = np.uint64(0), 0, used
        while at < end or part < last:
            first = data[_at(at)] if part == last else np.uint8(0)
            if part < last:
                entry = expansions[_at(part)]
                part += 1
            elif first < 0x80:
                entry = entries[first]
                at += 1
                if has_words and entry >> np.uint32(KIND_SHIFT) == WORD:
                    in_word = True
                    word, entry, at = _read_letters(data, at, end, entries, entry, word)
            elif 0xE0 <= first < 0xF0 and at + 3 <= end:  # most of Chinese
                entry = entries[_at(_decode_three(data, at))]
                at += 3
            else:
                decoded = _decode(data, at, end)
                entry = entries[_at(decoded & CODE_POINT_MASK)]
                at += decoded >> 21
            kind = entry >> np.uint32(KIND_SHIFT)
            value = np.uint64(entry & np.uint32(CODE_POINT_MASK))
            if characters and kind == WORD:
                kind = np.uint32(NOTHING if fold_digits and entry == DIGIT and before == DIGIT else CHARACTER)
            if kind in (CHARACTER, BREAK):
                if used + 2 > hashes.size:
                    return False
                if in_word:
                    window, count, used = _push(mix64(word), window, count, ngram, factor, ring, hashes, used)
                    word, in_word = WORD_SEED, False
                if kind == CHARACTER:
                    token = mix64((WORD_SEED ^ value) * WORD_FACTOR)
                    window, count, used = _push(token, window, count, ngram, factor, ring, hashes, used)
                before = entry
            elif kind == WORD:
                if not (fold_digits and entry == DIGIT and before == DIGIT):
                    word = (word ^ value) * WORD_FACTOR
                in_word, before = True, entry
            elif kind > NOTHING:  # the flag of an expansion is set
                part = np.int64(value)
                last = part + np.int64(entry >> np.uint32(LENGTH_SHIFT))
        if used + 1 + in_word > hashes.size:
            return False
        if in_word:
            window, count, used = _push(mix64(word), window, count, ngram, factor, ring, hashes, used)
        if used == first_of_text:
            short = mix64(window + np.uint64(count) * SHORT_FACTOR)
            hashes[_at(used)], used = short if count else _raw_hash(data, bounds[text], end), used + 1
        offsets[text + 1] = used
    return True


@_compiled
def _power(ngram: int) -> Any:
    """``GRAM_FACTOR ** ngram``."""
    factor = np.uint64(1)
    for _ in range(ngram):
        factor *= GRAM_FACTOR
    return factor


@_compiled
def _push(token: Any, window: Any, count: int, ngram: int, factor: Any, ring: Any, hashes: Any, used: int) -> Any:
    """Move the window on by a token, the ``count``-th from 0, and write its shingle if it is full."""
    window = window * GRAM_FACTOR + token
    if count >= ngram:
        window -= ring[_at((count - ngram) & (_RING - 1))] * factor
    ring[_at(count & (_RING - 1))] = token
    if count + 1 >= ngram:
        hashes[_at(used)] = mix64(window)
        used += 1
    return window, count + 1, used


@_compiled
def _raw_hash(data: Any, start: int, end: int) -> Any:
    value = RAW_SEED
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * WORD_FACTOR
    return mix64(value)


@_compiled
def _key_kernel(hashes: Any, offsets: Any, keys: Any) -> None:
    for text in range(offsets.size - 1):
        first, second = _KEY_1, _KEY_2
        for at in range(offsets[text], offsets[text + 1]):
            first = (first ^ hashes[at]) * _KEY_2
            first ^= first >> np.uint64(32)
            second = (second + hashes[at]) * _KEY_1
            second ^= second >> np.uint64(29)
        keys[text, 0], keys[text, 1] = mix64(first), mix64(second)


@_compiled
def _distinct_kernel(hashes: Any, offsets: Any, distinct: Any, starts: Any) -> None:
    used = 0
    starts[0] = 0
    for text in range(offsets.size - 1):
        ordered = np.sort(hashes[offsets[text] : offsets[text + 1]])
        distinct[used] = ordered[0]
        used += 1
        for at in range(1, ordered.size):
            if ordered[at] != ordered[at - 1]:
                distinct[used] = ordered[at]
                used += 1
        starts[text + 1] = used
