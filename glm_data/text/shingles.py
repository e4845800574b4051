"""Shingles of folded keys: script-aware n-grams as 64-bit hashes, compiled, over a block's UTF-8.

A key is a stream of tokens: a word of a script that puts spaces between words is one token, and so is every character
of a script that does not (Han, Kana, Hangul, Thai, see :mod:`glm_data.text.folding`). A shingle is ``ngram`` tokens in
a row, so English has word 5-grams, Chinese character 5-grams, and a mixed text both, joined where the scripts meet.
A text of fewer tokens has one shingle, all of it; a text without any token (``"!!!"``) has one made of its raw bytes.

::

    word     t = mix(w) with w = spread((w ^ eight letters) * WORD_FACTOR) over the word, from WORD_SEED; a letter above
             ASCII counts as three; the last letters, if they are fewer than eight, with zeros    all modulo 2^64
    other    t = mix((WORD_SEED ^ code point) * WORD_FACTOR), but 0 for any sign
    shingle  mix(t1 * G^(n-1) + ... + tn)           short: mix(t1 * G^(k-1) + ... + tk + k * SHORT_FACTOR), k < n
    mix      the 64-bit finaliser of MurmurHash3; spread(w) = w ^ w >> 32
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
    EXPANSION_FLAG,
    KIND_SHIFT,
    LENGTH_SHIFT,
    NOTHING,
    SIGN,
    WORD,
    fold_table,
)

NGRAM = 5
UNITS = ("word", "character", "auto")
"""What a token is: as above; every letter, digit and sign by itself, whatever its script (texts of fewer than ``ngram``
go without signs); the second for texts in which one of :data:`IDEOGRAPHS_IN` visible characters is Han or Hangul, the
first for all others."""
_CHARACTER, _AUTO = 1, 2
IDEOGRAPHS_IN = 64
LONGEST_NGRAM = 64

WORD_SEED = np.uint64(0xCBF29CE484222325)
WORD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
RAW_SEED = np.uint64(0x8A5CD789635D2DFF)
GRAM_FACTOR = np.uint64(0xD1342543DE82EF95)
SHORT_FACTOR = np.uint64(0xA0761D6478BD642F)
_SIGN_TOKEN = np.uint64(0)
_NOTHING_ENTRY = np.uint32(NOTHING << KIND_SHIFT)
_ONES = np.uint64(0x0101010101010101)
_OTHERS, _LOWER, _ABOVE_A, _ABOVE_Z, _ABOVE_0, _ABOVE_9, _ABOVE_HAN, _ABOVE_HANGUL = (
    _ONES * np.uint64(byte) for byte in (0x80, 0x20, 0x1F, 0x05, 0x50, 0x46, 0x1C, 0x12)
)
"""The high bit of eight bytes; the bit of lower case; what lifts a byte without the high bit to it from a bound
on: ``a``, behind ``z``, ``0``, behind ``9``, the first byte of U+4000, and behind that of U+DFFF."""
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


def shingle_texts(texts: pa.Array, ngram: int = NGRAM, *, fold_digits: bool = False, unit: str = "word") -> Shingles:
    """Hash the shingles of a string array's texts; ``ngram`` is 1 to 64 tokens, ``unit`` one of :data:`UNITS`."""
    if not 1 <= ngram <= LONGEST_NGRAM:
        raise ValueError(f"ngram must be 1 to {LONGEST_NGRAM}, not {ngram}")
    data, offsets = utf8_buffers(texts)
    data, words = eight_at_a_time(data)
    table = fold_table(fold_digits)
    size = int(offsets[-1] - offsets[0])
    bounds = np.empty(len(texts) + 1, np.int64)
    for most in (size, size * table.growth):  # what texts have as a rule, and what they may have at most
        hashes = np.empty(most + 1 + len(texts), np.uint64)
        if _shingle_kernel(data, words, offsets, *table[:2], (fold_digits, UNITS.index(unit)), ngram, hashes, bounds):
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


def eight_at_a_time(data: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], Uint64s]:
    """Bytes, and the same as numbers of eight bytes, the last few left out; copied if they lie at an odd place."""
    aligned = data if data.ctypes.data % 8 == 0 else data.copy()
    aligned.flags.writeable = False
    return aligned, aligned[: aligned.size & -8].view("<u8")


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


def _inlined(function: Any) -> Any:
    """For what loops call a character or word at a time: a call would count references to each array it is given."""
    return numba.njit(nogil=True, cache=True, forceinline=True)(function)


@_inlined
def _at(index: int) -> Any:
    """An index known not to be negative, which spares Numba its wrap-around."""
    return np.uint64(index)


@_inlined
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
def _shingle_kernel(
    data: Any, words: Any, bounds: Any, entries: Any, expansions: Any, modes: Any, ngram: int, hashes: Any, offsets: Any
) -> Any:
    """Write the shingles of every text; whether ``hashes`` had room. Tokens stand where shingles come to stand."""
    fold_digits, unit = modes
    used = offsets[0] = 0
    for text in range(bounds.size - 1):
        start, end = bounds[text], bounds[text + 1]
        if unit == _CHARACTER or (unit == _AUTO and _has_ideographs(data, words, start, end)):
            behind = _read_characters(data, start, end, entries, expansions, fold_digits, hashes, used)
            if behind - used < ngram:
                behind = _leave_signs_out(hashes, used, behind)
        else:
            behind = _read_words(data, words, start, end, entries, expansions, fold_digits, hashes, used)
        if behind < 0 or used + 1 > hashes.size:
            return False
        if behind == used:
            hashes[_at(used)], used = _raw_hash(data, start, end), used + 1
        else:
            used = _join_tokens(hashes, used, behind, ngram)
        offsets[text + 1] = used
    return True


@_compiled
def _has_ideographs(data: Any, words: Any, start: int, end: int) -> Any:
    """Whether one in :data:`IDEOGRAPHS_IN` visible characters begins like Han or Hangul (U+4000 to U+DFFF)."""
    inside, first, last = np.uint64(0), min(end, (start + 7) & -8), max(start, end & -8)
    for place in range(first >> 3, end >> 3):
        inside |= _ideographs(words[_at(place)])
    for at in range(start, first):
        inside |= _ideographs(np.uint64(data[_at(at)]))
    for at in range(last, end):
        inside |= _ideographs(np.uint64(data[_at(at)]))
    if not inside:  # most of English
        return False
    found, seen = 0, 0
    for at in range(start, end):
        byte = data[_at(at)]
        found += (byte >= 0xE4) & (byte <= 0xED)
        seen += (byte > 0x20) & ((byte < 0x80) | (byte >= 0xC0))
        if byte == 0xE3 and at + 3 <= end:  # U+3000, the space of full-width copies
            seen -= (data[_at(at + 1)] == 0x80) & (data[_at(at + 2)] == 0x80)
    return found * IDEOGRAPHS_IN >= seen


@_inlined
def _ideographs(letters: Any) -> Any:
    """The high bit of every byte of eight that begins a character of Han or Hangul."""
    low = letters & ~_OTHERS
    return (low + _ABOVE_HAN) & ~(low + _ABOVE_HANGUL) & letters & _OTHERS


@_compiled
def _leave_signs_out(tokens: Any, start: int, behind: int) -> int:
    """Close up the tokens of a short text that are no signs: alone they would tell it from its like."""
    used = start
    for at in range(start, behind):
        if tokens[_at(at)] != _SIGN_TOKEN:
            tokens[_at(used)] = tokens[_at(at)]
            used += 1
    return used if behind >= 0 else behind


@_compiled
def _join_tokens(hashes: Any, start: int, behind: int, ngram: int) -> int:
    """Turn the tokens of a text into its shingles, in place; the place behind the last one."""
    window, factor = np.uint64(0), np.uint64(1)
    for at in range(start, min(start + ngram, behind)):
        window = window * GRAM_FACTOR + hashes[_at(at)]
        factor *= GRAM_FACTOR
    if behind - start < ngram:
        hashes[_at(start)] = mix64(window + np.uint64(behind - start) * SHORT_FACTOR)
        return start + 1
    for at in range(start, behind - ngram):
        leaving = hashes[_at(at)]
        hashes[_at(at)] = mix64(window)
        window = window * GRAM_FACTOR + (hashes[_at(at + ngram)] - leaving * factor)
    hashes[_at(behind - ngram)] = mix64(window)
    return behind - ngram + 1


@_compiled
def _read_characters(
    data: Any, at: int, end: int, entries: Any, expansions: Any, fold_digits: Any, tokens: Any, used: int
) -> int:
    """Write a text's letters, digits, marks and signs as tokens; the place behind the last one, or -1 without room."""
    before, part, last = np.uint32(0), np.int64(0), np.int64(0)
    while at < end or part < last:
        if part < last:
            entry = expansions[_at(part)]
            part += 1
        elif data[_at(at)] < 0x80:
            entry = entries[data[_at(at)]]
            at += 1
        elif 0xE0 <= data[_at(at)] < 0xF0 and at + 3 <= end:  # most of Chinese
            entry = entries[_at(_join_three(data[_at(at)], data[_at(at + 1)], data[_at(at + 2)]))]
            at += 3
        else:
            decoded = _decode(data, at, end)
            entry = entries[_at(decoded & CODE_POINT_MASK)]
            at += decoded >> 21
        if entry == 0 or entry == _NOTHING_ENTRY:
            continue
        if entry & np.uint32(EXPANSION_FLAG):
            part = np.int64(entry & np.uint32(CODE_POINT_MASK))
            last = part + np.int64(entry >> np.uint32(LENGTH_SHIFT))
            continue
        if not (fold_digits and entry == DIGIT and before == DIGIT):
            if used >= tokens.size:
                return -1
            tokens[_at(used)] = _character_token(entry)
            used += 1
        before = entry
    return used


@_inlined
def _character_token(entry: Any) -> Any:
    if entry == SIGN:
        return _SIGN_TOKEN
    return mix64((WORD_SEED ^ np.uint64(entry & np.uint32(CODE_POINT_MASK))) * WORD_FACTOR)


@_compiled
def _read_words(
    data: Any, words: Any, at: int, end: int, entries: Any, expansions: Any, fold_digits: Any, tokens: Any, used: int
) -> int:
    """As :func:`_read_characters`, with words as tokens; ``words`` are the bytes of ``data``, eight at a time."""
    word, held, size, in_word = WORD_SEED, np.uint64(0), np.uint64(0), False
    before, part, last = np.uint32(0), np.int64(0), np.int64(0)
    fast_end = np.int64(0) if fold_digits else min(end, (words.size - 1) * 8)
    while at < end or part < last:
        if part < last:
            entry = expansions[_at(part)]
            part += 1
        elif data[_at(at)] < 0x80:
            if size == 0 and at < fast_end:
                letters = _join_words(words[_at(at >> 3)], words[_at((at >> 3) + 1)], at)
                count = min(_count_alphanumerics(letters), end - at)
                if count:
                    word, held, size = _add_run(word, letters | _LOWER, np.uint64(count))
                    in_word = True
                    at += count
                    continue
            entry = entries[data[_at(at)]]
            at += 1
        elif 0xE0 <= data[_at(at)] < 0xF0 and at + 3 <= end:
            entry = entries[_at(_join_three(data[_at(at)], data[_at(at + 1)], data[_at(at + 2)]))]
            at += 3
        else:
            decoded = _decode(data, at, end)
            entry = entries[_at(decoded & CODE_POINT_MASK)]
            at += decoded >> 21
        kind = entry >> np.uint32(KIND_SHIFT)
        if kind in (BREAK, CHARACTER):
            if used + 2 > tokens.size:
                return -1
            if in_word:
                tokens[_at(used)], used = _word_token(word, held, size), used + 1
                word, held, size, in_word = WORD_SEED, np.uint64(0), np.uint64(0), False
            if kind == CHARACTER:
                tokens[_at(used)], used = _character_token(entry), used + 1
            before = entry
        elif kind == WORD:
            if not (fold_digits and entry == DIGIT and before == DIGIT):
                word, held, size = _add_letter(word, held, size, np.uint64(entry & np.uint32(CODE_POINT_MASK)))
            in_word, before = True, entry
        elif kind > NOTHING:  # the flag of an expansion is set
            part = np.int64(entry & np.uint32(CODE_POINT_MASK))
            last = part + np.int64(entry >> np.uint32(LENGTH_SHIFT))
    if in_word and used < tokens.size:
        tokens[_at(used)] = _word_token(word, held, size)
    return used + in_word if used + in_word <= tokens.size else -1


@_inlined
def _join_three(first: Any, second: Any, third: Any) -> Any:
    """The code point of three bytes."""
    return (np.int64(first) & 0x0F) << 12 | (np.int64(second) & 0x3F) << 6 | np.int64(third) & 0x3F


@_inlined
def _join_words(low: Any, high: Any, at: int) -> Any:
    """The eight bytes from ``at`` on, out of the two numbers that they lie in."""
    shift = np.uint64((at & 7) * 8)
    return low >> shift | (high << np.uint64(1)) << (np.uint64(63) - shift)


@_inlined
def _count_alphanumerics(letters: Any) -> int:
    """How many of eight bytes, from the lowest on, are ASCII letters or digits."""
    others = _OTHERS & ~_alphanumerics(letters)
    below = (others & (~others + np.uint64(1))) - np.uint64(1)
    return np.int64((below & _ONES) * _ONES >> np.uint64(56)) - (others != 0)


@_inlined
def _add_run(word: Any, letters: Any, count: Any) -> Any:
    """One to eight letters at the beginning of a group of eight: ``(word, letters held, their number)``."""
    if count == 8:
        return _add_letters(word, letters), np.uint64(0), np.uint64(0)
    return word, letters & ((np.uint64(1) << (count * np.uint64(8))) - np.uint64(1)), count


@_inlined
def _alphanumerics(letters: Any) -> Any:
    """The high bit of every byte that is an ASCII letter or digit."""
    plain = letters & ~_OTHERS
    lower = plain | _LOWER
    is_letter = (lower + _ABOVE_A) & ~(lower + _ABOVE_Z)
    is_digit = (plain + _ABOVE_0) & ~(plain + _ABOVE_9)
    return (is_letter | is_digit) & ~letters & _OTHERS


@_inlined
def _add_letters(word: Any, letters: Any) -> Any:
    """Eight letters more, in one number; or fewer, the last ones."""
    word = (word ^ letters) * WORD_FACTOR
    return word ^ (word >> np.uint64(32))


@_inlined
def _add_letter(word: Any, held: Any, size: Any, letter: Any) -> Any:
    """A letter more: itself if it is ASCII, else three numbers above that, of seven bits each."""
    high = np.uint64(0 if letter < 0x80 else 0x80)
    for place in range(1 if letter < 0x80 else 3):
        byte = letter >> np.uint64(7 * place) & np.uint64(0x7F) | high
        held |= byte << (size * np.uint64(8))
        size += np.uint64(1)
        if size == 8:
            word, held, size = _add_letters(word, held), np.uint64(0), np.uint64(0)
    return word, held, size


@_inlined
def _word_token(word: Any, held: Any, size: Any) -> Any:
    return mix64(_add_letters(word, held) if size else word)


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
