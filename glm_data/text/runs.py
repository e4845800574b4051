"""Runs of characters that the walk over a text reads at once: plain words and blanks, Han characters, letters."""

from __future__ import annotations

from typing import Any

import numpy as np

from glm_data.kernels import inlined
from glm_data.text import characters as ch
from glm_data.text import columns as co
from glm_data.text.characters import FIRST_OF_HAN, LAST_OF_HAN, decode_at
from glm_data.text.lines import DOTTED, ENDS, LONGEST, NEWLINE, WORD_START, WORDS
from glm_data.text.machine import first_bytes, leading_letters, load_word, store_wide
from glm_data.text.repetition import CHARACTERS, GRAM_CHARACTERS, TOKENS
from glm_data.text.sets import BASE, hash_bytes, hash_few_bytes, spread

_SMALL, _CAPITALS = np.uint64((1 << 56) - 1), np.uint64(0x20202020202020)
"""The bytes of a function word in its slot; what makes seven letters small."""


@inlined
def is_ascii_letter(byte: Any) -> bool:
    """Whether a byte is an ASCII letter."""
    return bool(0x61 <= byte | 0x20 <= 0x7A)


@inlined
def read_runs(
    data: Any, end: int, table: Any, stops: Any, han_stops: Any, own: Any, points: Any, solids: Any, tokens: Any,
    lengths: Any, state: Any, position: int, characters: int, solid: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Count the plain words or Han characters that stand from ``position`` on, outside a word; returns where they end,
    in bytes, characters and solid ones."""
    byte = data[position]
    if is_ascii_letter(byte):
        return _read_plain_words(
            data, end, stops, own, points, solids, tokens, lengths, state, position, characters, solid
        )
    if FIRST_OF_HAN <= byte <= LAST_OF_HAN:
        return _read_han(
            data, position, end, table, han_stops, own, points, solids, tokens, lengths, state, characters, solid
        )
    return position, characters, solid


@inlined
def _read_plain_words(
    data: Any, end: int, stops: Any, own: Any, points: Any, solids: Any, tokens: Any, lengths: Any, state: Any,
    position: int, characters: int, solid: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Count words of up to fifteen ASCII letters that end for certain, which most of English is made of, from the
    first letter of one on: all that is done with a word and a blank behind it at once. Returns where they end."""
    before, words, blanks, stored, text_end = solid, 0, 0, state[co.STORED], state[co.TEXT_END]
    longest, word_start = state[LONGEST], state[WORD_START]
    while position + 8 <= end:
        word = load_word(data, position)
        letters = leading_letters(word)
        if letters == 8 and position + 16 <= end:
            rest = load_word(data, position + 8)
            letters += leading_letters(rest)
            if letters == 16 or not ends_word(data[position + letters]):
                break
            _write(rest, points, CHARACTERS, characters + 8)
            _write(rest, solids, GRAM_CHARACTERS, solid + 8)
            key = hash_bytes(data, position, position + letters, end)
        elif letters == 8 or letters == 0 or not ends_word(data[position + letters]):
            break
        else:
            packed = word & (~np.uint64(0) >> np.uint64(64 - 8 * letters))
            count_function_word(packed, letters, stops, own, state)
            key = hash_few_bytes(packed, letters)
        _write(word, points, CHARACTERS, characters)
        _write(word, solids, GRAM_CHARACTERS, solid)
        if stored < TOKENS:
            tokens[stored], lengths[stored] = key, letters
            stored, text_end = stored + 1, characters + letters
        position, characters, solid, words = position + letters, characters + letters, solid + letters, words + 1
        if data[position] != 0x20:
            break
        longest = max(longest, characters - word_start)
        position, characters, blanks = position + 1, characters + 1, blanks + 1
        word_start = characters
    if words:
        letters, at_blank = solid - before, blanks == words
        own[co.WORDS] += words
        own[ch.LATIN] += letters
        own[ch.SPACE] += blanks
        own[co.WORD_TOKENS] += words
        own[co.WORD_CHARACTERS] += letters
        own[co.LETTER_TOKENS] += words
        state[WORDS] += blanks
        state[LONGEST], state[WORD_START], state[co.STORED], state[co.TEXT_END] = longest, word_start, stored, text_end
        state[co.SOLID_BEFORE] = data[position - 1 - at_blank]
        state[co.BEFORE], state[co.KIND] = data[position - 1], ch.SPACE if at_blank else ch.LATIN
        state[ENDS] = 0
        state[DOTTED] *= blanks == 0
    return position, characters, solid


@inlined
def ends_word(byte: Any) -> bool:
    """Whether a word ends before an ASCII character that is no letter, whatever follows: not before a digit, a dot, an
    underscore or a control character."""
    return bool(0x20 <= byte <= 0x2D or byte == 0x2F or 0x3A <= byte <= 0x5E or byte == NEWLINE)


@inlined
def _read_han(
    data: Any, start: int, end: int, table: Any, han_stops: Any, own: Any, points: Any, solids: Any, tokens: Any,
    lengths: Any, state: Any, characters: int, solid: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Count the Han characters from U+4000 to U+9FFF that stand from ``start`` on; returns where they end."""
    position, found, first = start, state[co.FOUND], characters
    simplified = traditional = misread = function = 0
    stored, text_end = state[co.STORED], state[co.TEXT_END]
    point: Any = np.uint32(0)
    while position < end and FIRST_OF_HAN <= data[position] <= LAST_OF_HAN:
        following, _ = decode_at(data, position)
        entry = table[following]
        if entry & ch.CLASS_BITS != ch.HAN:
            break
        point = following
        simplified += entry & ch.SIMPLIFIED != 0
        traditional += entry & ch.TRADITIONAL != 0
        misread += entry & ch.MISREAD != 0
        function += entry & ch.FUNCTION != 0
        found |= np.int64(1) << np.int64(han_stops[point])
        if stored < TOKENS:
            tokens[stored], lengths[stored] = spread(np.uint64(point) + BASE), 1
            stored, text_end = stored + 1, characters + 1
        keep(points, CHARACTERS, characters, point)
        keep(solids, GRAM_CHARACTERS, solid, point)
        position, characters, solid = position + 3, characters + 1, solid + 1
    if position > start:
        own[ch.HAN] += characters - first
        own[co.SIMPLIFIED] += simplified
        own[co.TRADITIONAL] += traditional
        own[co.MISREAD] += misread
        own[co.FUNCTION] += function
        state[co.FOUND], state[co.STORED], state[co.TEXT_END] = found, stored, text_end
        state[co.BEFORE], state[co.SOLID_BEFORE], state[co.KIND], state[ENDS] = point, point, ch.HAN, 0
    return position, characters, solid


@inlined
def read_letters(
    data: Any, limit: int, start: int, end: int, points: Any, characters: int, solids: Any, solid: int,
) -> int:  # fmt: skip
    """How many ASCII letters stand from ``start`` on; kept in ``points`` and ``solids``."""
    position = start
    while position < end:
        word = first_bytes(data, position, min(end - position, 8), limit)
        letters = leading_letters(word)
        _write(word, points, CHARACTERS, characters + position - start)
        _write(word, solids, GRAM_CHARACTERS, solid + position - start)
        position += letters
        if letters < 8:
            break
    return position - start


@inlined
def _write(word: Any, places: Any, room: int, at: int) -> None:
    """Put eight bytes into places, of which there are ``SLACK`` more than ``room``."""
    if at < room:
        store_wide(places, at, word)


@inlined
def keep(places: Any, room: int, used: int, point: Any) -> int:
    """Keep a code point if there is room; counts it in any case."""
    if used < room:
        places[used] = point
    return 1


@inlined
def count_function_word(packed: Any, size: int, stops: Any, own: Any, state: Any) -> None:
    """Count a word of up to seven bytes, ``packed``, if it is a function word."""
    lower = packed | _CAPITALS >> np.uint64(8 * (7 - size))
    stop = stops[1 + np.int64((lower * stops[0]) >> np.uint64(53))]
    number = np.int64(stop >> np.uint64(56)) if stop & _SMALL == lower else 0
    own[co.FUNCTION] += number != 0
    state[co.FOUND] |= np.int64(packed == lower) << number
