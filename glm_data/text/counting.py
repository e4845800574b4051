"""The compiled walks over a document's UTF-8 that :mod:`glm_data.text.statistics` counts with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.text import characters as ch
from glm_data.text.characters import decode_at, entry_of
from glm_data.text.compiled import compiled
from glm_data.text.repetition import Scratch
from glm_data.text.sets import BASE, mask_for, put, spread

GRAM = 13
"""Characters of a gram: white space and rulers left out, 13 as in ChineseWebText's repetition rule."""

LONG_BYTES, SAMPLED = 1 << 12, 8
"""Of documents longer than ``LONG_BYTES``, one in ``SAMPLED`` grams is taken, chosen by its hash, so that equal grams
are taken together and the share stays the same."""

SHORT_LINE, TITLE = 30, 40
"""Characters of a line that FineWeb calls short, and of one that can be a headline."""

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
LINE_COUNTS = (
    "newlines", "lines", "line_characters", "end_mark_lines", "terminal_lines", "bullet_lines", "dash_lines",
    "ellipsis_lines", "ellipses", "short_lines", "title_lines", "longest_line", "duplicate_lines",
    "duplicate_line_characters", "paragraphs", "duplicate_paragraphs", "duplicate_paragraph_characters",
)  # fmt: skip
GRAM_COUNTS = ("grams", "repeated_grams")

_RULER = CLASSES.index("ruler")
_SIMPLIFIED, _TRADITIONAL, _MISREAD, _WORDS, _HASHES, _FUNCTION = range(len(CLASSES), len(CHARACTER_COUNTS))
_NEWLINE = 0x0A
_OF_WHOLE_LINE = ch.BULLET | ch.DASH | ch.CLAUSE_MARK
"""Marks that a line keeps whatever follows; the others are of its last character."""

_ELLIPSIS = 1 << 30
"""In place of a number of dots: the last character is ``…``."""


# --- characters and tokens --------------------------------------------------------------------------------------------


@compiled
def is_mark(kind: int) -> bool:
    """Whether a run of characters of this class is a ruler."""
    return bool(kind == ch.PUNCTUATION or kind == ch.SYMBOL)


@compiled
def count_characters(
    data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16], stops: NDArray[np.uint64],
    han_stops: NDArray[np.uint8], counts: NDArray[np.int64], scratch: Scratch,
) -> tuple[int, int]:  # fmt: skip
    """Fill ``counts`` with CHARACTER_COUNTS and TOKEN_COUNTS; put first characters, solid characters and tokens into
    ``scratch``. Returns how many of the latter two."""
    own, tokens, lengths = counts[len(CHARACTER_COUNTS) :], scratch.tokens, scratch.lengths
    english = chinese = hashed = packed = np.uint64(0)
    text = stored = solid = characters = length = 0
    solid_before, before = np.uint32(0), np.uint32(0)
    position, kind_before, has_letter = start, ch.SPACE, False
    while position <= end:  # a blank stands at the end
        if position < end and _is_ascii_letter(data[position]):
            rest = scratch.characters[characters:]
            letters, hashed, packed = _read_letters(data, position, end, hashed, packed, rest, scratch.solid[solid:])
            position, length, has_letter = position + letters, length + letters, True
            characters, solid = characters + letters, min(solid + letters, scratch.solid.shape[0])
            counts[ch.LATIN] += letters
            counts[_WORDS] += kind_before != ch.LATIN
            before, solid_before, kind_before = data[position - 1], data[position - 1], ch.LATIN
            continue
        point, size = decode_at(data, position) if position < end else (np.uint32(0x20), 1)
        entry = entry_of(table, point)
        kind = entry & ch.CLASS_BITS
        following = data[position + size] if position + size < end else np.uint8(0x20)
        joins = length > 0 and point < 0x60 and _joins(point, before, following)
        goes_on = joins or _is_in_word(kind)
        if length > 0 and not goes_on and kind != ch.CONTROL:
            stop = _find_stop(packed, length, stops)
            english |= stop
            counts[_FUNCTION] += stop != 0
            _count_token(own, length, has_letter, False)
            stored, text = _store(tokens, lengths, stored, spread(hashed), length, text, characters)
            hashed, packed, length, has_letter = np.uint64(0), np.uint64(0), 0, False
        if position == end:
            break
        _keep(scratch.characters, characters, point)
        characters += 1
        repeats = point == before and is_mark(kind)
        _count_character(counts, point, entry, kind_before, repeats)
        if kind != ch.SPACE and not (point == solid_before and is_mark(kind)):
            solid += _keep(scratch.solid, solid, point)
            solid_before = point
        if goes_on or (point == 0x27 and _is_in_word(kind_before) and _is_ascii_letter(following)):
            hashed, packed = _add_to_word(hashed, packed, point)
            length += 1
            has_letter = has_letter or (goes_on and not joins and kind != ch.DIGIT)
        elif repeats and stored > 0:
            text += _lengthen(tokens, lengths, stored, text == characters - 1)
        elif kind != ch.SPACE and kind != ch.CONTROL:
            alone = kind == ch.HAN or kind == ch.KANA
            _count_token(own, alone, alone, alone)
            chinese |= np.uint64(1) << np.uint64(han_stops[point] if point < 0x10000 else 0)
            stored, text = _store(tokens, lengths, stored, spread(np.uint64(point) + BASE), 1, text, characters)
        before, kind_before = point, kind
        position += size
    own[5], own[6] = _bits(english), _bits(chinese >> np.uint64(1))
    own[7] = text if stored == tokens.shape[0] - 1 else characters
    return solid, stored


@compiled
def _is_in_word(kind: int) -> bool:
    return bool(kind == ch.LATIN or kind == ch.LETTER or kind == ch.DIGIT or kind == ch.HANGUL)


@compiled
def _keep(places: NDArray[np.uint32], used: int, point: Any) -> int:
    """Keep a code point if there is room; how many were."""
    if used >= places.shape[0]:
        return 0
    places[used] = point
    return 1


@compiled
def _add_to_word(hashed: Any, packed: Any, point: Any) -> Any:
    """The hash of a word with a character more, and its bytes: all bits once they are not ASCII."""
    hashed = (hashed + np.uint64(point) + np.uint64(1)) * BASE
    return hashed, packed << np.uint64(8) | np.uint64(point) if point < 0x80 else ~np.uint64(0)


@compiled
def _lengthen(tokens: NDArray[np.uint64], lengths: NDArray[np.int64], stored: int, is_last: bool) -> int:
    """Make the last token, a mark, one longer if it stands right before; by how many."""
    if not is_last:
        return 0
    tokens[stored - 1] = spread(tokens[stored - 1] + BASE)
    lengths[stored - 1] += 1
    return 1


@compiled
def _read_letters(
    data: NDArray[np.uint8], start: int, end: int, hashed: Any, packed: Any, characters: NDArray[np.uint32],
    solid: NDArray[np.uint32],
) -> tuple[int, Any, Any]:  # fmt: skip
    """Read a run of ASCII letters on: how many, and the word's hash and bytes with them."""
    position = start
    while position < end and _is_ascii_letter(data[position]):
        byte, at = data[position], position - start
        hashed = (hashed + np.uint64(byte) + np.uint64(1)) * BASE
        packed = packed << np.uint64(8) | np.uint64(byte)
        if at < solid.shape[0]:
            solid[at] = byte
        if at < characters.shape[0]:
            characters[at] = byte
        position += 1
    return position - start, hashed, packed


@compiled
def _count_character(counts: NDArray[np.int64], point: Any, entry: int, kind_before: int, repeats: bool) -> None:
    kind = entry & ch.CLASS_BITS
    counts[_HASHES] += point == 0x23
    counts[_RULER if repeats else kind] += 1
    if kind == ch.LATIN:
        counts[_WORDS] += kind_before != ch.LATIN
    elif kind == ch.HAN and entry > ch.CLASS_BITS:
        counts[_SIMPLIFIED] += entry & ch.SIMPLIFIED != 0
        counts[_TRADITIONAL] += entry & ch.TRADITIONAL != 0
        counts[_MISREAD] += entry & ch.MISREAD != 0
        counts[_FUNCTION] += entry & ch.FUNCTION != 0


@compiled
def _count_token(counts: NDArray[np.int64], word_length: int, has_letter: bool, is_han: bool) -> None:
    counts[0] += 1
    counts[1] += is_han
    counts[2] += word_length > 0
    counts[3] += word_length
    counts[4] += has_letter


@compiled
def _store(
    tokens: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    stored: int,
    key: Any,
    length: int,
    text: int,
    characters: int,
) -> tuple[int, int]:  # fmt: skip
    """Keep a token if there is room; returns how many are kept, and the characters of the text up to the last one."""
    if stored >= tokens.shape[0] - 1:
        return stored, text
    tokens[stored], lengths[stored] = key, length
    return stored + 1, characters


@compiled
def _joins(point: Any, before: Any, following: Any) -> bool:
    """Whether a mark inside a run of letters and digits is part of it."""
    is_digit = 0x30 <= following <= 0x39
    if point == 0x5F:  # _
        return True
    if point == 0x2E:  # .
        return bool(is_digit or _is_ascii_letter(following))
    return bool(point == 0x2C and is_digit and 0x30 <= before <= 0x39)  # ,


@compiled
def _is_ascii_letter(byte: Any) -> bool:
    return bool(0x61 <= byte | 0x20 <= 0x7A)


@compiled
def _find_stop(packed: Any, length: int, stops: NDArray[np.uint64]) -> Any:
    """Which of the English function words a token is: Gopher's have a bit each in lower case, others the top bit."""
    if length > 7 or packed == ~np.uint64(0):
        return np.uint64(0)
    lower = packed | np.uint64(0x20202020202020) >> np.uint64(8 * (7 - length))
    slot = np.int64(spread(lower) & np.uint64(stops.shape[0] // 2 - 1))
    while stops[2 * slot] != 0:
        if stops[2 * slot] == lower:
            bit = stops[2 * slot + 1]
            return bit if packed == lower else np.uint64(1) << np.uint64(63)
        slot = (slot + 1) & (stops.shape[0] // 2 - 1)
    return np.uint64(0)


@compiled
def _bits(value: Any) -> int:
    """Bits set below the top one."""
    found = 0
    for bit in range(63):
        found += (value >> np.uint64(bit)) & np.uint64(1) != 0
    return found


# --- lines ------------------------------------------------------------------------------------------------------------


@compiled
def count_lines(
    data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16], counts: NDArray[np.int64],
    owner: int, keys: NDArray[np.uint64], owners: NDArray[np.int64],
) -> None:  # fmt: skip
    """Fill ``counts`` with :data:`LINE_COUNTS`. Takes the owners ``owner`` (lines) and ``owner + 1`` (paragraphs)."""
    mask = mask_for((end - start) // 2 + 4, keys.shape[0])
    position = start
    indent = length = solid_length = dots = 0  # of the line so far; up to its last character that is not white space
    running, solid_hash, paragraph_hash = np.uint64(0), np.uint64(0), np.uint64(0)
    paragraph_length, marks, gap = 0, 0, False
    while position <= end:
        at_end = position == end
        if at_end or data[position] == _NEWLINE:
            counts[0] += not at_end
            if solid_length > 0:
                _end_line(counts, marks, indent, solid_length, dots)
                if put(spread(solid_hash), owner, keys, owners, mask):
                    counts[12] += 1
                    counts[13] += solid_length
                paragraph_hash = (paragraph_hash + solid_hash + np.uint64(indent)) * BASE
                paragraph_length += indent + solid_length + (paragraph_length > 0)
            if paragraph_length and (at_end or solid_length == 0):
                counts[14] += 1
                if put(spread(paragraph_hash), owner + 1, keys, owners, mask):
                    counts[15] += 1
                    counts[16] += paragraph_length
                paragraph_hash, paragraph_length = np.uint64(0), 0
            indent = length = solid_length = dots = marks = 0
            running, solid_hash = np.uint64(0), np.uint64(0)
            position += 1
            continue
        if _is_ascii_letter(data[position]):
            letters = position
            while position < end and _is_ascii_letter(data[position]):
                running = (running + np.uint64(data[position]) + np.uint64(1)) * BASE
                position += 1
            length += position - letters
            marks = marks & _OF_WHOLE_LINE if solid_length else 0
            solid_length, solid_hash, dots, gap = length, running, 0, False
            continue
        point, size = decode_at(data, position)
        position += size
        entry = entry_of(table, point)
        length += 1
        running = (running + np.uint64(point) + np.uint64(1)) * BASE
        if entry & ch.CLASS_BITS == ch.SPACE:
            gap = True
            if solid_length == 0:
                indent, length, running = indent + 1, 0, np.uint64(0)
            continue
        marks = _add_marks(marks, entry, solid_length == 0)
        solid_length, solid_hash = length, running
        dots = _ELLIPSIS if point == 0x2026 else 0 if point != 0x2E else 1 if gap or dots == _ELLIPSIS else dots + 1
        gap = False
        counts[8] += dots > 0 and (dots == _ELLIPSIS or dots % 3 == 0)


@compiled
def _add_marks(marks: int, entry: int, is_first: bool) -> int:
    """The marks of a line with one character more: bullets of its first, ends of its last, clauses of any."""
    if is_first:
        marks = entry & (ch.BULLET | ch.DASH)
    end = marks & ch.END_MARK if entry & ch.CLOSER else entry & ch.END_MARK
    clause = entry & ch.CLAUSE_MARK | (ch.CLAUSE_MARK if entry & ch.END_MARK else 0)
    return marks & _OF_WHOLE_LINE | end | clause | entry & ch.TERMINAL


@compiled
def _end_line(counts: NDArray[np.int64], marks: int, indent: int, length: int, dots: int) -> None:
    counts[1] += 1
    counts[2] += length
    counts[3] += marks & ch.END_MARK != 0
    counts[4] += marks & ch.TERMINAL != 0
    counts[5] += marks & ch.BULLET != 0
    counts[6] += marks & ch.DASH != 0
    counts[7] += dots >= 3
    counts[9] += indent + length <= SHORT_LINE
    counts[10] += length <= TITLE and marks & ch.CLAUSE_MARK == 0
    counts[11] = max(counts[11], length)


# --- grams of characters ----------------------------------------------------------------------------------------------


@compiled
def count_grams_of_13(
    solid: NDArray[np.uint32], sample: int, counts: NDArray[np.int64], owner: int,
    keys: NDArray[np.uint64], owners: NDArray[np.int64],
) -> None:  # fmt: skip
    """Fill ``counts`` with :data:`GRAM_COUNTS`; takes one in ``sample + 1`` grams."""
    mask = mask_for(solid.shape[0], keys.shape[0])
    leaving = np.uint64(1)
    for _ in range(GRAM):
        leaving *= BASE
    running = np.uint64(0)
    for at in range(solid.shape[0]):
        running = running * BASE + np.uint64(solid[at]) + np.uint64(1)
        if at >= GRAM:
            running -= (np.uint64(solid[at - GRAM]) + np.uint64(1)) * leaving
        key = spread(running)
        if at >= GRAM - 1 and (key >> np.uint64(40)) & np.uint64(sample) == 0:
            counts[0] += 1
            counts[1] += put(key, owner, keys, owners, mask)
