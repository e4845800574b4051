"""Mask sets: packed rows led back to their text and masked anew, sentences respected, damage refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packing_plan import SENTENCES, SPECIALS, STREAM, build, fill_rows, variant

from glm_data.packing.job import mask_rule
from glm_data.packing.masking import invert, lay_out, remask, restore
from glm_data.packing.options import PackOptions, resolve
from glm_data.packing.placing import (
    HARD_END,
    SOFT_END,
    SPACE_START,
    choose_sentences,
    mask_key,
    place_in_sentences,
    place_spans,
    sentence_ends,
    suffix_length,
)
from glm_data.packing.rows import GMASK, MASK, MIP, SMASK, MisfitRowError, Rows, assemble, check_fit
from glm_data.packing.spans import sentence_budget, sentence_spans, tokens_to_mask

IN_SENTENCES = PackOptions(span_bounds="sentences")
GLM_10B = PackOptions(preset="glm-10b")
OPTIONS = {"stream": STREAM, "documents": PackOptions(), "in_sentences": IN_SENTENCES, "glm-10b": GLM_10B}


@pytest.fixture(scope="module", params=list(OPTIONS))
def packed(request):
    """Some rows of every kind: (plan, rows, recipe, refill(epoch))."""
    options = OPTIONS[request.param]
    text, _, mip, plan, rows = build(60_000, 40, options, documents=100)
    recipe = resolve(options)
    return plan, rows, recipe, lambda epoch: fill_rows(plan, 0, plan.rows, text, mip, recipe, epoch)


def same(left: Rows, right: Rows) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in Rows.__dataclass_fields__)


def rule_of(recipe):
    return mask_rule(recipe, SENTENCES)


# --- back and forth ---------------------------------------------------------------------------------------------------


def naive_invert(rows: Rows, row: int) -> list[list[int]]:
    """Masks undone, one token after the other."""
    tokens, tails = rows.tokens[row].tolist(), rows.row_tails(row).tolist()
    spans = {mask: (start, length) for mask, start, length in rows.row_spans(row).tolist()}
    found = []
    for start, sep, _, kind in rows.row_pieces(row).tolist():
        piece = []
        for place in range(start, sep):
            if place in spans:
                first, length = spans[place]
                piece += tokens[first + 1 : first + length]
            else:
                piece.append(tokens[place])
        if kind == GMASK and (tail := tails.pop(0)) != SPECIALS.eop:
            piece.append(tail)
        found.append(piece)
    return found


def test_inverting_equals_the_plain_twin(packed):
    _, rows, _, _ = packed
    for row in range(len(rows)):
        assert [ids.tolist() for ids in invert(rows, row, SPECIALS.eop)] == naive_invert(rows, row)


def test_laying_out_what_was_restored_gives_the_rows_themselves(packed):
    plan, rows, recipe, _ = packed
    texts = restore(rows, SPECIALS.eop, plan.pieces.key)
    assert same(lay_out(texts, 0, rule_of(recipe), SPECIALS, recipe.seq_length), rows)
    assert same(remask(rows, plan.pieces.key, 0, rule_of(recipe), SPECIALS), rows)


@pytest.mark.parametrize("epoch", [1, 2, 63])
def test_masking_anew_gives_what_the_packer_writes_for_that_epoch(packed, epoch):
    plan, rows, recipe, refill = packed
    again = remask(rows, plan.pieces.key, epoch, rule_of(recipe), SPECIALS)
    assert same(again, refill(epoch))
    for row in range(len(rows)):
        assert naive_invert(again, row) == naive_invert(rows, row), "the same text under other masks"
    changed = np.array([not np.array_equal(a, b) for a, b in zip(again.tokens, rows.tokens, strict=True)])
    text = np.array([(rows.row_pieces(row)[:, 3] != MIP).any() for row in range(len(rows))])
    assert changed[text].mean() > 0.99
    assert not changed[~text].any(), "an instruction has one mask"


def test_an_epoch_and_a_rule_for_each_row_are_taken_row_by_row(packed):
    plan, rows, recipe, refill = packed
    epochs = np.arange(len(rows)) % 3
    rule = rule_of(recipe)
    columns = (np.full(len(rows), value) for value in (rule.gmask_least, rule.mask_rate, rule.in_sentences))
    mixed = remask(rows, plan.pieces.key, epochs, type(rule)(*columns, rule.sentence_table), SPECIALS)
    for epoch in range(3):
        assert np.array_equal(mixed.tokens[epochs == epoch], refill(epoch).tokens[epochs == epoch])


def test_spans_of_later_epochs_are_spread_as_evenly_as_those_of_the_first():
    text, _, mip, plan, _ = build(400_000, 0, variant(STREAM, mask_share=1.0))
    recipe = resolve(variant(STREAM, mask_share=1.0))
    hits = np.zeros(len(text))
    at = np.concatenate([[0], np.cumsum(plan.pieces.tokens)])
    for epoch in range(6):
        masked = restored_masks(fill_rows(plan, 0, plan.rows, text, mip, recipe, epoch))
        for piece, places in enumerate(masked):
            hits[at[piece] + places] += 1
    share = np.bincount(hits.astype(int), minlength=7)[:3] / len(hits)
    rate = hits.mean() / 6
    independent = [(1 - rate) ** 6, 6 * rate * (1 - rate) ** 5, 15 * rate**2 * (1 - rate) ** 4]
    assert share == pytest.approx(independent, abs=0.01), "the masks of six epochs are independent of each other"


def restored_masks(rows: Rows) -> list[np.ndarray]:
    """For each [MASK] piece the places of its text that are masked."""
    found = []
    for row in range(len(rows)):
        for start, sep, end, _ in rows.row_pieces(row).tolist():
            spans = [span for span in rows.row_spans(row).tolist() if sep <= span[1] < end]
            before, places = 0, []
            for mask, _, length in sorted(spans):
                first = mask - start + before
                places += range(first, first + length - 1)
                before += length - 2
            found.append(np.array(places))
    return found


# --- sentences --------------------------------------------------------------------------------------------------------

TABLE = np.array([0, HARD_END, SOFT_END, SPACE_START], np.uint8)


@settings(deadline=None, max_examples=200)
@given(text=st.lists(st.integers(0, 5), max_size=60))
def test_sentence_ends_equal_the_plain_twin(text):
    before = np.zeros(len(text) + 1, np.int32)
    sentence_ends(np.array(text, np.int32), TABLE, before)
    bits = [int(TABLE[token]) if token < len(TABLE) else 0 for token in text]
    following = [*(bit & SPACE_START for bit in bits[1:]), SPACE_START]
    ends = [bool(bit & HARD_END or (bit & SOFT_END and space)) for bit, space in zip(bits, following, strict=False)]
    assert before.tolist() == np.cumsum([0, *ends]).tolist()


@settings(deadline=None, max_examples=200)
@given(data=st.data(), tokens=st.integers(1, 300), key=st.integers(0, 2**63))
def test_spans_keep_within_sentences_that_have_room_for_them(data, tokens, key):
    ends = data.draw(st.lists(st.integers(0, tokens - 1), max_size=tokens // 12))
    before = np.concatenate([[0], np.cumsum(np.isin(np.arange(tokens), ends))]).astype(np.int32)
    lengths = np.sort(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=max(1, tokens // 20))))
    while lengths.sum() + len(lengths) - 1 > tokens:
        lengths = lengths[:-1] if len(lengths) > 1 else np.array([1])
    lengths, wanted = lengths.astype(np.int64), sorted(lengths.tolist())
    starts, order = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    taken = np.zeros(tokens + 2, np.int32)
    place_in_sentences(np.uint64(key), tokens, len(lengths), lengths, starts, order, before, taken)
    assert sorted(lengths.tolist()) == wanted
    assert starts[0] >= 0
    assert starts[-1] + lengths[-1] <= tokens
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all(), "no two spans touch"
    assert sorted(order) == list(range(len(lengths)))
    crossing = before[starts + lengths - 1] != before[starts]
    longest = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(before)) + 1, [tokens]])).max()
    roomy = longest >= lengths.sum() + 2 * len(lengths) + lengths.max()
    assert not (crossing.any() and roomy), "one sentence could have held them all"


def test_real_pieces_cross_no_sentence_end_by_option_and_many_without():
    crossings = {}
    for name, options in {"tokens": PackOptions(), "sentences": IN_SENTENCES}.items():
        _, _, _, _, rows = build(100_000, 0, variant(options, mask_share=1.0), documents=300)
        spans = rows.spans.tolist()
        row_of = np.repeat(np.arange(len(rows)), np.diff(rows.span_offsets))
        inner = [rows.tokens[row_of[at], first + 1 : first + n - 1] for at, (_, first, n) in enumerate(spans)]
        crossings[name] = sum(bool((SENTENCES[ids] & HARD_END).any()) for ids in inner) / len(spans)
    assert crossings["tokens"] > 0.08
    assert crossings["sentences"] < 0.002


@settings(deadline=None, max_examples=200)
@given(data=st.data(), tokens=st.integers(1, 400), key=st.integers(0, 2**63), rate=st.sampled_from([0.05, 0.15, 0.4]))
def test_whole_sentences_are_masked_until_enough_is(data, tokens, key, rate):
    ends = data.draw(st.lists(st.integers(0, tokens - 1), max_size=tokens // 3))
    before = np.concatenate([[0], np.cumsum(np.isin(np.arange(tokens), ends))]).astype(np.int32)
    most, needed = sentence_spans(tokens, rate), tokens_to_mask(tokens, rate)
    lengths, starts, order = (np.zeros(tokens + 2, np.int64) for _ in range(3))
    bounds, chosen = np.zeros(tokens + 2, np.int32), np.zeros(tokens + 2, np.int32)
    count = choose_sentences(np.uint64(key), tokens, most, rate, before, lengths, starts, order, bounds, chosen)
    starts, lengths = starts[:count], lengths[:count]
    assert 1 <= count <= most
    assert needed <= lengths.sum() <= 2 * needed
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all(), "neighbours are one span"
    cuts = {0, tokens, *(end + 1 for end in ends)}
    for place in {*starts.tolist(), *(starts + lengths).tolist()} - cuts:
        last = max(cut for cut in cuts if cut < place)
        assert (place - last) % needed == 0, "only a sentence longer than what is to mask is cut"


@settings(deadline=None, max_examples=200)
@given(window=st.integers(3, 3000), available=st.integers(1, 4000), rate=st.sampled_from([0.05, 0.15, 0.9]))
def test_the_budget_of_sentences_is_the_largest_that_fits(window, available, rate):
    tokens, count = sentence_budget(window, available, rate)
    fitting = [n for n in range(1, available + 1) if n + 2 * sentence_spans(n, rate) <= window]
    assert tokens == (max(fitting) if fitting else 0)
    assert count == (sentence_spans(tokens, rate) if tokens else 0)


def test_the_shares_of_glm_10b_are_those_of_its_script():
    _, _, _, _, rows = build(1_500_000, 0, GLM_10B)
    kinds = rows.pieces[:, 3]
    assert [(kinds == kind).mean() for kind in (MASK, SMASK, GMASK)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    derived = assemble(rows, SPECIALS.eop)
    suffix = (rows.pieces[:, 2] - rows.pieces[:, 1])[kinds == GMASK][:-1] / 511
    assert suffix.min() >= 0.248
    assert suffix.mean() == pytest.approx(0.625, abs=0.02)
    sentences = np.flatnonzero(kinds == SMASK)  # one piece a row
    spans = np.diff(rows.span_offsets)[sentences]
    assert ((rows.tokens[sentences] == SPECIALS.smask).sum(1) == spans).all()
    masked = derived.loss_mask[sentences].sum(1) - spans
    source = rows.pieces[sentences, 1] - spans + masked
    assert (masked >= 0.15 * source).all()
    assert (masked <= 0.3 * source + 2).all()


# --- draws ------------------------------------------------------------------------------------------------------------


def test_suffixes_are_uniform_from_the_least_share_to_all():
    draws = np.array([suffix_length(np.uint64(mask_key(np.uint64(n), 0)), 1000, 0.2) for n in range(20_000)])
    assert (draws.min(), draws.max()) == (200, 1000)
    counts = np.bincount((draws - 200) // 100, minlength=8)[:8]
    assert counts / 20_000 == pytest.approx(np.full(8, 100 / 801), abs=0.01)


def test_draws_are_pinned():
    starts, order, lengths = np.zeros(3, np.int64), np.zeros(3, np.int64), np.array([1, 2, 4])
    place_spans(np.uint64(mask_key(np.uint64(7), 2)), 40, 3, lengths, starts, order)
    assert (lengths.tolist(), starts.tolist(), order.tolist()) == PINNED


PINNED = ([4, 2, 1], [19, 29, 36], [2, 0, 1])


# --- damage -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_rows_that_no_packer_writes_are_refused_or_restored_without_harm(data):
    mixed = variant(PackOptions(), seq_length=256, sentence_share=0.3)
    _, _, _, plan, rows = build(3000, 6, mixed, documents=12)
    pieces, spans = rows.pieces.copy(), rows.spans.copy()
    for _ in range(data.draw(st.integers(1, 3))):
        table = data.draw(st.sampled_from([pieces, spans]))
        row = data.draw(st.integers(0, len(table) - 1))
        column = data.draw(st.integers(0, table.shape[1] - 1))
        near = st.integers(0, 4) if table is pieces and column == 3 else st.integers(0, 256)
        table[row, column] = data.draw(near | st.sampled_from(table[:, column].tolist()) | st.integers(0, 65_535))
    broken = Rows(rows.tokens, rows.piece_offsets, pieces, rows.span_offsets, spans, rows.tail_offsets, rows.tails)
    try:
        texts = restore(broken, SPECIALS.eop, plan.pieces.key)
    except MisfitRowError:
        return
    assert len(texts.text) <= (pieces[:, 2] - pieces[:, 0]).sum()
    recipe = resolve(mixed)
    try:
        again = lay_out(texts, 1, rule_of(recipe), SPECIALS, 256)
    except MisfitRowError:
        return
    check_fit(again)


@pytest.mark.parametrize("kind", [GMASK, MASK, MIP, SMASK])
def test_a_kind_that_was_changed_never_leads_out_of_the_row(kind):
    _, _, _, plan, rows = build(40_000, 60, variant(PackOptions(), seq_length=256, sentence_share=0.2), documents=200)
    recipe = resolve(variant(PackOptions(), seq_length=256, sentence_share=0.2))
    refused = 0
    for row in range(len(rows)):
        one = rows.take(np.array([row]))
        one.pieces[:, 3] = np.where(one.pieces[:, 3] == GMASK, GMASK, kind) if kind != GMASK else one.pieces[:, 3]
        try:
            again = remask(one, plan.pieces.key[: len(one.pieces)], 1, rule_of(recipe), SPECIALS)
            check_fit(again)
        except MisfitRowError:
            refused += 1
    assert refused < len(rows)


def test_touching_masks_are_refused_when_masked_anew():
    tokens = np.array([[5, 5, 5, 3, 20, 3, 21, 3, 22, 0, 0, 0]], np.int32)
    spans = np.array([[0, 3, 2], [1, 5, 2], [2, 7, 2]], np.int32)
    pieces, ends = np.array([[0, 3, 9, MASK]], np.int32), (np.array([0, 1]), np.array([0, 3]), np.array([0, 0]))
    row = Rows(tokens, ends[0], pieces, ends[1], spans, ends[2], np.zeros(0, np.int32))
    with pytest.raises(MisfitRowError):
        remask(row, np.zeros(1, np.uint64), 1, rule_of(resolve(PackOptions())), SPECIALS)


def test_too_few_tails_are_refused():
    _, _, _, _, rows = build(3000, 0, PackOptions(mask_share=0.0), documents=3)
    short = Rows(
        rows.tokens, rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans,
        np.minimum(rows.tail_offsets, 1), rows.tails[:1],
    )  # fmt: skip
    with pytest.raises(MisfitRowError, match=r"row [01] do"):
        check_fit(short)
