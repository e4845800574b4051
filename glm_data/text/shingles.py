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

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from glm_data.kernels import compiled, inlined
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
from glm_data.text.machine import LANES, count_ones, first_lanes, load_word, pointer, trailing_zeros, within

NGRAM = 5
UNITS = ("word", "character", "auto")
"""What a token is: as above; every letter, digit and sign by itself, whatever its script (texts of fewer than ``ngram``
go without signs); the second for texts in which one of :data:`IDEOGRAPHS_IN` visible characters is Han or Hangul, the
first for all others."""
_CHARACTER, _AUTO = 1, 2
IDEOGRAPHS_IN = 64
LONGEST_NGRAM = 64
_SLACK = LANES + 8

WORD_SEED = np.uint64(0xCBF29CE484222325)
WORD_FACTOR = np.uint64(0x9E3779B97F4A7C15)
RAW_SEED = np.uint64(0x8A5CD789635D2DFF)
GRAM_FACTOR = np.uint64(0xD1342543DE82EF95)
SHORT_FACTOR = np.uint64(0xA0761D6478BD642F)
_SIGN_TOKEN, _NO_TOKEN, _NOT_PLAIN = np.uint64(0), np.uint64(1), np.uint64(2)
_EVERY_THIRD = np.uint64(0x9249249249249249)
_NOTHING_ENTRY = np.uint32(NOTHING << KIND_SHIFT)
_LOWER = np.uint64(0x2020202020202020)
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
    return keyed_shingles(texts, ngram, fold_digits=fold_digits, unit=unit)[0]


def keyed_shingles(
    texts: pa.Array, ngram: int = NGRAM, *, fold_digits: bool = False, unit: str = "word"
) -> tuple[Shingles, Uint64s]:
    """As :func:`shingle_texts`, and the *exact key* of every text (``uint64[texts, 2]``): 128 bits of hash, equal for
    texts of one folded key, and only for them."""
    if not 1 <= ngram <= LONGEST_NGRAM:
        raise ValueError(f"ngram must be 1 to {LONGEST_NGRAM}, not {ngram}")
    data, offsets = _with_slack(*utf8_buffers(texts))
    table = fold_table(fold_digits)
    tables = (table.entries, table.expansions, _plain_tokens())
    size = int(offsets[-1] - offsets[0])
    bounds, keys = np.empty(len(texts) + 1, np.int64), np.empty((len(texts), 2), np.uint64)
    for most in (size, size * table.growth):  # what texts have as a rule, and what they may have at most
        hashes = np.empty(most + len(texts) + LANES, np.uint64)
        if _shingle_kernel(data, offsets, tables, (fold_digits, UNITS.index(unit)), ngram, hashes, bounds, keys):
            break
    return Shingles(hashes[: bounds[-1]], bounds), keys


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


def _with_slack(data: npt.NDArray[np.uint8], offsets: Int64s) -> tuple[npt.NDArray[np.uint8], Int64s]:
    """The same with bytes behind the last text that may be looked at; copied if there are none."""
    first, end = int(offsets[0]), int(offsets[-1])
    if data.size >= end + _SLACK:
        return data, offsets
    copied = np.empty(end - first + _SLACK, np.uint8)
    copied[: end - first] = data[first:end]
    copied.flags.writeable = False
    return copied, offsets - first


def distinct_sorted(shingles: Shingles) -> Shingles:
    """Every text's shingles as a set: ascending, without repeats."""
    hashes, offsets = shingles.hashes.copy(), np.empty_like(shingles.offsets)
    for start, end in itertools.pairwise(shingles.offsets.tolist()):
        hashes[start:end].sort()  # in a tenth of the time of numba's
    _distinct_kernel(hashes, shingles.offsets, offsets)
    return Shingles(hashes[: offsets[-1]], offsets)


@inlined
def _at(index: Any) -> Any:
    """An index known not to be negative, which spares Numba its wrap-around."""
    return np.uint64(index)


@inlined
def mix64(value: Any) -> Any:
    """Spread every bit of a ``uint64`` over all of them: a bijection."""
    value ^= value >> np.uint64(33)
    value *= _MIX_1
    value ^= value >> np.uint64(33)
    value *= _MIX_2
    return value ^ (value >> np.uint64(33))


@compiled
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


@compiled
def _shingle_kernel(
    data: Any, bounds: Any, tables: Any, modes: Any, ngram: int, hashes: Any, offsets: Any, keys: Any
) -> Any:
    """Write the shingles and the key of every text; whether ``hashes`` had room. Tokens stand where shingles come to
    stand."""
    fold_digits, unit = modes
    used = offsets[0] = 0
    for text in range(bounds.size - 1):
        start, end = bounds[text], bounds[text + 1]
        if unit == _CHARACTER or (unit == _AUTO and _has_ideographs(data, start, end)):
            behind = _read_characters(data, start, end, tables, fold_digits, hashes, used)
            if behind - used < ngram:
                behind = _leave_signs_out(hashes, used, behind)
        else:
            behind = _read_words(data, start, end, tables, fold_digits, hashes, used)
        if behind < 0 or used + 1 > hashes.size:
            return False
        first, second = _KEY_1, _KEY_2
        if behind == used:
            hashes[_at(used)] = _raw_hash(data, start, end)
        elif behind - used < ngram:
            hashes[_at(used)] = _join_few(hashes, used, behind)
        else:
            used, first, second = _join_tokens(hashes, used, behind, ngram)
        first, second = _add_to_key(first, second, hashes[_at(used)])
        keys[_at(text), 0], keys[_at(text), 1] = mix64(first), mix64(second)
        used += 1
        offsets[text + 1] = used
    return True


@inlined
def _has_ideographs(data: Any, start: int, end: int) -> Any:
    """Whether one in :data:`IDEOGRAPHS_IN` visible characters begins like Han or Hangul (U+4000 to U+DFFF)."""
    found = seen = np.int64(0)
    lanes = pointer(data)
    for at in range(start, end, LANES):
        found += count_ones(within(lanes, at, 0, 0xE4, 10) & first_lanes(min(end - at, LANES)))
    if found == 0:  # most of English
        return False
    for at in range(start, end, LANES):
        # not U+3000, the space of full-width copies
        spaces = within(lanes, at, 0, 0xE3, 1) & within(lanes, at + 1, 0, 0x80, 1) & within(lanes, at + 2, 0, 0x80, 1)
        visible = (within(lanes, at, 0, 0x21, 0x5F) | within(lanes, at, 0, 0xC0, 0x40)) & ~spaces
        seen += count_ones(visible & first_lanes(min(end - at, LANES)))
    return found * IDEOGRAPHS_IN >= seen


@compiled
def _leave_signs_out(tokens: Any, start: int, behind: int) -> int:
    """Close up the tokens of a short text that are no signs: alone they would tell it from its like."""
    used = start
    for at in range(start, behind):
        if tokens[_at(at)] != _SIGN_TOKEN:
            tokens[_at(used)] = tokens[_at(at)]
            used += 1
    return used if behind >= 0 else behind


@compiled
def _join_few(tokens: Any, start: int, behind: int) -> Any:
    """The shingle of a text that has fewer tokens than a shingle."""
    window = np.uint64(0)
    for at in range(start, behind):
        window = window * GRAM_FACTOR + tokens[_at(at)]
    return mix64(window + np.uint64(behind - start) * SHORT_FACTOR)


@inlined
def _join_tokens(hashes: Any, start: int, behind: int, ngram: int) -> Any:
    """Turn the tokens of a text into its shingles, in place; the place of the last one, and the key's two halves of all
    before it, made here because their long chains of products overlap with the work on shingles."""
    window, factor = np.uint64(0), np.uint64(1)
    for at in range(start, start + ngram):
        window = window * GRAM_FACTOR + hashes[_at(at)]
        factor *= GRAM_FACTOR
    first, second = _KEY_1, _KEY_2
    for at in range(start, behind - ngram):
        leaving, shingle = hashes[_at(at)], mix64(window)
        hashes[_at(at)] = shingle
        first, second = _add_to_key(first, second, shingle)
        window = window * GRAM_FACTOR + (hashes[_at(at + ngram)] - leaving * factor)
    hashes[_at(behind - ngram)] = mix64(window)
    return behind - ngram, first, second


@inlined
def _add_to_key(first: Any, second: Any, shingle: Any) -> Any:
    first = (first ^ shingle) * _KEY_2
    second = (second + shingle) * _KEY_1
    return first ^ (first >> np.uint64(32)), second ^ (second >> np.uint64(29))


@inlined
def _read_characters(data: Any, at: int, end: int, tables: Any, fold_digits: Any, tokens: Any, used: int) -> int:
    """Write a text's letters, digits, marks and signs as tokens; the place behind the last one, or -1 without room."""
    entries, expansions, plain = tables
    before, part, last = np.uint32(0), np.int64(0), np.int64(0)
    while at < end or part < last:
        if part == last and not fold_digits and end - at <= tokens.size - used:
            at, used = _read_plain_characters(data, at, end, plain, tokens, used)
            if at >= end:
                break
        if part < last:
            entry = expansions[_at(part)]
            part += 1
        else:
            entry, at = _next_entry(data, at, end, entries)
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


@inlined
def _read_plain_characters(data: Any, at: int, end: int, plain: Any, tokens: Any, used: int) -> Any:
    """Read runs of characters of three bytes, and of one, each without a branch: up to where neither stands or one that
    is not plain, and the place behind the last token."""
    lanes = pointer(data)
    while at < end:
        size = min(end - at, LANES)
        stop = min(size, trailing_zeros(~within(lanes, at, 0, 0xE0, 16) & _EVERY_THIRD)) // 3 * 3
        if stop:
            for place in range(at, at + stop, 3):
                letters = load_word(lanes, place)
                point = (letters & np.uint64(0x0F)) << np.uint64(12) | letters >> np.uint64(2) & np.uint64(0xFC0)
                token = plain[point | letters >> np.uint64(16) & np.uint64(0x3F)]
                if token == _NOT_PLAIN:
                    return place, used
                tokens[_at(used)] = token
                used += 0 if token == _NO_TOKEN else 1
        else:
            stop = min(size, trailing_zeros(within(lanes, at, 0, 0x80, 0x80)))
            if stop == 0:
                break
            for place in range(at, at + stop):
                token = plain[data[_at(place)]]
                tokens[_at(used)] = token
                used += 0 if token == _NO_TOKEN else 1
        at += stop
    return at, used


@functools.cache
def _plain_tokens() -> Uint64s:
    """``uint64[65536]``: the token of each character when digits are not folded, ``_NO_TOKEN`` for what is read over
    and ``_NOT_PLAIN`` for what is several."""
    tokens = np.empty(1 << 16, np.uint64)
    _plain_kernel(fold_table().entries, tokens)
    return tokens


@compiled
def _plain_kernel(entries: Any, tokens: Any) -> None:
    for point in range(tokens.size):
        entry = entries[point]
        token = _character_token(entry)
        if entry == 0 or entry == _NOTHING_ENTRY:
            token = _NO_TOKEN
        elif entry & np.uint32(EXPANSION_FLAG):
            token = _NOT_PLAIN
        tokens[point] = token


@inlined
def _character_token(entry: Any) -> Any:
    token = mix64((WORD_SEED ^ np.uint64(entry & np.uint32(CODE_POINT_MASK))) * WORD_FACTOR)
    return _SIGN_TOKEN if entry == SIGN else token


@inlined
def _read_words(data: Any, at: int, end: int, tables: Any, fold_digits: Any, tokens: Any, used: int) -> int:
    """As :func:`_read_characters`, with words as tokens."""
    entries, expansions, _ = tables
    word, held, size, in_word = WORD_SEED, np.uint64(0), np.uint64(0), False
    before, part, last = np.uint32(0), np.int64(0), np.int64(0)
    while at < end or part < last:
        if part < last:
            entry = expansions[_at(part)]
            part += 1
        else:
            if not in_word and not fold_digits and data[_at(at)] < 0x80:
                if used + LANES > tokens.size:
                    return -1
                stop, used = _read_plain_words(data, at, end, tokens, used)
                if stop > at:
                    at = stop
                    continue
            entry, at = _next_entry(data, at, end, entries)
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


@inlined
def _read_plain_words(data: Any, at: int, end: int, tokens: Any, used: int) -> Any:
    """Read the words of ASCII that end within 64 bytes: up to where all is read, and the place behind the last token.

    A word that goes on behind them, or with another character, is not read.
    """
    lanes = pointer(data)
    size = min(end - at, LANES)
    foreign = within(lanes, at, 0, 0x80, 0x80)
    size = min(size, trailing_zeros(foreign))
    letters = (within(lanes, at, 0x20, 0x61, 26) | within(lanes, at, 0, 0x30, 10)) & first_lanes(size)
    is_open = at + size < end
    while letters:
        start = trailing_zeros(letters)
        length = trailing_zeros(~(letters >> np.uint64(start)))
        if is_open and start + length >= size:
            return at + start, used
        tokens[_at(used)] = _hash_word(data, at + start, min(length, size - start))
        used += 1
        letters &= letters + (letters & (~letters + np.uint64(1)))  # without its lowest run of ones
    return at + size, used


@inlined
def _hash_word(data: Any, at: int, length: int) -> Any:
    """The token of a word of ASCII letters and digits."""
    word, lanes = WORD_SEED, pointer(data)
    while length >= 8:
        word = _add_letters(word, load_word(lanes, at) | _LOWER)
        at, length = at + 8, length - 8
    if length:
        few = (load_word(lanes, at) | _LOWER) & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))
        word = _add_letters(word, few)
    return mix64(word)


@inlined
def _next_entry(data: Any, at: int, end: int, entries: Any) -> Any:
    """The entry of the character at ``at``, and the place behind it."""
    first, point, size = np.int64(data[_at(at)]), np.int64(data[_at(at)]), 1
    if 0xE0 <= first < 0xF0 and at + 3 <= end:
        point, size = (first & 0x0F) << 12 | (data[_at(at + 1)] & 0x3F) << 6 | data[_at(at + 2)] & 0x3F, 3
    elif first >= 0x80:
        decoded = _decode(data, at, end)
        point, size = decoded & CODE_POINT_MASK, decoded >> 21
    return entries[_at(point)], at + size


@inlined
def _add_letters(word: Any, letters: Any) -> Any:
    """Eight letters more, in one number; or fewer, the last ones."""
    word = (word ^ letters) * WORD_FACTOR
    return word ^ (word >> np.uint64(32))


@inlined
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


@inlined
def _word_token(word: Any, held: Any, size: Any) -> Any:
    return mix64(_add_letters(word, held) if size else word)


@compiled
def _raw_hash(data: Any, start: int, end: int) -> Any:
    value = RAW_SEED
    for at in range(start, end):
        value = (value ^ np.uint64(data[at])) * WORD_FACTOR
    return mix64(value)


@compiled
def _distinct_kernel(hashes: Any, offsets: Any, starts: Any) -> None:
    """Close up hashes that ascend within each text, in place, without repeats."""
    used = starts[0] = 0
    for text in range(offsets.size - 1):
        before = ~hashes[offsets[text]]
        for at in range(offsets[text], offsets[text + 1]):
            value = hashes[_at(at)]
            used += value != before
            hashes[_at(used - 1)] = value
            before = value
        starts[text + 1] = used
