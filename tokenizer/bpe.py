"""Byte-pair encoding of whole batches, a word at a time, with the words seen before remembered: SentencePiece's ids.

SentencePiece merges the best pair of neighbours anywhere in a text until none is left. Two facts make that local:

* Two characters that stand side by side in no piece of the vocabulary can never come to be in one. So a text may be cut
  between them, and what lies between two such cuts (a *word* here, though it may be a clause or a single sign) encodes
  on its own. In running text, English or Chinese, it has four bytes on average.
* User symbols (line ends with the white space that follows, runs of tabs and spaces) are matched first, the longest
  that fits, and merge with nothing.

Words repeat: in 6 MB of text nine of ten bytes are in words seen before. The others are merged by the same rule: first
the pair that makes the piece of the highest score, the leftmost of equals. Characters without a piece become byte
pieces. :func:`tables` returns None for models of which this is not true, and the caller asks SentencePiece.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glm_data.kernels import compiled
from tokenizer import model_file
from tokenizer.kernels import CODE_POINTS, KEY_FACTOR, read_point, slot

Ids = npt.NDArray[np.int32]

LONGEST_WORD = 255
"""Bytes; longer words (a line of one letter) are for SentencePiece, whose time grows less with their length."""

_ASCII, _SPACE = 0x80, 0x20
_LOW, _HIGH = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFF00000000)
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_BYTES, _WORD = -1, -2
_WHITE = -2
_LINE_END, _TAB = 0x0A, 0x09
_WHITE_FORM = re.compile(r"(\n+\t*|\n* +|\t+)")
_BLOCK = 1024
_MOST_WORDS, _RECORD_PLACES = 1 << 18, 1 << 21
"""Words to remember, and the places of four bytes for them: 12 MB in all. When either is full, all are forgotten."""


class Tables(NamedTuple):
    """A vocabulary as the kernels read it."""

    characters: Ids
    """``int32[0x110001]``: the piece of a code point, -1 if it has none, -2 if symbols of white space begin with it;
    the last place is for what is no code point."""
    white: Ids
    """``int32[lines + 1, 2, run + 1]``: the user symbol of so many line ends and a run of spaces (0) or tabs (1); -1 if
    there is none."""
    byte_ids: Ids
    """``int32[256]``: the piece of a byte."""
    ascii_joins: npt.NDArray[np.bool_]
    """``bool[128 * 128]``: whether two characters stand side by side in a piece."""
    joins: npt.NDArray[np.int64]
    """The same for all others, as a hash set of ``left << 32 | right``."""
    pairs: npt.NDArray[np.int64]
    """Two pieces that together are one, as a hash map: keys here, values in ``merged``."""
    merged: Ids
    scores: npt.NDArray[np.float32]
    """``float32[pieces]``."""


class _Memory(NamedTuple):
    """Words seen before. A record is a head (bytes << 16 | ids), the ids, and the bytes up to a multiple of four."""

    slots: npt.NDArray[np.uint64]
    """An open hash table: high half of a word's hash, and in the low half where its record lies; 0 is an empty slot."""
    records: Ids
    letters: npt.NDArray[np.uint8]
    """The same memory as ``records``."""
    used: npt.NDArray[np.int64]
    """Words, and places of ``records``, of which the first is never used."""


def _new_memory() -> _Memory:
    records = np.empty(_RECORD_PLACES, np.int32)
    return _Memory(np.zeros(2 * _MOST_WORDS, np.uint64), records, records.view(np.uint8), np.array([0, 1]))


def tables(parsed: model_file.ModelFile, byte_ids: Ids) -> Tables | None:
    """The tables of a model; None if it is not BPE, has user symbols of other kinds, or letters without a piece."""
    texts = [piece.decode("utf-8", "replace").replace("\u2581", " ") for piece in parsed.pieces]
    kinds = list(zip(texts, parsed.types, strict=True))
    index = {text: id for id, (text, kind) in enumerate(kinds) if kind == model_file.NORMAL}
    symbols = {text: id for id, (text, kind) in enumerate(kinds) if kind == model_file.USER_DEFINED}
    letters = {letter for text in index for letter in text}
    white = _white_symbols(symbols)
    if parsed.model_type != "bpe" or model_file.UNUSED in parsed.types or white is None or not letters <= index.keys():
        return None
    characters = np.full(CODE_POINTS + 1, -1, np.int32)
    for letter in letters:
        characters[ord(letter)] = index[letter]
    characters[[ord(symbol) for symbol in symbols if symbol in ("\n", "\t")]] = _WHITE
    joins = {pair for text in index for pair in pairwise(text)}
    ascii_joins = np.zeros(_ASCII * _ASCII, np.bool_)
    ascii_joins[[ord(left) * _ASCII + ord(right) for left, right in joins if (left + right).isascii()]] = True
    merges = _merges(index)
    pairs, merged = _hash_map(merges.keys(), merges.values())
    return Tables(
        characters=characters,
        white=white,
        byte_ids=byte_ids,
        ascii_joins=ascii_joins,
        joins=_hash_map([index[left] << 32 | index[right] for left, right in joins], [0] * len(joins))[0],
        pairs=pairs,
        merged=merged,
        scores=np.frombuffer(b"".join(parsed.scores), "<f4").astype(np.float32),
    )


def _white_symbols(symbols: Mapping[str, int]) -> Ids | None:
    """The table ``white``; None if a symbol is of another form, or a shorter one that begins alike is missing."""
    forms = {symbol: _WHITE_FORM.fullmatch(symbol) for symbol in symbols}
    beginnings = {symbol[:size] for symbol in symbols for size in range(1, len(symbol))} - {" "}
    if not all(forms.values()) or any(text not in symbols for text in beginnings if not text.endswith("\n ")):
        return None
    longest = max((len(symbol) for symbol in symbols), default=0)
    table = np.full((longest + 1, 2, longest + 2), -1, np.int32)
    for symbol, id in symbols.items():
        lines, run = symbol.count("\n"), len(symbol) - symbol.count("\n")
        table[lines, int(symbol.endswith("\t")), run] = id
    return table


def _merges(index: Mapping[str, int]) -> dict[int, int]:
    """Every way to put a piece together from two others: key of the two -> the piece."""
    return {
        index[text[:cut]] << 32 | index[text[cut:]]: whole
        for text, whole in index.items()
        for cut in range(1, len(text))
        if text[:cut] in index and text[cut:] in index
    }


def _hash_map(keys: Collection[int], values: Collection[int]) -> tuple[npt.NDArray[np.int64], Ids]:
    size = 1 << max(4, (2 * len(keys)).bit_length())
    slots, held = np.full(size, -1, np.int64), np.zeros(size, np.int32)
    _insert(np.array([*keys], np.int64), np.array([*values], np.int32), slots, held)
    return slots, held


class WordEncoder:
    """Encodes batches with the tables of a model; not safe to use from two threads at a time."""

    def __init__(self, model: Tables, encode_long: Callable[[bytes], Ids]) -> None:
        """``encode_long`` encodes a word of more than :data:`LONGEST_WORD` bytes."""
        self._model, self._encode_long = model, encode_long
        self._memory = _new_memory()

    def encode(self, text: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> tuple[Ids, npt.NDArray[np.int64]]:
        """Flat ids and their offsets: the texts are ``text[offsets[i] : offsets[i + 1]]`` (``uint8``, ``int64``)."""
        text = text.view()
        text.flags.writeable = False  # or numba would compile everything once more, for arrays that may be written
        out = np.empty(len(text), np.int32)  # no piece is shorter than a byte
        ends = np.zeros(len(offsets), np.int64)
        model, memory = tuple(self._model), tuple(self._memory)
        document, at, written = 0, int(offsets[0]), 0
        while True:
            document, at, written, stop = _encode(text, offsets, document, at, out, written, ends, model, memory)
            if stop < 0:
                return out[:written].copy(), ends
            ids = self._encode_long(text[at:stop].tobytes())
            out[written : written + len(ids)] = ids
            at, written = stop, written + len(ids)


# --- compiled ---------------------------------------------------------------------------------------------------------


@compiled
def _insert(keys: np.ndarray, values: np.ndarray, slots: np.ndarray, held: np.ndarray) -> None:
    for index in range(len(keys)):
        at = slot(keys[index], slots)
        slots[at], held[at] = keys[index], values[index]


@compiled
def _white_symbol(text: np.ndarray, at: int, end: int, white: np.ndarray) -> tuple[int, int]:
    """Bytes and id of the longest symbol of white space at ``text[at]``."""
    lines = 0
    while lines < len(white) - 1 and at + lines < end and text[at + lines] == _LINE_END:
        lines += 1
    first = at + lines
    if first < end and (text[first] == _SPACE or text[first] == _TAB):
        tabs, run = np.int64(text[first] == _TAB), 1
        while run < white.shape[2] - 1 and first + run < end and text[first + run] == text[first]:
            run += 1
        while run and white[lines, tabs, run] < 0:
            run -= 1
        if run:
            return lines + run, white[lines, tabs, run]
    while white[lines, 0, 0] < 0:
        lines -= 1
    return lines, white[lines, 0, 0]


@compiled
def _encode(
    text: np.ndarray,
    offsets: np.ndarray,
    document: int,
    at: int,
    out: np.ndarray,
    written: int,
    ends: np.ndarray,
    model: tuple[Any, ...],
    memory: tuple[Any, ...],
) -> tuple[int, int, int, int]:
    """Encode from ``text[at]`` in ``document`` on; returns (document, at, written, stop).

    ``stop`` is where a word ends that is too long for this, and that begins at ``at``; or -1 at the end of all.
    """
    # Words are cut and written a block at a time: numba counts references to the arrays at every call.
    stops, hashes, known = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.uint64), np.empty(_BLOCK, np.int32)
    while document < len(offsets) - 1:
        while at < offsets[document + 1]:
            words = _cut(text, at, offsets[document + 1], stops, hashes, known, model)
            done, at, written = _write(text, at, words, stops, hashes, known, out, written, model, memory)
            if done < words:
                return document, at, written, stops[done]
        document += 1
        ends[document] = written
    return document, at, written, -1


@compiled
def _cut(
    text: np.ndarray,
    at: int,
    end: int,
    stops: np.ndarray,
    hashes: np.ndarray,
    known: np.ndarray,
    model: tuple[Any, ...],
) -> int:
    """Cut ``text[at:end]`` into words, until ``stops`` is full; returns how many.

    ``stops`` is where each ends, ``known`` its id if it is a single character or symbol, else ``_BYTES`` (a
    character without a piece) and ``_WORD`` (with its hash in ``hashes``: FNV-1a, high bits folded into the low ones).
    """
    characters, white, ascii_joins, joins = model[0], model[1], model[3], model[4]
    count, last, runs = 0, len(joins) - 1, white.shape[2] > 2 and white[0, 0, 2] >= 0
    while at < end and count < len(stops):
        start = at
        left, size = read_point(text, at, end)
        piece = characters[left]
        at += size
        if piece < 0:
            known[count] = _BYTES
            if piece == _WHITE:
                size, known[count] = _white_symbol(text, start, end, white)
                at = start + size
        elif left == _SPACE and at < end and text[at] == _SPACE and runs:
            size, known[count] = _white_symbol(text, start, end, white)
            at = start + size
        else:
            known[count] = piece
            while at < end:
                right, size = read_point(text, at, end)
                other = characters[right]
                if other < 0:
                    break
                if left < _ASCII and right < _ASCII:
                    if not ascii_joins[left * _ASCII + right]:
                        break
                else:
                    key = np.int64(piece) << 32 | np.int64(other)
                    slot = (key * KEY_FACTOR >> 20) & last
                    while joins[slot] != key and joins[slot] >= 0:
                        slot = (slot + 1) & last
                    if joins[slot] < 0:
                        break
                if right == _SPACE and at + 1 < end and text[at + 1] == _SPACE and runs:
                    break
                left, piece, at, known[count] = right, other, at + size, _WORD
        hashed = _FNV_OFFSET
        if known[count] == _WORD:
            for place in range(start, at):
                hashed = (hashed ^ np.uint64(text[place])) * _FNV_PRIME
        stops[count], hashes[count] = at, hashed ^ (hashed >> np.uint64(29))
        count += 1
    return count


@compiled
def _write(
    text: np.ndarray,
    at: int,
    words: int,
    stops: np.ndarray,
    hashes: np.ndarray,
    known: np.ndarray,
    out: np.ndarray,
    written: int,
    model: tuple[Any, ...],
    memory: tuple[Any, ...],
) -> tuple[int, int, int]:
    """Write the ids of words that :func:`_cut` found, up to one that is too long; returns (words, at, written)."""
    byte_ids, (slots, records, letters, used) = model[2], memory
    pieces, made = np.empty(LONGEST_WORD, np.int32), np.empty(LONGEST_WORD, np.int32)
    for word in range(words):
        stop, hashed = stops[word], hashes[word]
        if known[word] >= 0:
            out[written] = known[word]
            written += 1
        elif known[word] == _BYTES:
            for place in range(at, stop):
                out[written] = byte_ids[text[place]]
                written += 1
        elif stop - at > LONGEST_WORD:
            return word, at, written
        else:
            slot: Any = np.int64(hashed & np.uint64(len(slots) - 1))
            record: Any = 0
            while slots[slot]:
                if slots[slot] & _HIGH == hashed & _HIGH:
                    record = np.int64(slots[slot] & _LOW)
                    held, size = record + 1 + (records[record] & 0xFFFF), records[record] >> 16
                    same, limit = 0, min(size, stop - at)
                    while same < limit and text[at + same] == letters[4 * held + same]:
                        same += 1
                    if same == size == stop - at:
                        break
                    record = 0
                slot = (slot + 1) & (len(slots) - 1)
            if record:
                for place in range(record + 1, record + 1 + (records[record] & 0xFFFF)):
                    out[written] = records[place]
                    written += 1
            else:
                count = _merge(text, at, stop, model, pieces, made)
                out[written : written + count] = pieces[:count]
                written += count
                _remember(text, at, stop, hashed, slot, pieces, count, slots, records, letters, used)
        at = stop
    return words, at, written


@compiled
def _remember(
    text: np.ndarray,
    start: int,
    stop: int,
    hashed: np.uint64,
    slot: Any,
    ids: np.ndarray,
    count: int,
    slots: np.ndarray,
    records: np.ndarray,
    letters: np.ndarray,
    used: np.ndarray,
) -> None:
    """Keep a word for the next time, in the empty ``slot``; forget all others first if there is no room for it."""
    places = 1 + count + (stop - start + 3) // 4
    if 2 * used[0] >= len(slots) or used[1] + places > len(records):
        slots[:] = 0
        used[0], used[1] = 0, 1
        slot = np.int64(hashed & np.uint64(len(slots) - 1))
    record = used[1]
    slots[slot] = (hashed & _HIGH) | np.uint64(record)
    records[record] = (stop - start) << 16 | count
    for index in range(count):
        records[record + 1 + index] = ids[index]
    first = 4 * (record + 1 + count)
    for index in range(stop - start):
        letters[first + index] = text[start + index]
    used[0], used[1] = used[0] + 1, record + places


@compiled
def _merge(
    text: np.ndarray,
    start: int,
    stop: int,
    model: tuple[Any, ...],
    pieces: np.ndarray,
    made: np.ndarray,
) -> int:
    """Merge the characters of a word into ``pieces``; returns how many they are.

    ``made[i]`` is what the pieces ``i`` and ``i + 1`` would make together, or -1.
    """
    characters, pairs, merged, scores = model[0], model[5], model[6], model[7]
    count, at = 0, start
    while at < stop:
        point, size = read_point(text, at, stop)
        pieces[count] = characters[point]
        if count:
            made[count - 1] = _together(pieces[count - 1], pieces[count], pairs, merged)
        count, at = count + 1, at + size
    while True:
        best = -1
        for index in range(count - 1):
            if made[index] >= 0 and (best < 0 or scores[made[index]] > scores[made[best]]):
                best = index
        if best < 0:
            return count
        pieces[best] = made[best]
        count -= 1
        for index in range(best + 1, count):
            pieces[index], made[index - 1] = pieces[index + 1], made[index]
        if best > 0:
            made[best - 1] = _together(pieces[best - 1], pieces[best], pairs, merged)
        if best < count - 1:
            made[best] = _together(pieces[best], pieces[best + 1], pairs, merged)


@compiled
def _together(left: int, right: int, pairs: np.ndarray, merged: np.ndarray) -> Any:
    key: Any = np.int64(left) << 32 | np.int64(right)
    at = slot(key, pairs)
    return np.int64(merged[at]) if pairs[at] == key else np.int64(-1)
