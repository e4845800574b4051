"""The compiled walk over a document's UTF-8 that :mod:`glm_data.text.statistics` counts with.

Plain words and Han characters are read in runs (:mod:`glm_data.text.runs`), and the rest takes the long way. Words and
lines are contiguous bytes, hashed where they end. What is called of every word is inlined and given pointers: counting
the references of an array costs more than counting a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text import characters as ch
from glm_data.text import columns as co
from glm_data.text.characters import decode_at, entry_of
from glm_data.text.lines import ENDS, NEWLINE, end_line, end_paragraph, end_word_of_c4, mark_line, start_text
from glm_data.text.machine import first_bytes, further, pointer
from glm_data.text.marks import Phrases, find_first_phrase, find_phrases
from glm_data.text.repetition import CHARACTERS, GRAM_CHARACTERS, TOKENS, Scratch
from glm_data.text.runs import count_function_word, is_ascii_letter, keep, read_letters, read_runs
from glm_data.text.sets import BASE, hash_bytes, spread


@compiled
def count_text(
    data: Any, limit: int, start: int, end: int, table: Any, stops: Any, han_stops: Any, phrases: Any, own: Any,
    scratch: Scratch,
) -> tuple[int, int]:  # fmt: skip
    """Fill ``own`` with the counts of characters, tokens, lines and marks; put first characters, solid characters and
    tokens into ``scratch``. Returns how many of the latter two are there. All are pointers, ``data`` to ``limit``
    bytes, ``phrases`` and ``scratch`` several."""
    mask = start_text(data, limit, start, end, scratch.table, scratch.table_slots, scratch.state)
    return _walk(
        data, limit, start, end, table, stops, han_stops, phrases, own, further(own, co.OF_LINES),
        further(own, co.OF_MARKS), scratch.characters, scratch.solid, scratch.tokens, scratch.lengths, scratch.state,
        scratch.table, mask,
    )  # fmt: skip


@inlined
def point_at_phrases(phrases: Phrases) -> Any:
    """Pointers to the arrays of ``phrases``."""
    return (
        pointer(phrases.near), pointer(phrases.heads), pointer(phrases.following), pointer(phrases.starts),
        pointer(phrases.kinds), pointer(phrases.folded),
    )  # fmt: skip


@compiled
def _walk(
    data: Any, limit: int, start: int, end: int, table: Any, stops: Any, han_stops: Any, phrases: Any, own: Any,
    line_counts: Any, mark_counts: Any, points: Any, solids: Any, tokens: Any, lengths: Any, state: Any, said: Any,
    mask: int,
) -> tuple[int, int]:  # fmt: skip
    """:func:`count_text`, of pointers."""
    state[co.KIND], state[co.LINE], state[co.PHRASE] = ch.SPACE, start, find_first_phrase(data, start, end, phrases)
    position, token, characters, solid = start, -1, 0, 0
    while position <= end:  # a newline stands at the end
        if token < 0 and position < end:
            first = position
            position, characters, solid = read_runs(
                data, end, table, stops, han_stops, own, points, solids, tokens, lengths, state, first, characters,
                solid,
            )  # fmt: skip
            if position > first:
                continue
        byte = data[position] if position < end else np.uint8(NEWLINE)
        if is_ascii_letter(byte):
            if token < 0:
                token = _begin_word(state, position, characters, 1)
            letters = read_letters(data, limit, position, end, points, characters, solids, solid)
            position, characters, solid = position + letters, characters + letters, solid + letters
            _end_letters(state, own, data[position - 1], letters)
            continue
        point, size = decode_at(data, position) if byte >= 0x80 else (np.uint32(byte), 1)
        entry = entry_of(table, point)
        kind = entry & ch.CLASS_BITS
        following = data[position + size] if position + size < end else np.uint8(0x20)
        joins = token >= 0 and point < 0x60 and _joins(point, state[co.BEFORE], following)
        goes_on = joins or _is_in_word(kind)
        if token >= 0 and not goes_on and kind != ch.CONTROL:
            _end_word(data, limit, token, position, characters, table, stops, own, tokens, lengths, state)
            token = -1
        if kind == ch.SPACE and byte == NEWLINE:
            _count_line(
                data, limit, position, end, characters, table, phrases, line_counts, mark_counts, state, said, mask
            )
            if position == end:
                break
            line_counts[0] += 1
        if kind == ch.HAN:
            _count_han(own, state, point, entry, han_stops, tokens, lengths, characters)
            solid += keep(solids, GRAM_CHARACTERS, solid, point)
        elif kind == ch.SPACE:
            _count_space(own, state, byte, characters)
        else:
            begins = goes_on or (point == 0x27 and _is_in_word(state[co.KIND]) and is_ascii_letter(following))
            if begins and token < 0:
                token = _begin_word(state, position, characters, 0)
            solid += _count_other(
                own, line_counts, state, point, entry, begins, joins, tokens, lengths, characters, solids, solid
            )
        keep(points, CHARACTERS, characters, point)
        state[co.BEFORE], state[co.KIND] = point, kind
        position, characters = position + size, characters + 1
    end_paragraph(line_counts, state, said, mask)
    return min(solid, GRAM_CHARACTERS), _finish(own, state, characters)


@inlined
def _count_line(
    data: Any, limit: int, position: int, end: int, characters: int, table: Any, phrases: Any, line_counts: Any,
    mark_counts: Any, state: Any, said: Any, mask: int,
) -> None:  # fmt: skip
    """Count the line that ends before the byte at ``position``."""
    line, state[co.LINE] = state[co.LINE], position + 1
    seen = 0
    if state[co.PHRASE] < position:
        seen, state[co.PHRASE] = find_phrases(data, state[co.PHRASE], line, position, end, phrases, mark_counts)
    end_word_of_c4(state, characters)
    length, state[co.LINE_FIRST] = characters - state[co.LINE_FIRST], characters + 1
    end_line(data, limit, line, position, table, line_counts, mark_counts, state, said, mask, length, seen)


@inlined
def _is_in_word(kind: int) -> bool:
    return bool(kind == ch.LATIN or kind == ch.LETTER or kind == ch.DIGIT or kind == ch.HANGUL)


@inlined
def _joins(point: Any, before: Any, following: Any) -> bool:
    """Whether a mark inside a run of letters and digits is part of it."""
    is_digit = 0x30 <= following <= 0x39
    if point == 0x5F:  # _
        return True
    if point == 0x2E:  # .
        return bool(is_digit or is_ascii_letter(following))
    return bool(point == 0x2C and is_digit and 0x30 <= before <= 0x39)  # ,


@inlined
def _begin_word(state: Any, position: int, characters: int, has_letter: int) -> int:
    state[co.FIRST], state[co.CONTROLS], state[co.HAS_LETTER] = characters, 0, has_letter
    return position


@inlined
def _end_letters(state: Any, own: Any, last: Any, letters: int) -> None:
    own[co.WORDS] += state[co.KIND] != ch.LATIN
    own[ch.LATIN] += letters
    state[co.BEFORE], state[co.SOLID_BEFORE], state[co.KIND], state[co.HAS_LETTER], state[ENDS] = (
        last,
        last,
        ch.LATIN,
        1,
        0,
    )


@inlined
def _end_word(
    data: Any, limit: int, start: int, end: int, characters: int, table: Any, stops: Any, own: Any, tokens: Any,
    lengths: Any, state: Any,
) -> None:  # fmt: skip
    """Count the word from byte ``start`` to ``end``, and keep it."""
    if state[co.CONTROLS]:
        rest = _without_controls(data, start, end, table)
        _count_word(pointer(rest), rest.shape[0], 0, rest.shape[0], characters, stops, own, tokens, lengths, state)
    else:
        _count_word(data, limit, start, end, characters, stops, own, tokens, lengths, state)


@inlined
def _count_word(
    data: Any, limit: int, start: int, end: int, characters: int, stops: Any, own: Any, tokens: Any, lengths: Any,
    state: Any,
) -> None:  # fmt: skip
    length = characters - state[co.FIRST] - state[co.CONTROLS]
    if end - start < 8:
        count_function_word(first_bytes(data, start, end - start, limit), end - start, stops, own, state)
    own[co.WORD_TOKENS] += 1
    own[co.WORD_CHARACTERS] += length
    own[co.LETTER_TOKENS] += state[co.HAS_LETTER]
    if state[co.STORED] < TOKENS:
        _store(tokens, lengths, state, hash_bytes(data, start, end, limit), length, characters)


@compiled
def _without_controls(data: Any, start: int, end: int, table: Any) -> NDArray[np.uint8]:
    """The bytes of a word without control characters in it or after it."""
    rest = np.zeros(end - start, np.uint8)
    used, position = 0, start
    while position < end:
        point, size = decode_at(data, position)
        if entry_of(table, point) & ch.CLASS_BITS != ch.CONTROL:
            for place in range(position, position + size):
                rest[used] = data[place]
                used += 1
        position += size
    return rest[:used]


@inlined
def _store(
    tokens: Any, lengths: Any, state: Any, key: Any, length: int,
    characters: int,
) -> None:  # fmt: skip
    """Keep a token if there is room."""
    stored = state[co.STORED]
    if stored < TOKENS:
        tokens[stored], lengths[stored] = key, length
        state[co.STORED], state[co.TEXT_END] = stored + 1, characters


@inlined
def _count_han(
    own: Any, state: Any, point: Any, entry: int, han_stops: Any,
    tokens: Any, lengths: Any, characters: int,
) -> None:  # fmt: skip
    own[ch.HAN] += 1
    own[co.SIMPLIFIED] += entry & ch.SIMPLIFIED != 0
    own[co.TRADITIONAL] += entry & ch.TRADITIONAL != 0
    own[co.MISREAD] += entry & ch.MISREAD != 0
    own[co.FUNCTION] += entry & ch.FUNCTION != 0
    if point < 0x10000:
        state[co.FOUND] |= np.int64(1) << np.int64(han_stops[point])
    _store(tokens, lengths, state, spread(np.uint64(point) + BASE), 1, characters + 1)
    state[co.SOLID_BEFORE], state[ENDS] = point, 0


@inlined
def _count_space(own: Any, state: Any, byte: Any, characters: int) -> None:
    own[ch.SPACE] += 1
    if byte == 0x20 or 0x09 <= byte <= 0x0D:
        end_word_of_c4(state, characters)
    else:
        state[ENDS] = 0


@inlined
def _count_other(
    own: Any, line_counts: Any, state: Any, point: Any, entry: int,
    in_word: Any, joins: Any, tokens: Any, lengths: Any, characters: int, solids: Any, solid: int,
) -> int:  # fmt: skip
    """Count a character that is no space, Han character or ASCII letter; whether it is solid."""
    kind = entry & ch.CLASS_BITS
    repeats = is_mark(kind) and point == state[co.BEFORE]
    own[co.RULER if repeats else kind] += 1
    own[co.HASHES] += point == 0x23
    own[co.WORDS] += kind == ch.LATIN and state[co.KIND] != ch.LATIN
    mark_line(line_counts, state, point, entry, repeats, characters)
    if in_word:
        state[co.HAS_LETTER] |= kind != ch.DIGIT and not joins and point != 0x27
    elif kind == ch.CONTROL:
        state[co.CONTROLS] += 1
    elif repeats and state[co.STORED] > 0:
        _lengthen(tokens, lengths, state, characters)
    else:
        own[co.ALL_TOKENS] += kind != ch.KANA
        _store(tokens, lengths, state, spread(np.uint64(point) + BASE), 1, characters + 1)
    if is_mark(kind) and point == state[co.SOLID_BEFORE]:
        return 0
    state[co.SOLID_BEFORE] = point
    return keep(solids, GRAM_CHARACTERS, solid, point)


@inlined
def is_mark(kind: int) -> bool:
    """Whether a run of characters of this class is a ruler."""
    return bool(kind == ch.PUNCTUATION or kind == ch.SYMBOL)


@inlined
def _lengthen(tokens: Any, lengths: Any, state: Any, characters: int) -> None:
    """Make the last token, a mark, one longer if it stands right before."""
    if state[co.TEXT_END] == characters:
        last = state[co.STORED] - 1
        tokens[last] = spread(tokens[last] + BASE)
        lengths[last] += 1
        state[co.TEXT_END] += 1


@inlined
def _finish(own: Any, state: Any, characters: int) -> int:
    """Fill in what follows of the other counts; how many tokens are kept."""
    alone = own[ch.HAN] + own[ch.KANA]
    own[co.ALL_TOKENS] += own[co.WORD_TOKENS] + alone
    own[co.HAN_TOKENS] = alone
    own[co.WORD_TOKENS] += alone
    own[co.WORD_CHARACTERS] += alone
    own[co.LETTER_TOKENS] += alone
    own[co.ENGLISH] = _bits(state[co.FOUND] >> 1 & (1 << co.GOPHER - 1) - 1)
    own[co.CHINESE] = _bits(state[co.FOUND] >> co.FIRST_CHINESE)
    own[co.TEXT] = state[co.TEXT_END] if state[co.STORED] == TOKENS else characters
    return state[co.STORED]


@inlined
def _bits(value: Any) -> int:
    found = 0
    while value:
        found += value & 1
        value >>= 1
    return found
