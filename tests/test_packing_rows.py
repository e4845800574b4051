"""Layout, assemble and invert against GLM-130B's own collator (golden vectors) and a naive twin."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.packing import masking as packing
from glm_data.packing.masking import invert
from glm_data.packing.placing import place_spans
from glm_data.packing.rng import PIECE, make_key
from glm_data.packing.rows import GMASK, MASK, MIP, Rows, assemble
from glm_data.packing.spans import length_table, most_spans, piece_budget, threshold

GOLDEN_FILE = Path(__file__).parent / "golden/blank_infilling.jsonl"
GOLDEN = [json.loads(line) for line in GOLDEN_FILE.read_text().splitlines()]
MASK_ID, GMASK_ID, SOP, EOP = 9000, 9001, 9004, 9005
FACTS_SOURCE = list(range(11, 23))


def one_row(tokens, pieces, spans, tails=()):
    return Rows(
        tokens=np.array([tokens], np.int32),
        piece_offsets=np.array([0, len(pieces)]),
        pieces=np.array(pieces, np.int32).reshape(-1, 4),
        span_offsets=np.array([0, len(spans)]),
        spans=np.array(spans, np.int32).reshape(-1, 3),
        tail_offsets=np.array([0, len(tails)]),
        tails=np.array(tails, np.int32),
    )


def lay_out(vector) -> Rows:
    kind = vector["kind"]
    row, spans = np.zeros(len(vector["tokens"]), np.int32), np.zeros((64, 3), np.int32)
    if kind == "MASK":
        text, part_b = np.array(vector["source"]), vector["spans_in_part_b_order"]
        rising = sorted(part_b)
        starts = np.array([start for start, _ in rising], np.int64)
        lengths = np.array([end - start for start, end in rising], np.int64)
        order = np.array([rising.index(span) for span in part_b], np.int64)
        sep, end = packing.lay_out_mask(row, 0, text, len(part_b), lengths, starts, order, MASK_ID, SOP, spans, 0)
        return one_row(row, [(0, sep, end, MASK)], spans[: len(part_b)])
    if kind == "gMASK":
        text = np.array(vector["source"])
        prefix = vector["prefix"]
        sep, end = packing.lay_out_suffix(row, 0, text[:prefix], text[prefix:-1], GMASK_ID, SOP, spans, 0)
        return one_row(row, [(0, sep, end, GMASK)], spans[:1], text[-1:])
    prompt, target = np.array(vector["prompt"]), np.array(vector["target"])
    sep, end = packing.lay_out_suffix(row, 0, prompt, target, MASK_ID, SOP, spans, 0)
    return one_row(row, [(0, sep, end, MIP)], spans[:1])


@pytest.mark.parametrize("vector", GOLDEN, ids=lambda vector: vector["kind"])
def test_golden_vectors_of_the_official_collator(vector):
    rows = lay_out(vector)
    derived = assemble(rows, EOP)
    assert rows.tokens[0].tolist() == vector["tokens"]
    assert rows.pieces[0, 1] == vector["sep"]
    assert derived.loss_mask[0].tolist() == vector["loss_mask"]
    assert derived.position_ids[0].tolist() == vector["positions"]
    counted = np.array(vector["loss_mask"], bool)
    assert derived.targets[0][counted].tolist() == np.array(vector["targets"])[counted].tolist()


def test_all_three_kinds_are_in_the_golden_file():
    assert {vector["kind"] for vector in GOLDEN} == {"MASK", "gMASK", "MIP"}


def test_the_facts_example_of_a_mask_row():
    vector = {"kind": "MASK", "source": FACTS_SOURCE, "spans_in_part_b_order": [[7, 10], [2, 4]], "tokens": [0] * 16}
    rows = lay_out(vector)
    m = MASK_ID
    assert rows.tokens[0].tolist() == [11, 12, m, 15, 16, 17, m, 21, 22, SOP, 18, 19, 20, SOP, 13, 14]
    derived = assemble(rows, EOP)
    assert derived.targets[0, 9:].tolist() == [18, 19, 20, EOP, 13, 14, EOP]
    assert derived.position_ids[0].tolist() == [*range(9), 6, 6, 6, 6, 2, 2, 2]
    assert invert(rows, 0, EOP)[0].tolist() == FACTS_SOURCE


def sampled_piece(seed: int, window: int, available: int, short=0.02, single=0.02):
    key = np.uint64(make_key(seed, 0, 0, PIECE))
    lengths = np.zeros(most_spans(window), np.int64)
    table = length_table(3, 39)
    tokens, count = piece_budget(key, window, available, 0.15, threshold(short), threshold(single), table, lengths)
    lengths[:count].sort()
    starts, order = np.zeros(max(count, 1), np.int64), np.zeros(max(count, 1), np.int64)
    place_spans(key, tokens, count, lengths, starts, order)
    return tokens, lengths[:count], starts[:count], order[:count]


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**62), window=st.integers(3, 700), available=st.integers(1, 700))
def test_the_budget_is_exact_and_spans_never_touch(seed, window, available):
    tokens, lengths, starts, order = sampled_piece(seed, window, available)
    assert 1 <= tokens <= available
    assert tokens + 2 * len(lengths) <= window
    assert (lengths >= 1).all()
    assert starts[0] >= 0
    assert starts[-1] + lengths[-1] <= tokens
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all(), "at least one token between two spans"
    assert sorted(order) == list(range(len(order)))


@settings(deadline=None, max_examples=200)
@given(seed=st.integers(0, 2**62), window=st.integers(64, 2048))
def test_an_ordinary_piece_fills_its_window_and_masks_enough(seed, window):
    tokens, lengths, _, _ = sampled_piece(seed, window, 10_000, short=0.0, single=0.0)
    assert window - 2 <= tokens + 2 * len(lengths) <= window
    assert lengths.sum() >= 0.15 * tokens - 1e-9
    assert lengths.sum() - lengths.max() < 0.15 * tokens, "no span more than needed"


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**62), window=st.integers(3, 300), available=st.integers(1, 300), data=st.data())
def test_inverting_a_laid_out_piece_restores_the_text(seed, window, available, data):
    tokens, lengths, starts, order = sampled_piece(seed, window, available)
    text = np.array(data.draw(st.lists(st.integers(10, 8999), min_size=tokens, max_size=tokens)))
    row, spans = np.zeros(window, np.int32), np.zeros((len(lengths), 3), np.int32)
    sep, end = packing.lay_out_mask(row, 0, text, len(lengths), lengths, starts, order, MASK_ID, SOP, spans, 0)
    assert end == tokens + 2 * len(lengths)
    rows = one_row(row, [(0, sep, end, MASK)], spans)
    assert invert(rows, 0, EOP)[0].tolist() == text.tolist()
    assert assemble(rows, EOP).loss_mask.sum() == lengths.sum() + len(lengths)


def test_span_lengths_follow_the_published_table():
    table = length_table(3, 39)
    shares = np.diff(np.concatenate([[0], table.astype(float)])) / 2**32
    assert shares[:5].round(3).tolist() == [0.157, 0.236, 0.236, 0.177, 0.106]
    assert (shares * np.arange(1, 40)).sum() == pytest.approx(3.157, abs=5e-4)
    drawn = np.concatenate([sampled_piece(seed, 512, 10_000, 0.0, 0.0)[1] for seed in range(400)])
    assert drawn.mean() == pytest.approx(3.157, abs=0.08)


def test_the_sampler_is_pinned_by_a_golden_draw():
    tokens, lengths, starts, order = sampled_piece(1234, 64, 1000)
    assert (tokens, lengths.tolist(), starts.tolist(), order.tolist()) == PINNED


PINNED = (58, [6, 1, 3], [24, 35, 38], [1, 0, 2])
