"""A list of words, however long, found in one walk over a block's bytes (Aho and Corasick 1975).

The trie's edges stand in one hash table, so that a list of a million words costs tens of MB; ASCII letters match in
either case, and a word that begins or ends with an ASCII letter or digit only matches where none stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.kernels import compiled
from glm_data.text.sets import spread
from glm_data.text.statistics import utf8_buffers


class WordList(NamedTuple):
    """The automaton of a list. State 0 is the root; 0 as a child or link means none."""

    edges: NDArray[np.uint64]
    """Hash table of ``state * 256 + byte + 1``; 0 where there is none."""
    children: NDArray[np.int32]
    """The state that each edge leads to."""
    fail: NDArray[np.int32]
    """For each state, that of its longest suffix."""
    ends: NDArray[np.int32]
    """The number of the word that ends there, from 1."""
    link: NDArray[np.int32]
    """The next suffix at which a word ends."""
    lengths: NDArray[np.int32]
    """Bytes of each word, by number."""


def make_word_list(words: Sequence[str]) -> WordList:
    """The automaton of ``words``; blank and repeated ones are left out."""
    kept = sorted({word.strip().encode().lower() for word in words} - {b""})
    data = np.frombuffer(b"".join(kept), np.uint8)
    lengths = np.array([0, *map(len, kept)], np.int32)
    slots = 1 << (2 * len(data) + 16).bit_length()
    states = len(data) + 1
    edges, children = np.zeros(slots, np.uint64), np.zeros(slots, np.int32)
    fail, ends, link = (np.zeros(states, np.int32) for _ in range(3))
    parents, depths, last = np.zeros(states, np.int32), np.zeros(states, np.int32), np.zeros(states, np.uint8)
    used = _grow(data, lengths, edges, children, ends, parents, depths, last)
    order = np.argsort(depths[:used], kind="stable")
    _link(order, edges, children, fail, ends, link, parents, last)
    return WordList(edges, children, fail[:used], ends[:used], link[:used], lengths)


def count_words(texts: pa.StringArray, words: WordList) -> NDArray[np.int64]:
    """For every text how many times a word is found, and how many different ones: ``int64[documents, 2]``."""
    counts = np.zeros((len(texts), 2), np.int64)
    if len(texts):
        data, offsets = utf8_buffers(texts)
        _count(data, offsets, *words, np.full(len(words.lengths), -1, np.int64), counts)
    return counts


@compiled
def _edge_slot(edges: NDArray[np.uint64], state: Any, byte: Any) -> Any:
    key = np.uint64(state) * np.uint64(256) + np.uint64(byte) + np.uint64(1)
    mask = edges.shape[0] - 1
    slot = np.int64(spread(key) & np.uint64(mask))
    while edges[slot] != 0 and edges[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def _grow(
    data: NDArray[np.uint8], lengths: NDArray[np.int32], edges: NDArray[np.uint64], children: NDArray[np.int32],
    ends: NDArray[np.int32], parents: NDArray[np.int32], depths: NDArray[np.int32], last: NDArray[np.uint8],
) -> int:  # fmt: skip
    """Put all words into the trie; returns the number of its states."""
    used, position = 1, 0
    for word in range(1, lengths.shape[0]):
        state = 0
        for _ in range(lengths[word]):
            byte = data[position]
            slot = _edge_slot(edges, state, byte)
            if edges[slot] == 0:
                edges[slot] = np.uint64(state) * np.uint64(256) + np.uint64(byte) + np.uint64(1)
                children[slot] = used
                parents[used], depths[used], last[used] = state, depths[state] + 1, byte
                used += 1
            state = children[slot]
            position += 1
        ends[state] = word
    return used


@compiled
def _step(
    edges: NDArray[np.uint64], children: NDArray[np.int32], fail: NDArray[np.int32], state: Any, byte: Any
) -> Any:
    """The state after ``byte``."""
    while True:
        slot = _edge_slot(edges, state, byte)
        if edges[slot] != 0:
            return children[slot]
        if state == 0:
            return np.int32(0)
        state = fail[state]


@compiled
def _link(
    order: NDArray[np.int64], edges: NDArray[np.uint64], children: NDArray[np.int32], fail: NDArray[np.int32],
    ends: NDArray[np.int32], link: NDArray[np.int32], parents: NDArray[np.int32], last: NDArray[np.uint8],
) -> None:  # fmt: skip
    """Fill ``fail`` and ``link``, shorter states first."""
    for state in order:
        if state == 0:
            continue
        if parents[state] != 0:
            fail[state] = _step(edges, children, fail, fail[parents[state]], last[state])
        suffix = fail[state]
        link[state] = suffix if ends[suffix] else link[suffix]


@compiled
def _is_word_byte(byte: Any) -> bool:
    return bool(0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A or 0x61 <= byte <= 0x7A)


@compiled
def _count(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], edges: NDArray[np.uint64], children: NDArray[np.int32],
    fail: NDArray[np.int32], ends: NDArray[np.int32], link: NDArray[np.int32], lengths: NDArray[np.int32],
    seen: NDArray[np.int64], counts: NDArray[np.int64],
) -> None:  # fmt: skip
    for row in range(counts.shape[0]):
        start, end, state = offsets[row], offsets[row + 1], np.int32(0)
        for position in range(start, end):
            byte = data[position]
            state = _step(edges, children, fail, state, byte | 0x20 if 0x41 <= byte <= 0x5A else byte)
            found = state if ends[state] else link[state]
            while found:
                word = ends[found]
                first = position + 1 - lengths[word]
                inside = first > start and _is_word_byte(data[first]) and _is_word_byte(data[first - 1])
                inside |= position + 1 < end and _is_word_byte(byte) and _is_word_byte(data[position + 1])
                if not inside:
                    counts[row, 0] += 1
                    counts[row, 1] += seen[word] != row
                    seen[word] = row
                found = link[found]
