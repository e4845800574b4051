"""Plans and filled rows: nothing lost, nothing twice, budgets exact, shares as asked."""

from __future__ import annotations

from itertools import chain, pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import UsageError
from glm_data.packing.binning import best_fit, choose_amounts
from glm_data.packing.fill import MipTokens, piece_texts
from glm_data.packing.job import mask_rule
from glm_data.packing.masking import Specials, invert, lay_out
from glm_data.packing.options import PRESETS, PackOptions, resolve
from glm_data.packing.placing import HARD_END
from glm_data.packing.plan import add_mip, plan_text
from glm_data.packing.rows import GMASK, MASK, MIP, SMASK, assemble

SPECIALS = Specials(mask=5, gmask=6, smask=7, sop=3, eop=4, eos=2, pad=0)


SENTENCES = np.where(np.arange(1000) % 17 == 0, HARD_END, 0).astype(np.uint8)
"""Every 17th id ends a sentence."""


def mip_samples(rng: np.random.Generator, samples: int) -> tuple[MipTokens, np.ndarray, np.ndarray]:
    lengths = rng.integers(1, 120, 2 * samples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(10, 1000, offsets[-1]).astype(np.int32)
    return MipTokens(ids, offsets), lengths.reshape(-1, 2).sum(1) + 2, lengths[1::2] + 1


def build(tokens: int, samples: int, options: PackOptions, seed: int = 0, documents: int = 1):
    """Random text of ``tokens``, in ``documents`` cut at random, planned and filled as one shard."""
    rng = np.random.default_rng(seed)
    text = rng.integers(10, 1000, tokens).astype(np.int32)
    cuts = np.sort(rng.choice(np.arange(1, tokens), min(documents, tokens) - 1, replace=False)) if tokens > 1 else []
    starts = np.concatenate([[0], cuts, [tokens]]).astype(np.int64)
    mip, lengths, targets = mip_samples(rng, samples)
    recipe = resolve(options)
    plan = add_mip(plan_text(starts, recipe), lengths, targets, np.arange(samples), recipe)
    return text, starts, mip, plan, fill_rows(plan, 0, plan.rows, text, mip, recipe)


def fill_rows(plan, first, last, text, mip, recipe, epoch=0):
    within = slice(plan.row_offsets[first], plan.row_offsets[last])
    slices = zip(plan.pieces.start[within], plan.pieces.tokens[within], plan.pieces.kind[within], strict=True)
    parts = [text[start : start + tokens] for start, tokens, kind in slices if kind != MIP]
    taken = np.concatenate([np.empty(0, np.int32), *parts])
    rule = mask_rule(recipe, SENTENCES)
    return lay_out(piece_texts(plan, first, last, taken, mip), epoch, rule, SPECIALS, recipe.seq_length)


STREAM = PackOptions(preset="glm-130b")


def variant(options: PackOptions, **changes: object) -> PackOptions:
    return msgspec.structs.replace(options, **changes)


def pieces_of(rows, wanted_mip: bool):
    """Inverted pieces of the text or of MIP, in row order."""
    found = []
    for row in range(len(rows)):
        kinds = rows.row_pieces(row)[:, 3].tolist()
        found += [
            ids for ids, kind in zip(invert(rows, row, SPECIALS.eop), kinds, strict=True) if (kind == MIP) == wanted_mip
        ]
    return found


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 30_000),
    samples=st.integers(0, 60),
    seed=st.integers(0, 2**62),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    length=st.sampled_from([256, 512, 2048]),
)
def test_running_text_comes_back_from_the_rows_in_order(tokens, samples, seed, share, length):
    options = variant(STREAM, seed=seed, mask_share=share, seq_length=length)
    text, _, mip, _, rows = build(tokens, samples, options)
    assert np.concatenate(pieces_of(rows, False)).tolist() == text.tolist()
    wanted = [mip.ids[mip.offsets[2 * i] : mip.offsets[2 * i + 2]].tolist() for i in range(samples)]
    assert sorted(piece.tolist() for piece in pieces_of(rows, True)) == sorted(wanted)
    for row in range(len(rows)):
        assert len(set(rows.row_pieces(row)[:, 3].tolist())) == 1, "one kind a row"


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 20_000),
    documents=st.integers(1, 300),
    samples=st.integers(0, 60),
    seed=st.integers(0, 2**62),
    preset=st.sampled_from(["documents", "prefix", "causal"]),
    length=st.sampled_from([256, 2048]),
)
def test_every_document_comes_back_from_pieces_of_its_own(tokens, documents, samples, seed, preset, length):
    options = PackOptions(preset=preset, seed=seed, seq_length=length)
    text, starts, _, plan, rows = build(tokens, samples, options, documents=documents)
    restored: dict[int, list[int]] = {}
    is_text = plan.pieces.kind != MIP
    for start, ids in zip(plan.pieces.start[is_text], pieces_of(rows, False), strict=True):
        restored[int(start)] = ids.tolist()
    closed = plan.pieces.closed[plan.pieces.kind == GMASK]
    assert (rows.tails[closed] == SPECIALS.eop).all(), "a text that ends in its [gMASK] piece ends with <eop>"
    assert (rows.tails[~closed] != SPECIALS.eop).all()
    for begin, end in pairwise(starts):
        inside = [restored[start] for start in sorted(restored) if begin <= start < end - 1]
        assert list(chain(*inside)) == text[begin : end - 1].tolist()
    assert len(pieces_of(rows, True)) == samples
    if preset == "causal":
        assert (rows.pieces[is_text, 1] - rows.pieces[is_text, 0] == 1).all(), "part A is the mask alone"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**62))
def test_pieces_of_running_text_keep_their_windows_and_rows_are_full(seed):
    options = variant(STREAM, seed=seed, short_share=0.0)
    _, _, _, _, rows = build(60_000, 50, options)
    window = 2048 // 4
    used = np.zeros(len(rows), np.int64)
    for row in range(len(rows)):
        pieces = rows.row_pieces(row)
        assert (pieces[1:, 0] >= pieces[:-1, 2]).all()
        assert pieces[-1, 2] <= 2048
        for start, _, end, kind in pieces.tolist():
            if kind == MASK:
                assert start % window == 0
                assert end - start <= window
        used[row] = (pieces[:, 2] - pieces[:, 0]).sum()
    text_rows = np.array([rows.row_pieces(row)[0, 3] != MIP for row in range(len(rows))])
    last_text = np.flatnonzero(text_rows)[-1]
    inner = text_rows & (np.arange(len(rows)) != last_text)
    assert used[inner].sum() >= 0.995 * inner.sum() * 2048


def test_sizes_in_the_plan_are_the_places_taken():
    for options in (STREAM, PackOptions(), PackOptions(preset="glm-10b")):
        _, _, _, plan, rows = build(100_000, 50, options, documents=400)
        sentences = rows.pieces[:, 3] == SMASK
        taken = rows.pieces[:, 2] - rows.pieces[:, 0]
        assert (plan.pieces.size() == taken)[~sentences].all()
        assert (plan.pieces.size() >= taken)[sentences].all(), "sentences may be fewer than there is room for"
        assert (plan.pieces.place == rows.pieces[:, 0]).all()


def test_targets_in_the_plan_are_the_places_predicted():
    for options in (STREAM, PackOptions()):
        _, _, _, plan, rows = build(100_000, 50, options, documents=400)
        assert int(plan.pieces.targets.sum()) == int(assemble(rows, SPECIALS.eop).loss_mask.sum())


def test_documents_waste_next_to_nothing_and_are_shuffled():
    _, _, _, plan, rows = build(2_000_000, 500, PackOptions(), documents=4000)
    used = (rows.pieces[:, 2] - rows.pieces[:, 0]).sum()
    assert used >= 0.998 * rows.tokens.size
    counts = np.diff(plan.row_offsets)
    halves = counts[: plan.rows // 2].mean(), counts[plan.rows // 2 :].mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.2), "short documents are not all at one end"


def test_the_mask_share_and_the_suffix_lengths_follow_the_recipe():
    _, _, _, _, rows = build(4_000_000, 0, variant(STREAM, seed=7))
    kinds = rows.pieces[rows.piece_offsets[:-1], 3]
    assert (kinds == MASK).mean() == pytest.approx(0.3, abs=0.03)
    gmask = rows.pieces[rows.pieces[:, 3] == GMASK][:-1]
    suffix = (gmask[:, 2] - gmask[:, 1]) / 2047
    assert suffix.min() >= 0.199
    assert suffix.max() > 0.98
    assert suffix.mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("options", [STREAM, PackOptions()], ids=["stream", "documents"])
def test_no_target_is_ever_lost(options):
    _, _, _, plan, rows = build(300_000, 0, options, documents=500)
    derived = assemble(rows, SPECIALS.eop)
    assert int(derived.loss_mask.sum()) == int(rows.spans[:, 2].sum())
    masked, at = 0, 0
    for piece, spans in enumerate(plan.pieces.spans.tolist()):
        if plan.pieces.kind[piece] == MASK:
            masked += int(rows.spans[at : at + spans, 2].sum()) - spans
        at += spans
    source = int(plan.pieces.tokens[plan.pieces.kind == MASK].sum())
    assert source > 50_000
    assert masked >= 0.15 * source * 0.97, "2 % of the pieces have one span only"


def test_filling_in_parts_gives_the_same_rows():
    text, _, mip, plan, whole = build(50_000, 30, variant(STREAM, seed=11))
    recipe = resolve(variant(STREAM, seed=11))
    cut = plan.rows // 2
    second = fill_rows(plan, cut, plan.rows, text, mip, recipe)
    assert (second.tokens == whole.tokens[cut:]).all()
    assert (second.spans == whole.spans[whole.span_offsets[cut] :]).all()


@pytest.mark.parametrize("options", [STREAM, PackOptions()], ids=["stream", "documents"])
def test_planning_in_portions_gives_the_same_plan(options, monkeypatch):
    from glm_data.packing import plan as plans

    whole = build(90_000, 30, options, documents=40)[3]
    monkeypatch.setattr(plans, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(plans, "_PIECES_AT_ONCE", 7)
    part = build(90_000, 30, options, documents=40)[3]
    assert np.array_equal(part.row_offsets, whole.row_offsets)
    assert all(np.array_equal(getattr(part.pieces, name), column) for name, column in vars(whole.pieces).items())
    monkeypatch.setattr(plans, "_LENGTHS_A_PIECE", 1)
    few = build(90_000, 30, options, documents=40)[3]
    assert np.array_equal(few.pieces.lengths, whole.pieces.lengths)
    assert np.array_equal(few.pieces.key, whole.pieces.key)


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 50), max_size=80))
def test_best_fit_equals_the_plain_algorithm(lengths):
    bins = best_fit(np.array(lengths, np.int64), 50)
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in free if room >= length]
        if fitting:
            free[free.index(min(fitting))] -= length
        else:
            free.append(50 - length)
    sums = np.bincount(bins, weights=lengths, minlength=len(free)) if lengths else np.array([])
    assert len(sums) == len(free)
    assert sorted(50 - sums) == sorted(free)


def test_mip_choice_meets_the_wanted_tokens_and_the_repeat_cap():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 100, 200)
    once = int(lengths.sum())
    chosen = choose_amounts(lengths, 0.5 * once, 4, 1)
    assert abs(lengths[chosen].sum() - 0.5 * once) <= 100
    assert len(set(chosen.tolist())) == len(chosen)
    assert lengths[choose_amounts(lengths, 2.5 * once, 4, 1)].sum() == pytest.approx(2.5 * once, abs=100)
    assert lengths[choose_amounts(lengths, 9 * once, 4, 1)].sum() == 4 * once
    assert len(choose_amounts(np.zeros(3, np.int64), 100, 4, 1)) == 0


@pytest.mark.parametrize(
    ("field", "value"), [("mask_share", 1.5), ("windows", 3), ("seq_length", 10), ("mip_window", 4), ("seed", -1)]
)
def test_options_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match="--" + field.replace("_", "-")):
        resolve(variant(STREAM, **{field: value}))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(UsageError, match="--windows 4 is for --boundaries stream"):
        resolve(PackOptions(windows=4))
    with pytest.raises(UsageError, match="--short-share"):
        resolve(PackOptions(short_share=0.1))


def test_a_rate_that_spans_cannot_reach_is_refused():
    assert resolve(PackOptions(mask_rate=0.7)).mask_rate == 0.7
    with pytest.raises(UsageError, match="cannot be reached by spans of 3"):
        resolve(PackOptions(mask_rate=0.9))


def test_long_rows_are_filled_as_well_as_short_ones():
    _, _, _, _, rows = build(400_000, 0, variant(STREAM, seq_length=32_768, windows=1, mask_share=1.0, short_share=0.0))
    whole = rows.pieces[:-1]
    assert (whole[:, 2] - whole[:, 0]).min() >= 0.99 * 32_768


def test_presets_fill_in_what_is_not_given():
    published = resolve(STREAM)
    assert (published.mask_share, published.gmask_least, published.windows) == (0.3, 0.2, 4)
    assert (published.mask_rate, published.span_mean, published.short_share) == (0.15, 3.0, 0.02)
    assert resolve(PackOptions(mask_share=0.5)).mask_share == 0.5
    for name in PRESETS:
        assert resolve(PackOptions(preset=name)).seq_length == (512 if name == "glm-10b" else 2048)
