"""The compiled walk over a document's UTF-8 that :mod:`glm_data.text.statistics` counts with.

Runs of ASCII letters are read eight bytes at a time; Han characters and white space have branches of their own, and the
rest takes the long way. Words and lines are contiguous bytes, hashed where they end. What is called of every
word is inlined and given pointers: counting the references of an array costs more than counting a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled, inlined
from glm_data.text import characters as ch
from glm_data.text.characters import FIRST_OF_HAN, LAST_OF_HAN, decode_at, entry_of
from glm_data.text.lines import (
    DOTTED,
    ENDS,
    FREE,
    LINE_COUNTS,
    LONGEST,
    NEWLINE,
    WORD_START,
    WORDS,
    end_line,
    end_paragraph,
    end_word_of_c4,
    mark_line,
    start_text,
)  # fmt: skip
from glm_data.text.machine import first_bytes, further, leading_letters, load_word, pointer, store_wide
from glm_data.text.marks import Phrases, find_first_phrase, find_phrases
from glm_data.text.repetition import CHARACTERS, GRAM_CHARACTERS, TOKENS, Scratch
from glm_data.text.sets import BASE, hash_bytes, hash_few_bytes, spread

CLASSES = (
    "han",
    "kana",
    "hangul",
    "latin",
    "letter",
    "digit",
    "space",
    "punctuation",
    "symbol",
    "garbled",
    "control",
    "ruler",
)
CHARACTER_COUNTS = (*CLASSES, "simplified", "traditional", "misread", "words", "hashes", "function_words")
TOKEN_COUNTS = (
    "tokens", "han_tokens", "word_tokens", "word_token_characters", "letter_tokens", "english_stops", "chinese_stops",
    "token_text",
)  # fmt: skip
"""A token is a Han or kana character, a run of one mark, or a run of letters and digits: with ``_`` and ``.`` in it,
``,`` between digits, and begun anew by an apostrophe before a letter (``don't`` is ``don`` and ``'t``)."""

_RULER = CLASSES.index("ruler")
_SIMPLIFIED, _TRADITIONAL, _MISREAD, _WORDS, _HASHES, _FUNCTION = range(len(CLASSES), len(CHARACTER_COUNTS))
_OF_TOKENS = len(CHARACTER_COUNTS)
ALL_TOKENS, HAN_TOKENS, _WORD_TOKENS, _WORD_CHARACTERS, _LETTER_TOKENS, _ENGLISH, _CHINESE, _TEXT = range(
    _OF_TOKENS, _OF_TOKENS + len(TOKEN_COUNTS)
)
OF_LINES = _OF_TOKENS + len(TOKEN_COUNTS)
OF_MARKS = OF_LINES + len(LINE_COUNTS)
"""The columns where each kind of counts begins."""

_BEFORE, _KIND, _SOLID_BEFORE, _STORED, _TEXT_END, _FIRST, _CONTROLS, _HAS_LETTER = range(FREE, FREE + 8)
_FOUND, _LINE, _LINE_FIRST, _PHRASE = range(FREE + 8, FREE + 12)
"""Places of the state: the character before and its class, the solid one before; tokens kept, and characters up to the
last of them; of the word so far its first character, the controls in it and whether it has a letter; the function words
found, a bit each; the line's first byte and character; where the next phrase may end."""

STOP_SLOTS = 1 << 11
"""Slots of the table of function words, each of which has one to itself; its highest byte is the number."""
GOPHER, _SMALL = 9, np.uint64((1 << 56) - 1)
"""Function words numbered below ``GOPHER`` are those of its rules; ``GOPHER`` are all others."""
FIRST_CHINESE = 16
"""The number of the first of the stop words for Chinese."""
_CAPITALS = np.uint64(0x20202020202020)


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
        data, limit, start, end, table, stops, han_stops, phrases, own, further(own, OF_LINES), further(own, OF_MARKS),
        scratch.characters, scratch.solid, scratch.tokens, scratch.lengths, scratch.state, scratch.table, mask,
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
    state[_KIND], state[_LINE], state[_PHRASE] = ch.SPACE, start, find_first_phrase(data, start, end, phrases)
    position, token, characters, solid = start, -1, 0, 0
    while position <= end:  # a newline stands at the end
        byte = data[position] if position < end else np.uint8(NEWLINE)
        if is_ascii_letter(byte):
            if token < 0:
                position, characters, solid = _read_plain_words(
                    data, end, stops, own, points, solids, tokens, lengths, state, position, characters,
                    solid,
                )  # fmt: skip
                if position == end or not is_ascii_letter(data[position]):
                    continue
            if token < 0:
                token = _begin_word(state, position, characters, 1)
            letters = _read_letters(data, limit, position, end, points, characters, solids, solid)
            position, characters, solid = position + letters, characters + letters, solid + letters
            _end_letters(state, own, data[position - 1], letters)
            continue
        if token < 0 and FIRST_OF_HAN <= byte <= LAST_OF_HAN:
            behind = _read_han(data, position, end, table, han_stops, own, points, solids, tokens, lengths, state,
                               characters, solid)  # fmt: skip
            if behind > position:
                read = (behind - position) // 3
                position, characters, solid = behind, characters + read, solid + read
                continue
        point, size = decode_at(data, position) if byte >= 0x80 else (np.uint32(byte), 1)
        entry = entry_of(table, point)
        kind = entry & ch.CLASS_BITS
        following = data[position + size] if position + size < end else np.uint8(0x20)
        joins = token >= 0 and point < 0x60 and _joins(point, state[_BEFORE], following)
        goes_on = joins or _is_in_word(kind)
        if token >= 0 and not goes_on and kind != ch.CONTROL:
            _end_word(data, limit, token, position, characters, table, stops, own, tokens, lengths, state)
            token = -1
        if kind == ch.SPACE and byte == NEWLINE:
            line, state[_LINE], seen = state[_LINE], position + 1, 0
            if state[_PHRASE] < position:
                seen, state[_PHRASE] = find_phrases(data, state[_PHRASE], line, position, end, phrases, mark_counts)
            end_word_of_c4(state, characters)
            length, state[_LINE_FIRST] = characters - state[_LINE_FIRST], characters + 1
            end_line(data, limit, line, position, table, line_counts, mark_counts, state, said, mask, length, seen)
            if position == end:
                break
            line_counts[0] += 1
        if kind == ch.HAN:
            _count_han(own, state, point, entry, han_stops, tokens, lengths, characters)
            solid += _keep(solids, GRAM_CHARACTERS, solid, point)
        elif kind == ch.SPACE:
            _count_space(own, state, byte, characters)
        else:
            begins = goes_on or (point == 0x27 and _is_in_word(state[_KIND]) and is_ascii_letter(following))
            if begins and token < 0:
                token = _begin_word(state, position, characters, 0)
            solid += _count_other(
                own, line_counts, state, point, entry, begins, joins, tokens, lengths, characters, solids, solid
            )
        _keep(points, CHARACTERS, characters, point)
        state[_BEFORE], state[_KIND] = point, kind
        position, characters = position + size, characters + 1
    end_paragraph(line_counts, state, said, mask)
    return min(solid, GRAM_CHARACTERS), _finish(own, state, characters)


@inlined
def is_ascii_letter(byte: Any) -> bool:
    """Whether a byte is an ASCII letter."""
    return bool(0x61 <= byte | 0x20 <= 0x7A)


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
def _keep(places: Any, room: int, used: int, point: Any) -> int:
    """Keep a code point if there is room; counts it in any case."""
    if used < room:
        places[used] = point
    return 1


@inlined
def _begin_word(state: Any, position: int, characters: int, has_letter: int) -> int:
    state[_FIRST], state[_CONTROLS], state[_HAS_LETTER] = characters, 0, has_letter
    return position


@inlined
def _read_plain_words(
    data: Any, end: int, stops: Any, own: Any, points: Any, solids: Any, tokens: Any, lengths: Any, state: Any,
    position: int, characters: int, solid: int,
) -> tuple[int, int, int]:  # fmt: skip
    """Count words of up to fifteen ASCII letters that end for certain, which most of English is made of, from the
    first letter of one on: all that is done with a word and a blank behind it at once. Returns where they end."""
    before, words, blanks, stored, text_end = solid, 0, 0, state[_STORED], state[_TEXT_END]
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
            _count_function_word(packed, letters, stops, own, state)
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
        own[_WORDS] += words
        own[ch.LATIN] += letters
        own[ch.SPACE] += blanks
        own[_WORD_TOKENS] += words
        own[_WORD_CHARACTERS] += letters
        own[_LETTER_TOKENS] += words
        state[WORDS] += blanks
        state[LONGEST], state[WORD_START], state[_STORED], state[_TEXT_END] = longest, word_start, stored, text_end
        state[_SOLID_BEFORE] = data[position - 1 - at_blank]
        state[_BEFORE], state[_KIND] = data[position - 1], ch.SPACE if at_blank else ch.LATIN
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
) -> int:  # fmt: skip
    """Count the Han characters from U+4000 to U+9FFF that stand from ``start`` on; returns where they end."""
    position, found, first = start, state[_FOUND], characters
    simplified = traditional = misread = function = 0
    stored, text_end = state[_STORED], state[_TEXT_END]
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
        _keep(points, CHARACTERS, characters, point)
        _keep(solids, GRAM_CHARACTERS, solid, point)
        position, characters, solid = position + 3, characters + 1, solid + 1
    if position > start:
        own[ch.HAN] += characters - first
        own[_SIMPLIFIED] += simplified
        own[_TRADITIONAL] += traditional
        own[_MISREAD] += misread
        own[_FUNCTION] += function
        state[_FOUND], state[_STORED], state[_TEXT_END] = found, stored, text_end
        state[_BEFORE], state[_SOLID_BEFORE], state[_KIND], state[ENDS] = point, point, ch.HAN, 0
    return position


@inlined
def _read_letters(
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
def _end_letters(state: Any, own: Any, last: Any, letters: int) -> None:
    own[_WORDS] += state[_KIND] != ch.LATIN
    own[ch.LATIN] += letters
    state[_BEFORE], state[_SOLID_BEFORE], state[_KIND], state[_HAS_LETTER], state[ENDS] = last, last, ch.LATIN, 1, 0


@inlined
def _end_word(
    data: Any, limit: int, start: int, end: int, characters: int, table: Any, stops: Any, own: Any, tokens: Any,
    lengths: Any, state: Any,
) -> None:  # fmt: skip
    """Count the word from byte ``start`` to ``end``, and keep it."""
    if state[_CONTROLS]:
        rest = _without_controls(data, start, end, table)
        _count_word(pointer(rest), rest.shape[0], 0, rest.shape[0], characters, stops, own, tokens, lengths, state)
    else:
        _count_word(data, limit, start, end, characters, stops, own, tokens, lengths, state)


@inlined
def _count_word(
    data: Any, limit: int, start: int, end: int, characters: int, stops: Any, own: Any, tokens: Any, lengths: Any,
    state: Any,
) -> None:  # fmt: skip
    length = characters - state[_FIRST] - state[_CONTROLS]
    if end - start < 8:
        _count_function_word(first_bytes(data, start, end - start, limit), end - start, stops, own, state)
    own[_WORD_TOKENS] += 1
    own[_WORD_CHARACTERS] += length
    own[_LETTER_TOKENS] += state[_HAS_LETTER]
    if state[_STORED] < TOKENS:
        _store(tokens, lengths, state, hash_bytes(data, start, end, limit), length, characters)


@inlined
def _count_function_word(packed: Any, size: int, stops: Any, own: Any, state: Any) -> None:
    """Count a word of up to seven bytes, ``packed``, if it is a function word."""
    lower = packed | _CAPITALS >> np.uint64(8 * (7 - size))
    stop = stops[1 + np.int64((lower * stops[0]) >> np.uint64(53))]
    number = np.int64(stop >> np.uint64(56)) if stop & _SMALL == lower else 0
    own[_FUNCTION] += number != 0
    state[_FOUND] |= np.int64(packed == lower) << number


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
    stored = state[_STORED]
    if stored < TOKENS:
        tokens[stored], lengths[stored] = key, length
        state[_STORED], state[_TEXT_END] = stored + 1, characters


@inlined
def _count_han(
    own: Any, state: Any, point: Any, entry: int, han_stops: Any,
    tokens: Any, lengths: Any, characters: int,
) -> None:  # fmt: skip
    own[ch.HAN] += 1
    own[_SIMPLIFIED] += entry & ch.SIMPLIFIED != 0
    own[_TRADITIONAL] += entry & ch.TRADITIONAL != 0
    own[_MISREAD] += entry & ch.MISREAD != 0
    own[_FUNCTION] += entry & ch.FUNCTION != 0
    if point < 0x10000:
        state[_FOUND] |= np.int64(1) << np.int64(han_stops[point])
    _store(tokens, lengths, state, spread(np.uint64(point) + BASE), 1, characters + 1)
    state[_SOLID_BEFORE], state[ENDS] = point, 0


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
    repeats = is_mark(kind) and point == state[_BEFORE]
    own[_RULER if repeats else kind] += 1
    own[_HASHES] += point == 0x23
    own[_WORDS] += kind == ch.LATIN and state[_KIND] != ch.LATIN
    mark_line(line_counts, state, point, entry, repeats, characters)
    if in_word:
        state[_HAS_LETTER] |= kind != ch.DIGIT and not joins and point != 0x27
    elif kind == ch.CONTROL:
        state[_CONTROLS] += 1
    elif repeats and state[_STORED] > 0:
        _lengthen(tokens, lengths, state, characters)
    else:
        own[ALL_TOKENS] += kind != ch.KANA
        _store(tokens, lengths, state, spread(np.uint64(point) + BASE), 1, characters + 1)
    if is_mark(kind) and point == state[_SOLID_BEFORE]:
        return 0
    state[_SOLID_BEFORE] = point
    return _keep(solids, GRAM_CHARACTERS, solid, point)


@inlined
def is_mark(kind: int) -> bool:
    """Whether a run of characters of this class is a ruler."""
    return bool(kind == ch.PUNCTUATION or kind == ch.SYMBOL)


@inlined
def _lengthen(tokens: Any, lengths: Any, state: Any, characters: int) -> None:
    """Make the last token, a mark, one longer if it stands right before."""
    if state[_TEXT_END] == characters:
        last = state[_STORED] - 1
        tokens[last] = spread(tokens[last] + BASE)
        lengths[last] += 1
        state[_TEXT_END] += 1


@inlined
def _finish(own: Any, state: Any, characters: int) -> int:
    """Fill in what follows of the other counts; how many tokens are kept."""
    alone = own[ch.HAN] + own[ch.KANA]
    own[ALL_TOKENS] += own[_WORD_TOKENS] + alone
    own[HAN_TOKENS] = alone
    own[_WORD_TOKENS] += alone
    own[_WORD_CHARACTERS] += alone
    own[_LETTER_TOKENS] += alone
    own[_ENGLISH] = _bits(state[_FOUND] >> 1 & (1 << GOPHER - 1) - 1)
    own[_CHINESE] = _bits(state[_FOUND] >> FIRST_CHINESE)
    own[_TEXT] = state[_TEXT_END] if state[_STORED] == TOKENS else characters
    return state[_STORED]


@inlined
def _bits(value: Any) -> int:
    found = 0
    while value:
        found += value & 1
        value >>= 1
    return found
