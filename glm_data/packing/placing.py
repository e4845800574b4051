"""Where the masks of a piece stand: one draw for every mask set, from the piece's key and the epoch.

How many spans a piece has and how long they are is part of its budget and the same in every epoch; a mask set decides
where they stand and in which order part B has them (for [gMASK]: where the context ends; for [sMASK]: which sentences).
So every mask set fits the same places, and a packed row can be masked anew from what is in it.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from glm_data.kernels import compiled
from glm_data.packing.rng import draw_below, mix
from glm_data.packing.spans import tokens_to_mask

HARD_END, SOFT_END, SPACE_START = 1, 2, 4
"""Bits of the sentence table: a piece that ends a sentence, one that does so before white space, one that begins with
white space."""

_SUFFIX, _TRIES = 0, 16
_EPOCH_GAMMA = np.uint64(0xD1B54A32D192ED03)


@compiled
def mask_key(key: np.uint64, epoch: int) -> np.uint64:
    """The key of a piece's mask set of ``epoch``; independent of the draws from ``key`` itself."""
    return mix(uint64(key) ^ ((uint64(epoch) + uint64(1)) * _EPOCH_GAMMA))


@compiled
def suffix_length(key: np.uint64, tokens: int, least: float) -> int:
    """How many of ``tokens`` a [gMASK] piece generates: uniform from ``least`` of them (one at least) to all."""
    shortest = max(1, int(least * tokens))
    return shortest + draw_below(key, _SUFFIX, tokens - shortest + 1)


@compiled
def place_spans(
    key: np.uint64, tokens: int, count: int, lengths: np.ndarray, starts: np.ndarray, order: np.ndarray
) -> None:
    """Place ``count`` spans in ``tokens`` tokens: fills ``starts`` (rising, no two spans touch) and ``order``.

    The lengths are shuffled first, the free tokens are dealt by sorted independent draws (as GLM-130B's collator
    does), and ``order`` is the random order of the spans in part B.
    """
    counter = _shuffle(key, 0, lengths, count)
    free = tokens - count + 1
    for index in range(count):
        free -= lengths[index]
    for index in range(count):
        place = draw_below(key, counter + index, free + 1)
        slot = index
        while slot > 0 and starts[slot - 1] > place:
            starts[slot] = starts[slot - 1]
            slot -= 1
        starts[slot] = place
    offset = 0
    for index in range(count):
        starts[index] += offset
        offset += lengths[index] + 1
    _random_order(key, counter + count, order, count)


@compiled
def sentence_ends(text: np.ndarray, table: np.ndarray, before: np.ndarray) -> None:
    """Fill ``before[: n + 1]``: how many of the first ``i`` tokens of ``text`` end a sentence.

    ``table`` is ``uint8[ids]`` of the bits above. The mark of 3.14 ends nothing, as no white space follows it.
    """
    before[0] = 0
    for at in range(len(text)):
        bits = _bits(table, text[at])
        ends = bits & HARD_END != 0
        if not ends and bits & SOFT_END:
            ends = at + 1 == len(text) or _bits(table, text[at + 1]) & SPACE_START != 0
        before[at + 1] = before[at] + ends


@compiled
def _bits(table: np.ndarray, token: int) -> int:
    return table[token] if 0 <= token < len(table) else 0  # a damaged row may hold any number


@compiled
def place_in_sentences(
    key: np.uint64,
    tokens: int,
    count: int,
    lengths: np.ndarray,
    starts: np.ndarray,
    order: np.ndarray,
    before: np.ndarray,
    taken: np.ndarray,
) -> None:
    """:func:`place_spans`, but no span crosses a sentence end while some sentence has room for it.

    ``before`` is of :func:`sentence_ends`, ``taken`` scratch of ``tokens + 2``. The longest span chooses first: a
    random place, then the next one where it fits. Where no sentence can hold it, it crosses one.
    """
    for at in range(tokens + 2):
        taken[at] = 0
    counter = 0
    for index in range(count - 1, -1, -1):  # lengths come rising
        start = _free_place(key, counter, tokens, lengths[index], before, taken)
        counter += _TRIES
        if start < 0:
            place_spans(key, tokens, count, lengths, starts, order)
            return
        starts[index] = start
        for at in range(start, start + lengths[index]):
            taken[at + 1] = 1  # shifted by one, so that the neighbours of any place exist
    _sort_together(starts, lengths, count)
    _random_order(key, counter, order, count)


@compiled
def _free_place(key: np.uint64, counter: int, tokens: int, length: int, before: np.ndarray, taken: np.ndarray) -> int:
    """A place for a span that touches no other; within one sentence if there is such a place, -1 if there is none."""
    places, start = tokens - length + 1, 0
    for attempt in range(_TRIES):
        start = draw_below(key, counter + attempt, places)
        if before[start + length - 1] == before[start] and _is_free(start, length, taken):
            return start
    for whole in (True, False):
        for step in range(places):
            at = (start + step) % places
            if (not whole or before[at + length - 1] == before[at]) and _is_free(at, length, taken):
                return at
    return -1


@compiled
def _is_free(start: int, length: int, taken: np.ndarray) -> bool:
    return not taken[start : start + length + 2].any()


@compiled
def _sort_together(starts: np.ndarray, lengths: np.ndarray, count: int) -> None:
    for index in range(1, count):
        start, length, slot = starts[index], lengths[index], index
        while slot > 0 and starts[slot - 1] > start:
            starts[slot], lengths[slot] = starts[slot - 1], lengths[slot - 1]
            slot -= 1
        starts[slot], lengths[slot] = start, length


@compiled
def choose_sentences(
    key: np.uint64,
    tokens: int,
    most: int,
    rate: float,
    before: np.ndarray,
    lengths: np.ndarray,
    starts: np.ndarray,
    order: np.ndarray,
    bounds: np.ndarray,
    chosen: np.ndarray,
) -> int:
    """Mask whole sentences of an [sMASK] piece until ``rate`` of its tokens is; returns the spans, at most ``most``.

    Original GLM (Du et al. 2022, section 2.1): sentences in random order until 15 % is masked. A span here is a run of
    sentences: neighbours are one span, short ones are joined so that ``most`` spans suffice, and a sentence longer than
    the tokens to mask is cut, so that no piece loses more than twice as many. ``bounds`` and ``chosen`` are scratch of
    ``tokens + 2``.
    """
    needed = tokens_to_mask(tokens, rate)
    sentences = _cut_at_ends(tokens, needed, before, bounds)
    for at in range(sentences):
        chosen[at] = 0
    masked, counter, runs = 0, 0, 0
    while masked < needed and runs < most:
        wanted = (needed - masked + most - runs - 1) // (most - runs)
        at = draw_below(key, counter, sentences)
        counter += 1
        while chosen[at]:
            at = at + 1 if at + 1 < sentences else 0
        taken = 0
        while at < sentences and not chosen[at] and taken < wanted:
            chosen[at] = 1
            taken += bounds[at + 1] - bounds[at]
            at += 1
        masked += taken
        runs += 1
    _extend_runs(needed - masked, sentences, bounds, chosen)
    count = _runs_as_spans(sentences, bounds, chosen, starts, lengths)
    _random_order(key, counter, order, count)
    return count


@compiled
def _cut_at_ends(tokens: int, longest: int, before: np.ndarray, bounds: np.ndarray) -> int:
    """Fill ``bounds`` with where sentences begin, and the end; returns how many there are, none above ``longest``."""
    sentences, begin = 0, 0
    bounds[0] = 0
    for at in range(1, tokens + 1):
        if at == tokens or before[at] != before[at - 1] or at - begin == longest:
            sentences += 1
            bounds[sentences] = at
            begin = at
    return sentences


@compiled
def _extend_runs(missing: int, sentences: int, bounds: np.ndarray, chosen: np.ndarray) -> None:
    """Add neighbours of what is chosen until ``missing`` more tokens are: first those behind, then those before."""
    for at in range(1, sentences):
        if missing > 0 and chosen[at - 1] and not chosen[at]:
            chosen[at] = 1
            missing -= bounds[at + 1] - bounds[at]
    for at in range(sentences - 2, -1, -1):
        if missing > 0 and chosen[at + 1] and not chosen[at]:
            chosen[at] = 1
            missing -= bounds[at + 1] - bounds[at]


@compiled
def _runs_as_spans(
    sentences: int, bounds: np.ndarray, chosen: np.ndarray, starts: np.ndarray, lengths: np.ndarray
) -> int:
    count = 0
    for at in range(sentences):
        if not chosen[at]:
            continue
        if at > 0 and chosen[at - 1]:
            lengths[count - 1] += bounds[at + 1] - bounds[at]
        else:
            starts[count], lengths[count] = bounds[at], bounds[at + 1] - bounds[at]
            count += 1
    return count


@compiled
def _random_order(key: np.uint64, counter: int, order: np.ndarray, count: int) -> None:
    for index in range(count):
        order[index] = index
    _shuffle(key, counter, order, count)


@compiled
def _shuffle(key: np.uint64, counter: int, values: np.ndarray, count: int) -> int:
    """Fisher-Yates over ``values[:count]``; returns the next free counter."""
    for last in range(count - 1, 0, -1):
        other = draw_below(key, counter, last + 1)
        counter += 1
        values[last], values[other] = values[other], values[last]
    return counter
