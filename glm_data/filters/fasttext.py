"""Supervised fastText models (``.bin`` and quantised ``.ftz``), read and applied with NumPy and numba alone.

The package ``fasttext`` is archived, needs a compiler and does not build against NumPy 2; its forks are one person's
each. The format is public and has not changed since 2017 (version 12, facebookresearch/fastText, src/fasttext.cc,
dictionary.cc, matrix.cc), and what prediction needs of it is less than a wrapper around a wheel would be. Matrices are
mapped, not read, so that a model of gigabytes costs only the rows that a text looks at.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glm_data.errors import InputError
from glm_data.kernels import compiled

_MAGIC, _VERSION, _SUPERVISED = 793712314, 12, 3
_HIERARCHICAL, _SOFTMAX = 1, 3
"""Loss functions whose scores are no independent sigmoids."""
_FULL = 256
_EOS = b"</s>"
_LABEL = "__label__"


class Vote(NamedTuple):
    """The likeliest label of a text, without its prefix, and the model's share for it."""

    label: str
    share: float


class Model(NamedTuple):
    """A supervised model."""

    labels: tuple[str, ...]
    input: Matrix
    output: NDArray[np.float32]
    """``float32[labels or inner nodes, dim]``."""
    loss: int
    tree: NDArray[np.int64]
    """``int64[nodes, 2]``: left and right child of every node of the hierarchical softmax, -1 for leaves."""
    words: Words


class Words(NamedTuple):
    """The vocabulary and how words become rows of the input."""

    data: NDArray[np.uint8]
    """All words, one after the other."""
    bounds: NDArray[np.int64]
    table: NDArray[np.int32]
    """Hash table of the words' numbers from 1; 0 where there is none."""
    pruned: NDArray[np.int32]
    """``int32[buckets]``: the row of each bucket after pruning, -1 for none; empty if nothing was pruned."""
    settings: NDArray[np.int64]
    """Shortest and longest n-gram of characters, buckets, n-gram of words, whether buckets were pruned away."""


class Matrix(NamedTuple):
    """Rows as they are in the file: dense, or product-quantised codes with their centroids."""

    dense: NDArray[np.float32]
    codes: NDArray[np.uint8]
    centroids: NDArray[np.float32]
    norms: NDArray[np.float32]
    """The norm of every row, if these are quantised apart."""


class _Reader:
    """Takes values from a mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, 0

    def values(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self._data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return found

    def array(self, kind: str, *shape: int) -> NDArray[Any]:
        size = int(np.prod(shape))
        found = np.frombuffer(self._data, np.dtype(kind).newbyteorder("<"), size, self.at).reshape(shape)
        self.at += found.nbytes
        return found

    def word(self) -> bytes:
        end = self._data.find(b"\0", self.at)
        if end < 0:
            raise ValueError("a word has no end")
        found, self.at = self._data[self.at : end], end + 1
        return found


def load(path: Path) -> Model:
    """Read a model; raises :class:`InputError` for a file that is none, or not a supervised one."""
    cure = "give a supervised model of fastText, such as lid.176.bin"
    try:
        with path.open("rb") as file:
            return _read(_Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise InputError(f"the model '{path}' cannot be read ({error.strerror}); {cure}.") from None
    except (ValueError, struct.error, IndexError, OverflowError, ZeroDivisionError, MemoryError):
        raise InputError(f"'{path}' holds no whole fastText model of version {_VERSION}; {cure}.") from None


def _read(reader: _Reader) -> Model:
    magic, version = reader.values("ii")
    dim, _, _, _, _, word_ngrams, loss, kind, buckets, shortest, longest, _, _ = reader.values("12id")
    if (magic, version, kind) != (_MAGIC, _VERSION, _SUPERVISED):
        raise ValueError("not a supervised model")
    size, word_count, label_count, _, pruned_size = reader.values("iiiqq")
    entries = [(reader.word(), *reader.values("qb")) for _ in range(size)]
    pairs = reader.array("i4", max(pruned_size, 0), 2)
    (is_quantised,) = reader.values("?")
    input = _read_matrix(reader, is_quantised)
    (is_output_quantised,) = reader.values("?")
    output = _read_matrix(reader, is_quantised and is_output_quantised)
    words = [word for word, _, _ in entries[:word_count]]
    labels = tuple(label.decode().removeprefix(_LABEL) for label, _, _ in entries[word_count:])
    rows = rows_of(output, np.arange(_row_count(output)))
    if not labels or len(labels) != label_count or len(rows) != len(labels) or rows.shape[1] != dim:
        raise ValueError("sizes do not fit each other")
    pruned = np.full(buckets if pruned_size > 0 else 0, -1, np.int32)
    pruned[pairs[:, 0]] = pairs[:, 1]
    hashed = buckets if pruned_size < 0 else int(pruned.max(initial=-1)) + 1
    if _row_count(input) < word_count + hashed or (buckets < 1 and (longest > 0 or word_ngrams > 1)):
        raise ValueError("words and buckets have no rows")
    settings = np.array([shortest, longest, buckets, word_ngrams, pruned_size == 0], np.int64)
    tree = (
        _build_tree([count for _, count, _ in entries[word_count:]]) if loss == _HIERARCHICAL else np.zeros((0, 2), int)
    )
    return Model(labels, input, rows, loss, tree, _make_words(words, pruned, settings))


def _row_count(matrix: Matrix) -> int:
    return max(len(matrix.dense), len(matrix.codes))


def _read_matrix(reader: _Reader, is_quantised: bool) -> Matrix:
    nothing = np.zeros(0, np.float32)
    if not is_quantised:
        dense = reader.array("f4", *reader.values("qq"))
        return Matrix(dense, np.zeros((0, 0), np.uint8), nothing, nothing)
    has_norms, rows, _, size = reader.values("?qqi")
    codes = reader.array("u1", rows, size // rows)
    centroids = _read_centroids(reader)
    norms = nothing
    if has_norms:
        of_rows = reader.array("u1", rows)
        norms = _read_centroids(reader)[0, of_rows, 0]
    return Matrix(np.zeros((0, 0), np.float32), codes, centroids, norms)


def _read_centroids(reader: _Reader) -> NDArray[np.float32]:
    """``float32[parts, 256, width]``; the last part may be narrower, and is filled up with NaN."""
    dim, parts, width, last = reader.values("iiii")
    found = np.full((parts, _FULL, width), np.nan, np.float32)
    found[:-1] = reader.array("f4", parts - 1, _FULL, width)
    found[-1, :, :last] = reader.array("f4", _FULL, last)
    if width * (parts - 1) + last != dim:
        raise ValueError("parts do not make a row")
    return found


def rows_of(matrix: Matrix, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of a matrix: ``float32[ids, dim]``."""
    if not matrix.codes.size:
        return np.asarray(matrix.dense[ids], np.float32)
    parts = matrix.centroids[np.arange(matrix.codes.shape[1]), matrix.codes[ids]]
    rows = parts.reshape(len(ids), -1)
    rows = rows[:, ~np.isnan(matrix.centroids[:, 0].reshape(-1))]
    return rows * matrix.norms[ids, None] if matrix.norms.size else rows


def _build_tree(counts: list[int]) -> NDArray[np.int64]:
    """Huffman's tree of labels by their counts (in descending order), as fastText builds it."""
    leaves = len(counts)
    total = [*counts, *([10**15] * (leaves - 1))]
    children = np.full((2 * leaves - 1, 2), -1, np.int64)
    leaf, node = leaves - 1, leaves
    for parent in range(leaves, 2 * leaves - 1):
        for side in range(2):
            if leaf >= 0 and total[leaf] < total[node]:
                children[parent, side], leaf = leaf, leaf - 1
            else:
                children[parent, side], node = node, node + 1
        total[parent] = total[children[parent, 0]] + total[children[parent, 1]]
    return children


def _make_words(words: list[bytes], pruned: NDArray[np.int32], settings: NDArray[np.int64]) -> Words:
    data = np.frombuffer(b"".join(words), np.uint8)
    bounds = np.cumsum([0, *map(len, words)]).astype(np.int64)
    table = np.zeros(1 << max(4, (2 * len(words)).bit_length()), np.int32)
    _fill(data, bounds, table)
    return Words(data, bounds, table, pruned, settings)


# --- prediction -------------------------------------------------------------------------------------------------------


def predict(model: Model, text: bytes) -> Vote:
    """The likeliest label of a text (UTF-8), read as one line."""
    line = np.frombuffer(text + b" " + _EOS + b" ", np.uint8)
    ids = features(line, model.words)
    if not len(ids):
        return Vote("", 0.0)
    hidden = rows_of(model.input, ids).mean(axis=0)
    scores = (model.output @ hidden).astype(np.float64)
    if model.loss == _HIERARCHICAL:
        shares = _descend(scores, model.tree)[: len(model.labels)]
    elif model.loss == _SOFTMAX:
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
    else:
        shares = 1 / (1 + np.exp(-scores))
    best = int(np.argmax(shares))
    return Vote(model.labels[best], float(shares[best]))


def _descend(scores: NDArray[np.float64], tree: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of every node of the hierarchical softmax: a parent's, parted by the sigmoid of its score."""
    leaves = (len(tree) + 1) // 2
    shares = np.ones(len(tree))
    right = 1 / (1 + np.exp(-scores))
    for parent in range(len(tree) - 1, leaves - 1, -1):
        share = right[parent - leaves]
        shares[tree[parent, 0]] = shares[parent] * (1 - share)
        shares[tree[parent, 1]] = shares[parent] * share
    return shares


def features(line: NDArray[np.uint8], words: Words) -> NDArray[np.int64]:
    """The rows of the input that a line's words (between white space), their characters and their n-grams stand for."""
    longest, ngrams = int(words.settings[1]), int(words.settings[3])
    ids = np.zeros(len(line) * (1 + max(longest, 0)) + len(line) * max(ngrams, 1) + 8, np.int64)
    return ids[: _find_features(line, *words, ids)]


@compiled
def _hash(data: NDArray[np.uint8], start: int, end: int) -> Any:
    """FNV-1a of 32 bits, of signed bytes, as fastText's."""
    value = np.uint32(2166136261)
    for place in range(start, end):
        value = np.uint32((value ^ np.uint32(np.int8(data[place]))) * np.uint64(16777619))
    return value


@compiled
def _fill(data: NDArray[np.uint8], bounds: NDArray[np.int64], table: NDArray[np.int32]) -> None:
    mask = table.shape[0] - 1
    for word in range(bounds.shape[0] - 1):
        slot = np.int64(_hash(data, bounds[word], bounds[word + 1])) & mask
        while table[slot]:
            slot = (slot + 1) & mask
        table[slot] = word + 1


@compiled
def _find_word(
    line: NDArray[np.uint8], start: int, end: int, hashed: Any, data: NDArray[np.uint8], bounds: NDArray[np.int64],
    table: NDArray[np.int32],
) -> int:  # fmt: skip
    """The number of a word, or -1."""
    mask = table.shape[0] - 1
    slot = np.int64(hashed) & mask
    while table[slot]:
        word = table[slot] - 1
        first = bounds[word]
        if bounds[word + 1] - first == end - start:
            same = True
            for place in range(end - start):
                same &= data[first + place] == line[start + place]
            if same:
                return int(word)
        slot = (slot + 1) & mask
    return -1


@compiled
def _find_features(
    line: NDArray[np.uint8], data: NDArray[np.uint8], bounds: NDArray[np.int64], table: NDArray[np.int32],
    pruned: NDArray[np.int32], settings: NDArray[np.int64], ids: NDArray[np.int64],
) -> int:  # fmt: skip
    shortest, longest, buckets, ngrams = settings[0], settings[1], settings[2], settings[3]
    rows, used, words, start = bounds.shape[0] - 1, 0, 0, 0
    hashes = np.zeros(line.shape[0], np.uint64)
    for end in range(line.shape[0]):
        if not _is_space(line[end]):
            continue
        if end > start:
            hashed = _hash(line, start, end)
            word = _find_word(line, start, end, hashed, data, bounds, table)
            is_end = end + 1 == line.shape[0]
            if word >= 0:
                ids[used], used = word, used + 1
            if longest > 0 and not is_end:
                used = _add_characters(
                    line, start, end, shortest, longest, buckets, rows, pruned, settings[4], ids, used
                )
            hashes[words], words = np.uint64(np.int64(np.int32(hashed))), words + 1
        start = end + 1
    for first in range(words):
        key = hashes[first]
        for last in range(first + 1, min(first + ngrams, words)):
            key = key * np.uint64(116049371) + hashes[last]
            used = _add_bucket(np.int64(key % np.uint64(buckets)), rows, pruned, settings[4], ids, used)
    return used


@compiled
def _is_space(byte: Any) -> bool:
    return bool(byte == 0x20 or 0x09 <= byte <= 0x0D or byte == 0)


@compiled
def _add_bucket(bucket: Any, rows: int, pruned: NDArray[np.int32], none_left: int, ids: Any, used: int) -> int:
    if none_left:
        return used
    if pruned.shape[0]:
        if pruned[bucket] < 0:
            return used
        bucket = np.int64(pruned[bucket])
    ids[used] = rows + bucket
    return used + 1


@compiled
def _add_characters(
    line: NDArray[np.uint8], start: int, end: int, shortest: int, longest: int, buckets: int, rows: int,
    pruned: NDArray[np.int32], none_left: int, ids: NDArray[np.int64], used: int,
) -> int:  # fmt: skip
    """Add the n-grams of characters of a word between ``<`` and ``>``."""
    word = np.zeros(end - start + 2, np.uint8)
    word[0], word[-1] = 0x3C, 0x3E
    word[1:-1] = line[start:end]
    for first in range(word.shape[0]):
        if word[first] & 0xC0 == 0x80:
            continue
        last = first
        for size in range(1, longest + 1):
            if last >= word.shape[0]:
                break
            last += 1
            while last < word.shape[0] and word[last] & 0xC0 == 0x80:
                last += 1
            if size >= shortest and not (size == 1 and (first == 0 or last == word.shape[0])):
                bucket = np.int64(_hash(word, first, last)) % buckets
                used = _add_bucket(bucket, rows, pruned, none_left, ids, used)
    return used
