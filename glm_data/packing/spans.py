"""The exact budget of blank infilling: how many tokens a piece takes, in how many spans of which lengths.

GLM-130B (paper section 2.2) masks at least 15 % of a [MASK] piece in spans of zero-truncated Poisson(3) length. Its
collator took 500 tokens for a 512-token window and cut what did not fit: 36 % of the targets. Here the window is the
budget: a piece of ``n`` tokens with ``k`` spans takes ``n + 2 k`` places (a mask and an ``<sop>`` a span), and ``n`` is
chosen as large as fits, so that no target is ever cut. Where the spans stand is decided apart from it, anew for every
mask set (:mod:`glm_data.packing.placing`).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import factorial

import numpy as np
from numba import njit

from glm_data.kernels import compiled
from glm_data.packing.rng import draw, draw_below

_SHORT, _SHORT_LENGTH, _SINGLE, _LENGTHS = 0, 1, 2, 16
_MIN_SHORT = 32
_SENTENCE_TOKENS = 16
_PROBABILITY_ONE = 1 << 32


@lru_cache(maxsize=8)
def length_table(mean: float, longest: int) -> np.ndarray:
    """``uint64[longest]``: cumulative thresholds in 2**-32 of a Poisson(``mean``) cut to 1 .. ``longest``.

    Length ``i + 1`` is drawn when a 32-bit draw is below entry ``i`` and not below entry ``i - 1``. Computed with exact
    fractions, so that the table is the same on every machine. GLM-130B: mean 3, longest 39 (a mean length of 3.157).
    """
    rate = Fraction(str(mean))
    weights = [rate**length / factorial(length) for length in range(1, longest + 1)]
    total, running, thresholds = sum(weights), Fraction(0), []
    for weight in weights:
        running += weight
        thresholds.append(int(running / total * _PROBABILITY_ONE))
    return np.array(thresholds, np.uint64)


def threshold(probability: float) -> int:
    """The number of 32-bit draws that count as a hit for ``probability``."""
    return int(Fraction(str(probability)) * _PROBABILITY_ONE)


@njit(cache=True, inline="always")  # a call would count references to the table, which costs more than the draw
def draw_length(key: np.uint64, counter: int, table: np.ndarray) -> int:
    """One span length (1 .. ``len(table)``) by inversion of the cumulative table."""
    word = draw(key, counter)
    length = 0
    while length < len(table) - 1 and word >= table[length]:
        length += 1
    return length + 1


@compiled
def tokens_to_mask(tokens: int, rate: float) -> int:
    """The tokens to mask in a piece of ``tokens``: ``ceil(rate * tokens)``, at least one."""
    return max(1, int(np.ceil(tokens * rate - 1e-9)))


@compiled
def _largest_that_fits(
    key: np.uint64, window: int, available: int, rate: float, table: np.ndarray, lengths: np.ndarray
) -> tuple[int, int]:
    """The largest ``n <= available`` with ``n + 2 k(n) <= window``, k(n) the first spans that mask enough of n."""
    masked, served = 0, 0
    for count in range(1, len(lengths) + 1):
        lengths[count - 1] = draw_length(key, _LENGTHS + count, table)
        masked += lengths[count - 1]
        room = min(window - 2 * count, available)
        if served >= room:
            return served, count - 1
        enough_for = int(masked / rate + 1e-9)
        if enough_for >= room:
            return room, count
        served = enough_for
    return served, len(lengths)


@compiled
def _spans_needed(tokens: int, count: int, rate: float, lengths: np.ndarray) -> int:
    masked = 0
    for used in range(count):
        masked += lengths[used]
        if masked >= tokens_to_mask(tokens, rate):
            return used + 1
    return count


@compiled
def _trim(tokens: int, count: int, lengths: np.ndarray) -> int:
    """Shorten the last spans until all of them, one token apart, fit into ``tokens``; returns the spans left."""
    taken = count - 1
    for index in range(count):
        taken += lengths[index]
    while taken > tokens:
        if lengths[count - 1] > 1:
            lengths[count - 1] -= 1
            taken -= 1
        else:
            count -= 1
            taken -= 2
    return count


@compiled
def piece_budget(
    key: np.uint64,
    window: int,
    available: int,
    rate: float,
    short: int,
    single: int,
    table: np.ndarray,
    lengths: np.ndarray,
) -> tuple[int, int]:
    """Decide a [MASK] piece from its key alone: returns (tokens, spans) and fills ``lengths[:spans]``.

    ``available`` text tokens are left and ``window`` places are free; at least ``rate`` of the tokens is masked.
    ``short`` and ``single`` are :func:`threshold` values of a piece cut to a random shorter length and of a piece with
    one span only (2 % each in GLM-130B). Always ``tokens + 2 * spans <= window``, spans fit with a token between them,
    and (0, 0) means that no piece fits.
    """
    if available < 1 or window < 3:
        return 0, 0
    if draw(key, _SINGLE) < single:
        tokens, count = min(available, window - 2), 1
        lengths[0] = draw_length(key, _LENGTHS, table)
    else:
        tokens, count = _largest_that_fits(key, window, available, rate, table, lengths)
    if tokens > _MIN_SHORT and draw(key, _SHORT) < short:
        tokens = _MIN_SHORT + draw_below(key, _SHORT_LENGTH, tokens - _MIN_SHORT)
        count = _spans_needed(tokens, count, rate, lengths)
    return tokens, _trim(tokens, count, lengths)


@compiled
def most_spans(places: int) -> int:
    """An upper bound of the spans of a piece in ``places`` places: a mask and an ``<sop>`` each."""
    return places // 2 + 1


@compiled
def sort_few(values: np.ndarray, count: int) -> None:
    """Insertion sort of ``values[:count]``: some dozens of small numbers, where a general sort costs ten times more."""
    for index in range(1, count):
        value, slot = values[index], index
        while slot > 0 and values[slot - 1] > value:
            values[slot] = values[slot - 1]
            slot -= 1
        values[slot] = value


@compiled
def sentence_spans(tokens: int, rate: float) -> int:
    """The spans that an [sMASK] piece of ``tokens`` may have: one for every 16 tokens to mask.

    A plan knows lengths alone, not where sentences end; a sentence of ordinary length takes one span of fewer.
    """
    return (tokens_to_mask(tokens, rate) + _SENTENCE_TOKENS - 1) // _SENTENCE_TOKENS


@compiled
def sentence_budget(window: int, available: int, rate: float) -> tuple[int, int]:
    """(tokens, spans) of an [sMASK] piece: the most tokens with ``tokens + 2 * spans <= window``; (0, 0) if none."""
    tokens = min(available, window - 2)
    while tokens > 0 and tokens + 2 * sentence_spans(tokens, rate) > window:
        tokens -= 1
    return (tokens, sentence_spans(tokens, rate)) if tokens > 0 else (0, 0)
