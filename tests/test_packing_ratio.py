"""The MIP ratio by tokens, rows and targets, its ramp, and few-shot samples: planned, met, and said."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import make_inputs, make_mip, make_tokenized, make_tokenizer, redigest, texts
from test_packing_plan import STREAM, variant

from glm_data.errors import UsageError
from glm_data.loading import PackedRows
from glm_data.packing.binning import best_fit, choose_rows
from glm_data.packing.fill import MipTokens
from glm_data.packing.options import PackOptions, resolve
from glm_data.packing.plan import add_mip, plan_text
from glm_data.packing.rows import MIP
from glm_data.packing.samples import MipSamples, choose_samples, no_samples
from glm_data.packing.stage import pack_stage


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"), documents=400, mip_rows=120)


def samples(count: int, seed: int = 0) -> MipSamples:
    """Samples of random lengths, a few of them refused."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(2, 40, count)
    lengths = targets + rng.integers(5, 200, count)
    lengths[::17] = targets[::17] = 0
    nothing = MipTokens(np.empty(0, np.int32), np.zeros(2 * count + 1, np.int64))
    return MipSamples(nothing, lengths, targets, no_samples().table, 0, 0)


def planned(options: PackOptions, ratio: float, tokens: int = 600_000, count: int = 3000):
    """A plan of text in 500 documents and of MIP by ``ratio``; the share that was wanted."""
    recipe, mip = resolve(options), samples(count)
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, tokens), 499, replace=False))
    text = plan_text(np.concatenate([[0], cuts, [tokens]]), recipe)
    choice, wanted = choose_samples(text, mip, ratio, recipe)
    return add_mip(text, mip.lengths, mip.targets, choice, recipe), wanted


def amounts(plan, of: str) -> np.ndarray:
    """``[rows, 2]``: of text and of MIP in every row, by what the ratio counts."""
    is_mip = (plan.pieces.kind == MIP).astype(int)
    row = np.repeat(np.arange(plan.rows), np.diff(plan.row_offsets))
    found = np.zeros((plan.rows, 2))
    if of == "sequences":
        found[row, is_mip] = 1
    else:
        np.add.at(found, (row, is_mip), plan.pieces.targets if of == "loss-tokens" else plan.pieces.size())
    return found


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(
    ("options", "of"),
    [
        (STREAM, "tokens"),
        (STREAM, "sequences"),
        (STREAM, "loss-tokens"),
        (PackOptions(), "tokens"),
        (PackOptions(), "loss-tokens"),
        (PackOptions(preset="glm-10b"), "sequences"),
    ],
)
def test_the_ratio_is_met_to_four_digits_in_what_it_counts(options, of, ratio):
    plan, wanted = planned(variant(options, mip_ratio_of=of), ratio)
    text, mip = amounts(plan, of).sum(0)
    assert wanted == ratio
    tolerance = 5e-5 + (0.5 / (text + mip) if of == "sequences" else 0)
    assert mip / (text + mip) == pytest.approx(ratio, abs=tolerance)


@pytest.mark.parametrize("options", [STREAM, PackOptions(), variant(STREAM, mip_ratio_of="sequences")])
def test_a_ramp_rises_linearly_and_then_holds_the_ratio(options):
    options = variant(options, mip_ramp=150, seq_length=1024)
    plan, wanted = planned(options, 0.3, tokens=600_000)
    shares = amounts(plan, options.mip_ratio_of)
    text, mip = shares.sum(0)
    assert mip / (text + mip) == pytest.approx(wanted, abs=0.003)
    assert wanted == pytest.approx(0.3 * (1 - 150 / 2 / plan.rows), abs=1e-3)
    is_mip = np.array([(shares[row, 1] > 0) for row in range(plan.rows)])
    assert ((shares[:, 0] > 0) != is_mip).all(), "rows of their own"
    reached = np.cumsum(is_mip)
    at = np.arange(1, plan.rows + 1)
    curve = np.where(at <= 150, at**2 / 300, at - 75) * is_mip.sum() / (plan.rows - 75)
    assert np.abs(reached - curve).max() <= 1.5, "every stretch has its due"


def test_a_ramp_longer_than_the_pack_is_refused():
    with pytest.raises(UsageError, match="--mip-ramp 100000 is longer than the pack"):
        planned(variant(STREAM, mip_ramp=100_000), 0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mip_ratio_of": "sequences"}, "under --boundaries documents MIP shares rows"),
        ({"mip_ratio_of": "loss-tokens", "sentence_share": 0.2}, "cannot be planned with"),
        ({"mask_share": 0.8, "sentence_share": 0.3}, "more than 1 together"),
    ],
)
def test_ratios_and_shares_that_cannot_be_planned_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        resolve(PackOptions(**changes))


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(0, 60), max_size=80), rows=st.integers(0, 12), repeats=st.integers(1, 3))
def test_chosen_rows_are_as_many_as_wanted_or_all_there_are(lengths, rows, repeats):
    lengths = np.array(lengths, np.int64)
    chosen = choose_rows(lengths, rows, 60, repeats, 3)
    used = int(best_fit(lengths[chosen], 60).max(initial=-1)) + 1
    assert used <= rows
    counts = np.bincount(chosen, minlength=len(lengths))
    assert counts.max(initial=0) <= repeats
    assert (counts[lengths == 0] == 0).all() if len(lengths) else True
    everything = np.repeat(lengths[lengths > 0], repeats)
    if used < rows:
        assert len(chosen) == len(everything), "everything is used where it does not suffice"


@pytest.mark.parametrize(
    ("of", "preset"),
    [("tokens", "glm-130b"), ("sequences", "glm-130b"), ("loss-tokens", "glm-130b"), ("loss-tokens", "documents")],
)
def test_the_manifest_says_what_was_wanted_and_got(inputs, tmp_path, of, preset):
    _, tokenizer, ids, mip = inputs
    options = PackOptions(preset=preset, seq_length=256, mip_ratio=0.1, mip_ratio_of=of, mip_repeats=20)
    success = pack_stage(ids, tmp_path / "out", options, tokenizer=tokenizer, mip=mip)
    column = {"tokens": "tokens", "sequences": "rows", "loss-tokens": "loss"}[of]
    counted = {name[len(column) + 1 :]: n for name, n in success.counts.items() if name.startswith(column + "/")}
    got = counted["mip"] / sum(counted.values())
    facts = success.facts["mip_ratio"]
    assert (facts["wanted"], facts["of"], facts["got"]) == (0.1, of, round(got, 6))
    assert got == pytest.approx(0.1, abs=0.01)
    assert success.ok
    assert "wanted" in success.checks[0].sentence


def test_the_loader_reads_a_ramp_as_packed_and_shuffles_later(inputs, tmp_path):
    from glm_data.loading import Loader, LoaderOptions

    _, tokenizer, ids, mip = inputs
    options = PackOptions(seq_length=256, mip_ratio=0.2, mip_ramp=60, mip_repeats=20)
    pack_stage(ids, tmp_path / "out", options, tokenizer=tokenizer, mip=mip)
    pack = PackedRows.open(tmp_path / "out")
    loader = Loader([pack], LoaderOptions(batch_rows=len(pack), seed=5))
    steps = iter(loader)
    assert next(steps).rows.tolist() == list(range(len(pack)))
    second = next(steps)
    assert second.rows.tolist() != list(range(len(pack)))
    assert set(second.epochs.tolist()) == {1}
    other = Loader([pack], LoaderOptions(batch_rows=len(pack), seed=5, order="shuffled"))
    with pytest.raises(UsageError, match="order 'packed'"):
        other.resume(loader.state())


def test_few_shot_samples_may_take_a_row_and_lose_nothing(tmp_path):
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_tokenized(tmp_path / "ids", tokenizer, texts(200))
    long, question = "an example. " * 40, "the question?"
    make_mip(tmp_path / "mip", [(long + question, "yes"), (long + question, "yes"), (long * 9 + question, "no")])
    path = tmp_path / "mip/data/part-00000.parquet"
    table = pq.read_table(path).append_column("shots", pa.array([0, 2, 5], pa.int32()))
    pq.write_table(table, path)
    redigest(tmp_path / "mip", "data/part-00000.parquet")
    options = PackOptions(seq_length=512, mip_window=64, mip_ratio=0.5, mip_repeats=1)
    success = pack_stage(
        tmp_path / "ids", tmp_path / "out", options, tokenizer=tmp_path / "tokenizer", mip=tmp_path / "mip"
    )
    assert (success.facts["mip_prompts_cut"], success.facts["mip_refused"]) == (1, 1)
    rows = PackedRows.open(tmp_path / "out").rows(range(success.facts["rows"]))
    pieces = rows.pieces[rows.pieces[:, 3] == MIP]
    row_of = np.repeat(np.arange(len(rows)), np.diff(rows.piece_offsets))[rows.pieces[:, 3] == MIP]
    prompts = [
        tokenizer.decode(rows.tokens[row, start : sep - 1])
        for row, (start, sep, _, _) in zip(row_of, pieces.tolist(), strict=True)
    ]
    assert any(prompt == long + question for prompt in prompts), "the few-shot prompt is whole"
    assert all(len(prompt) <= 64 * 12 for prompt in prompts if prompt != long + question)
