"""Plans and filled rows: nothing lost, nothing twice, budgets exact, shares as asked."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import UsageError
from glm_data.packing.fill import MipTokens, Specials, fill_rows
from glm_data.packing.options import PackOptions, check_options
from glm_data.packing.plan import best_fit, choose_mip, plan_rows, text_tokens
from glm_data.packing.rows import GMASK, MASK, MIP, assemble, invert

SPECIALS = Specials(mask=5, gmask=6, sop=3, eop=4, eos=2, pad=0)


def mip_samples(rng: np.random.Generator, samples: int) -> tuple[MipTokens, np.ndarray]:
    lengths = rng.integers(1, 120, 2 * samples)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(10, 1000, offsets[-1]).astype(np.int32)
    return MipTokens(ids, offsets), lengths.reshape(-1, 2).sum(1) + 2


def build(tokens: int, samples: int, options: PackOptions, seed: int = 0):
    rng = np.random.default_rng(seed)
    text = rng.integers(10, 1000, tokens).astype(np.int32)
    mip, lengths = mip_samples(rng, samples)
    plan = plan_rows(tokens, lengths, np.arange(samples), options)
    return text, mip, lengths, plan, fill_rows(plan, 0, plan.rows, text, 0, mip, options, SPECIALS)


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 30_000),
    samples=st.integers(0, 60),
    seed=st.integers(0, 2**62),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    length=st.sampled_from([256, 512, 2048]),
)
def test_every_token_of_stream_and_samples_comes_back_from_the_rows(tokens, samples, seed, share, length):
    options = PackOptions(seed=seed, mask_share=share, seq_length=length)
    text, mip, _, _, rows = build(tokens, samples, options)
    stream, found = [], []
    for row in range(len(rows)):
        kinds = {kind for *_, kind in rows.row_pieces(row).tolist()}
        assert len(kinds) == 1, "one kind a row"
        (found if kinds == {MIP} else stream).extend(invert(rows, row))
    assert np.concatenate(stream).tolist() == text.tolist()
    wanted = [mip.ids[mip.offsets[2 * i] : mip.offsets[2 * i + 2]].tolist() for i in range(samples)]
    assert sorted(piece.tolist() for piece in found) == sorted(wanted)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**62))
def test_pieces_keep_their_windows_and_rows_are_full(seed):
    options = PackOptions(seed=seed, short_share=0.0)
    _, _, _, plan, rows = build(60_000, 50, options)
    window = options.seq_length // options.windows
    used = np.zeros(len(rows), np.int64)
    for row in range(len(rows)):
        pieces = rows.row_pieces(row)
        assert (pieces[1:, 0] >= pieces[:-1, 2]).all()
        assert pieces[-1, 2] <= options.seq_length
        for start, _, end, kind in pieces.tolist():
            if kind == MASK:
                assert start % window == 0
                assert end - start <= window
        used[row] = (pieces[:, 2] - pieces[:, 0]).sum()
    text_rows = np.array([rows.row_pieces(row)[0, 3] != MIP for row in range(len(rows))])
    last_text = np.flatnonzero(text_rows)[-1]
    inner = text_rows & (np.arange(len(rows)) != last_text)
    assert used[inner].sum() >= 0.995 * inner.sum() * options.seq_length
    assert used[text_rows].sum() == text_tokens(plan)


def test_the_mask_share_and_the_suffix_lengths_follow_the_recipe():
    _, _, _, _, rows = build(4_000_000, 0, PackOptions(seed=7))
    kinds = rows.pieces[rows.piece_offsets[:-1], 3]
    assert (kinds == MASK).mean() == pytest.approx(0.3, abs=0.03)
    gmask = rows.pieces[rows.pieces[:, 3] == GMASK][:-1]
    suffix = (gmask[:, 2] - gmask[:, 1]) / 2047
    assert suffix.min() >= 0.199
    assert suffix.max() > 0.98
    assert suffix.mean() == pytest.approx(0.6, abs=0.02)


def test_no_target_is_ever_lost():
    _, _, _, plan, rows = build(300_000, 0, PackOptions(seed=3))
    derived = assemble(rows, SPECIALS.eop)
    assert int(derived.loss_mask.sum()) == int(rows.spans[:, 2].sum())
    masked = plan.tokens[plan.kind == MASK]
    mask_spans = plan.spans[plan.kind == MASK]
    in_mask_rows = 0
    for row in range(len(rows)):
        if rows.row_pieces(row)[0, 3] == MASK:
            targets = derived.targets[row][derived.loss_mask[row] == 1]
            assert (targets == SPECIALS.eop).sum() == len(rows.row_spans(row)), "each span ends with <eop>"
            in_mask_rows += len(targets) - len(rows.row_spans(row))
    assert len(mask_spans) > 100
    assert in_mask_rows >= 0.15 * masked.sum() * 0.97, "2 % of the pieces have one span only"


def test_filling_in_parts_gives_the_same_rows():
    options = PackOptions(seed=11)
    text, mip, _, plan, whole = build(50_000, 30, options)
    cut = plan.rows // 2
    starts = plan.start[(plan.kind != MIP) & (np.arange(len(plan.kind)) >= plan.row_offsets[cut])]
    offset = int(starts.min())
    second = fill_rows(plan, cut, plan.rows, text[offset:], offset, mip, options, SPECIALS)
    assert (second.tokens == whole.tokens[cut:]).all()
    assert (second.spans == whole.spans[whole.span_offsets[cut] :]).all()


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
    chosen = choose_mip(lengths, 0.5 * once, 4, 1)
    assert abs(lengths[chosen].sum() - 0.5 * once) <= 100
    assert len(set(chosen.tolist())) == len(chosen)
    assert lengths[choose_mip(lengths, 2.5 * once, 4, 1)].sum() == pytest.approx(2.5 * once, abs=100)
    assert lengths[choose_mip(lengths, 9 * once, 4, 1)].sum() == 4 * once
    assert len(choose_mip(np.zeros(3, np.int64), 100, 4, 1)) == 0


@pytest.mark.parametrize(
    ("field", "value"), [("mask_share", 1.5), ("windows", 3), ("seq_length", 10), ("mip_window", 4), ("seed", -1)]
)
def test_options_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(UsageError, match=field.replace("_", "-")):
        check_options(msgspec.structs.replace(PackOptions(), **{field: value}))
