"""Signals of documents, measured in one compiled pass over a block's UTF-8.

Lines are what ``\\n`` parts, stripped of white space; blank ones do not count. Of a run of one punctuation mark or
symbol only the first counts as such; the rest is a ruler, as are the lines of tables and the underlines of titles.
A share of nothing is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.text import characters as ch
from glm_data.text.characters import character_table, decode_at, entry_of
from glm_data.text.compiled import compiled

GRAM = 13
"""Characters of a gram: white space and rulers left out, 13 as in ChineseWebText's repetition rule."""

GRAM_CHARACTERS = 1 << 17
"""Characters, from the start, that grams are taken of."""

_CLASSES = (
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
COUNTS = (
    *_CLASSES, "simplified", "traditional", "words", "lines", "line_characters", "end_mark_lines", "bullet_lines",
    "ellipsis_lines", "duplicate_line_characters", "grams", "repeated_grams",
)  # fmt: skip
"""What the kernel counts; the classes stand first, in the order of their numbers."""

_RULER = _CLASSES.index("ruler")
_SIMPLIFIED, _TRADITIONAL, _WORDS, _LINES, _LINE_CHARACTERS, _END, _BULLET, _ELLIPSIS, _DUPLICATE, _GRAMS, _REPEATED = (
    range(len(_CLASSES), len(COUNTS))
)

SIGNALS = {
    "characters": "code points",
    "han": "Han characters",
    "words": "runs of Latin letters",
    "lines": "lines that are not blank",
    "letter_share": "letters of all scripts / solid characters: neither white space nor ruler",
    "han_share": "Han characters / letters of all scripts",
    "digit_share": "digits / solid characters",
    "punctuation_share": "punctuation / solid characters",
    "symbol_share": "symbols / solid characters",
    "space_share": "white space / characters",
    "garbled_share": "U+FFFD, private-use and unassigned characters / solid characters",
    "mean_word_length": "Latin letters / runs of them",
    "mean_line_length": "characters of lines / lines",
    "end_mark_share": "lines that end in one of .!?。！？… (before closing quotes and brackets) / lines",
    "bullet_share": "lines that begin with a bullet / lines",
    "ellipsis_share": "lines that end in … or ... / lines",
    "duplicate_line_share": "characters of lines that repeat an earlier line / characters of lines",
    "repeated_gram_share": "13-character grams that repeat an earlier one / grams, of solid characters",
}
"""The signals that rules of profiles may bound, and what each is."""

LONG_BYTES, SAMPLED = 1 << 13, 8
"""Of documents longer than ``LONG_BYTES``, one in ``SAMPLED`` grams is taken, chosen by its hash, so that equal grams
are taken together and the share stays the same."""

_NEWLINE = 0x0A
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


def utf8_buffers(texts: pa.StringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of a string array and its ``int64[len + 1]`` offsets into them, without a copy of the bytes."""
    _, offsets, data = texts.buffers()
    if len(texts) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    bounds = np.frombuffer(offsets, np.int32, len(texts) + 1, texts.offset * 4).astype(np.int64)
    return np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8), bounds


def count(texts: pa.StringArray) -> NDArray[np.int64]:
    """Count everything in :data:`COUNTS`: ``int64[documents, counts]``. About 100 MB/s a core."""
    data, offsets = utf8_buffers(texts)
    counts = np.zeros((len(texts), len(COUNTS)), np.int64)
    if len(texts):
        lines = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == _NEWLINE)) + 1
        grams = min(int(np.diff(offsets).max()), GRAM_CHARACTERS)
        _count_all(data, offsets, character_table(), counts, *_new_set(lines), *_new_set(grams))
    return counts


def _new_set(items: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """A set for up to ``items`` hashes of a document: keys, and the document that each was put in for."""
    size = 1 << max(4, (2 * items).bit_length())
    return np.zeros(size, np.uint64), np.full(size, -1, np.int32)


def derive(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """The signals of :data:`SIGNALS`, by name, from :func:`count`'s counts."""
    column = dict(zip(COUNTS, counts.T.astype(np.float64), strict=True))
    characters = sum(column[name] for name in _CLASSES)
    solid = characters - column["space"] - column["ruler"]
    letters = sum(column[name] for name in ("han", "kana", "hangul", "latin", "letter"))
    lines = column["lines"]
    shares = {f"{name}_share": (column[name], solid) for name in ("digit", "punctuation", "symbol", "garbled")}
    shares |= {f"{name}_share": (column[f"{name}_lines"], lines) for name in ("end_mark", "bullet", "ellipsis")}
    shares |= {
        "letter_share": (letters, solid),
        "han_share": (column["han"], letters),
        "space_share": (column["space"], characters),
        "mean_word_length": (column["latin"], column["words"]),
        "mean_line_length": (column["line_characters"], lines),
        "duplicate_line_share": (column["duplicate_line_characters"], column["line_characters"]),
        "repeated_gram_share": (column["repeated_grams"], column["grams"]),
    }
    ratios = {
        name: np.divide(part, whole, out=np.zeros_like(lines), where=whole > 0)
        for name, (part, whole) in shares.items()
    }
    return {"characters": characters, "han": column["han"], "words": column["words"], "lines": lines, **ratios}


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def measure(texts: pa.StringArray) -> dict[str, NDArray[np.float64]]:
    """The signals of every text, by name: ``float64[documents]`` each."""
    return derive(count(texts))


@compiled
def _count_all(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], table: NDArray[np.uint16], counts: NDArray[np.int64],
    line_keys: NDArray[np.uint64], line_owners: NDArray[np.int32],
    gram_keys: NDArray[np.uint64], gram_owners: NDArray[np.int32],
) -> None:  # fmt: skip
    for row in range(counts.shape[0]):
        start, end = offsets[row], offsets[row + 1]
        _count_characters(data, start, end, table, counts[row])
        _count_lines(data, start, end, table, counts[row], row, line_keys, line_owners)
        _count_grams(data, start, end, table, counts[row], row, gram_keys, gram_owners)


@compiled
def _count_characters(
    data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16], counts: NDArray[np.int64]
) -> None:
    position, before, before_point = start, ch.SPACE, 0
    while position < end:
        point, size = decode_at(data, position)
        position += size
        entry = entry_of(table, point)
        kind = entry & ch.CLASS_BITS
        if point == before_point and _is_mark(kind):
            counts[_RULER] += 1
            continue
        counts[kind] += 1
        if kind == ch.LATIN and before != ch.LATIN:
            counts[_WORDS] += 1
        elif entry & ch.SIMPLIFIED:
            counts[_SIMPLIFIED] += 1
        elif entry & ch.TRADITIONAL:
            counts[_TRADITIONAL] += 1
        before, before_point = kind, point


@compiled
def _count_lines(
    data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16], counts: NDArray[np.int64],
    owner: int, keys: NDArray[np.uint64], owners: NDArray[np.int32],
) -> None:  # fmt: skip
    mask = _mask_for(end - start, keys.shape[0])
    position = start
    length = solid_length = dots = 0  # of the line so far; up to its last character that is not white space
    running, solid_hash = np.uint64(0), np.uint64(0)
    has_end_mark = has_bullet = False
    while position <= end:
        if position == end or data[position] == _NEWLINE:
            if solid_length > 0:
                counts[_LINES] += 1
                counts[_LINE_CHARACTERS] += solid_length
                counts[_END] += has_end_mark
                counts[_BULLET] += has_bullet
                counts[_ELLIPSIS] += dots >= 3
                if _put(_spread(solid_hash), owner, keys, owners, mask):
                    counts[_DUPLICATE] += solid_length
            length = solid_length = dots = 0
            running = solid_hash = np.uint64(0)
            has_end_mark = has_bullet = False
            position += 1
            continue
        point, size = decode_at(data, position)
        position += size
        entry = entry_of(table, point)
        is_space = entry & ch.CLASS_BITS == ch.SPACE
        if is_space and solid_length == 0:
            continue
        length += 1
        running = (running + np.uint64(point) + np.uint64(1)) * _BASE
        if is_space:
            continue
        has_bullet |= solid_length == 0 and entry & ch.BULLET != 0
        solid_length, solid_hash = length, running
        dots = 3 if point == 0x2026 else dots + 1 if point == 0x2E else 0
        if entry & ch.CLOSER == 0:
            has_end_mark = entry & ch.END_MARK != 0


@compiled
def _count_grams(
    data: NDArray[np.uint8], start: int, end: int, table: NDArray[np.uint16], counts: NDArray[np.int64],
    owner: int, keys: NDArray[np.uint64], owners: NDArray[np.int32],
) -> None:  # fmt: skip
    sample = np.uint64(SAMPLED - 1 if end - start > LONG_BYTES else 0)
    mask = _mask_for(min(end - start, GRAM_CHARACTERS), keys.shape[0])
    window = np.zeros(GRAM, np.uint64)
    leaving = np.uint64(1)
    for _ in range(GRAM):
        leaving *= _BASE
    running = np.uint64(0)
    position, taken, slot, before = start, 0, 0, 0
    while position < end and taken < GRAM_CHARACTERS:
        point, size = decode_at(data, position)
        position += size
        kind = entry_of(table, point) & ch.CLASS_BITS
        if kind == ch.SPACE or (point == before and _is_mark(kind)):
            continue
        before = point
        entering = np.uint64(point) + np.uint64(1)
        running = running * _BASE + entering - window[slot] * leaving
        window[slot] = entering
        slot = 0 if slot == GRAM - 1 else slot + 1
        taken += 1
        key = _spread(running)
        if taken >= GRAM and (key >> np.uint64(40)) & sample == 0:
            counts[_GRAMS] += 1
            counts[_REPEATED] += _put(key, owner, keys, owners, mask)


@compiled
def _is_mark(kind: int) -> bool:
    """Whether a run of characters of this class is a ruler."""
    return bool(kind == ch.PUNCTUATION or kind == ch.SYMBOL)


@compiled
def _mask_for(items: int, slots: int) -> int:
    """A mask for at least twice ``items`` slots, so that small documents stay in the cache."""
    size = 16
    while size < 2 * items and size < slots:
        size *= 2
    return size - 1


@compiled
def _spread(value: Any) -> Any:
    value ^= value >> np.uint64(32)
    value *= _MIX
    return value ^ (value >> np.uint64(32))


@compiled
def _put(key: Any, owner: int, keys: NDArray[np.uint64], owners: NDArray[np.int32], mask: int) -> bool:
    """Put ``key`` into the set of ``owner``; whether it was there already."""
    slot = np.int64(key & np.uint64(mask))
    while owners[slot] == owner:
        if keys[slot] == key:
            return True
        slot = (slot + 1) & mask
    owners[slot] = owner
    keys[slot] = key
    return False
