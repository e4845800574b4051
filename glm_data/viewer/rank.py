"""The rows of a pack that deserve a look: most padding, fewest targets, most byte pieces, fewest different tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from glm_data.kernels import compiled
from glm_data.loading.rows import PackedRows
from tokenizer import Tokenizer

SHOWN = 100
"""Rows of a ranking."""

_ROWS_AT_ONCE = 1 << 14
_MOST_ROWS_OF_TOKENS = 1 << 16
"""Rankings that read tokens look at so many rows at most, evenly apart: 270 MB of them."""


class Ranking(NamedTuple):
    """Rows, the worst first."""

    rows: list[int]
    values: list[float]
    """Of each row, as a share of the row or of its tokens."""
    looked_at: int
    """How many rows were measured: all, or as many evenly apart."""


def rank(pack: PackedRows, model: Tokenizer, by: str) -> Ranking:
    """The worst rows by one of :data:`MEASURES`; equal ones in order of their numbers."""
    measure, reads_tokens = MEASURES[by]
    step = -(-len(pack) // _MOST_ROWS_OF_TOKENS) if reads_tokens else 1
    wanted = np.arange(0, len(pack), step)
    portions = (wanted[first : first + _ROWS_AT_ONCE] for first in range(0, len(wanted), _ROWS_AT_ONCE))
    values = np.concatenate([measure(pack, model, rows) for rows in portions])
    worst = np.argsort(-values, kind="stable")[:SHOWN]
    return Ranking(wanted[worst].tolist(), values[worst].tolist(), len(wanted))


def _used(pack: PackedRows, rows: np.ndarray) -> np.ndarray:
    """``int64[len(rows)]``: the places that pieces take."""
    ends, flat = pack.shards.column("pieces", rows)
    pieces = flat.reshape(-1, 4)
    return _sums(pieces[:, 2] - pieces[:, 0], ends >> 2)


def _sums(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    return np.diff(total[ends])


def _padding(pack: PackedRows, _: Tokenizer, rows: np.ndarray) -> np.ndarray:
    return 1 - _used(pack, rows) / pack.seq_length


def _without_targets(pack: PackedRows, _: Tokenizer, rows: np.ndarray) -> np.ndarray:
    ends, flat = pack.shards.column("spans", rows)
    return 1 - _sums(flat.reshape(-1, 3)[:, 2], ends // 3) / pack.seq_length


def _byte_pieces(pack: PackedRows, model: Tokenizer, rows: np.ndarray) -> np.ndarray:
    first = next(id for id in range(model.pieces) if model.piece(id) == "<0x00>")
    counts = np.concatenate([_count_between(part, first, first + 256) for part in _tokens(pack, rows)])
    return counts / np.maximum(_used(pack, rows), 1)


def _repetition(pack: PackedRows, model: Tokenizer, rows: np.ndarray) -> np.ndarray:
    used, seen = _used(pack, rows), np.empty(model.vocab_size, np.int64)
    counts = np.zeros(len(rows), np.int64)
    place = 0
    for part in _tokens(pack, rows):
        _count_distinct(part, used[place : place + len(part)], seen, counts[place : place + len(part)])
        place += len(part)
    return 1 - counts / np.maximum(used, 1)


def _tokens(pack: PackedRows, rows: np.ndarray, at_once: int = 1024) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), at_once):
        yield pack.tokens(rows[first : first + at_once])


def _count_between(tokens: np.ndarray, low: int, high: int) -> np.ndarray:
    return ((tokens >= low) & (tokens < high)).sum(axis=1)


@compiled
def _count_distinct(tokens: np.ndarray, used: np.ndarray, seen: np.ndarray, counts: np.ndarray) -> None:
    """Fill in the different tokens among the first ``used`` of each row; ``seen`` (``int64[vocabulary]``) is room."""
    seen[:] = -1
    for row in range(len(tokens)):
        for place in range(used[row]):
            token = tokens[row, place]
            if 0 <= token < len(seen) and seen[token] != row:
                seen[token] = row
                counts[row] += 1


Measure = Callable[[PackedRows, Tokenizer, np.ndarray], np.ndarray]
MEASURES: dict[str, tuple[Measure, bool]] = {
    "padding": (_padding, False),
    "targets": (_without_targets, False),
    "bytes": (_byte_pieces, True),
    "repetition": (_repetition, True),
}
"""What rows are ranked by: the measure, largest is worst, and whether it reads tokens."""
