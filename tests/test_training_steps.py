"""What a step does and leaves undone: schedules, microbatches, half precision, the guard, the skip list, labels."""

import itertools
import json
import re

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_packs import write_pack
from test_training_loop import OPTIONS, VOCAB, ToyRows, data_of, order, tokenizer_folder, tree  # noqa: F401 - a fixture

from glm_data.errors import ConfigError, GlmDataError, UsageError
from glm_data.loading import PackedRows
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.training import engine as engines
from glm_data.training import metrics, schedule
from glm_data.training.batches import flatten
from glm_data.training.engine import Engine
from glm_data.training.guard import Guard
from glm_data.training.labels import PackLabels
from glm_data.training.loop import SKIP, SPIKES, Trainer, read_skip_list
from glm_data.training.losses import LossSums, loss_weights, weight
from glm_data.training.options import TrainOptions, model_config, step_bounds
from glm_data.training.stage import train_rows

TOY = msgspec.structs.replace(OPTIONS, dropout=0.0, steps=6, batch_rows=4, checkpoint_every=0, held_out_rows=0)


def trainer(folder, options=TOY, rows=8):
    (folder / "_run").mkdir(parents=True, exist_ok=True)
    model = build(model_config(options, VOCAB), 0)
    return Trainer(Engine(model, options), ToyRows(rows), np.arange(rows), order, folder)


def weights_of(made):
    return [parameter.detach().clone() for parameter in made.engine.masters.parameters.values()]


# --- schedules -------------------------------------------------------------------------------------------------------


def test_glm_130bs_batches_and_steps():
    rule = (4224, 192, 24, 5_493_164)
    assert schedule.batch_rows_at(0, *rule) == 192
    assert schedule.batch_rows_at(5_493_163, *rule) == 4200
    assert schedule.batch_rows_at(5_493_164, *rule) == 4224
    bounds = schedule.steps_of_run(219_726_562, 0, *rule)
    sizes = np.diff(bounds)
    assert sorted(set(sizes.tolist())) == list(range(192, 4225, 24))
    assert bounds[-2] < 219_726_562 <= bounds[-1]
    rates = [
        schedule.learning_rate(before, 197_753_905, 1_098_632, 8e-5, 0.1)
        for before in (0, 1_098_632, 99_426_268, 197_753_905, 219_000_000)
    ]
    assert rates == pytest.approx([8e-5 / 1_098_633, 8e-5, 4.4e-5, 8e-6, 8e-6], rel=1e-3)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 40))
@settings(deadline=None, max_examples=60)
def test_bounds_of_steps_hold_the_batches_and_end_in_time(total, rows, start, step, ramp):
    bounds = schedule.steps_of_run(total, 0, rows, min(start, rows), step, ramp)
    for before, end in itertools.pairwise(bounds):
        assert end - before == schedule.batch_rows_at(before, rows, min(start, rows), step, ramp)
    assert bounds[-2] < total <= bounds[-1]
    assert schedule.steps_of_run(None, len(bounds) - 1, rows, min(start, rows), step, ramp) == bounds


def test_shrink_follows_its_points_and_bad_ones_are_refused(tmp_path):
    points = {"100": 0.1, "200": 1.0}
    assert [schedule.shrink_at(n, points, 0.5) for n in (0, 100, 150, 200, 900)] == [0.1, 0.1, 0.55, 1.0, 1.0]
    assert schedule.shrink_at(7, {}, 0.5) == 0.5
    for bad in ({"x": 0.1}, {"5": 0.0}, {"5": 1.5}):
        with pytest.raises(ConfigError, match="shrink_at"):
            TrainOptions(shrink_at=bad)
    made = trainer(tmp_path, msgspec.structs.replace(TOY, shrink_at={"0": 0.2, "8": 0.4}))
    made.train_step(1)
    assert made.engine.model.shrink == pytest.approx(0.3)


# --- microbatches and precision --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["token", "sequence"])
def test_step_is_the_same_however_it_is_cut(tmp_path, weighting):
    found = []
    for micro in (0, 1, 3):
        made = trainer(tmp_path, msgspec.structs.replace(TOY, micro_rows=micro, weighting=weighting))
        for step in range(3):
            made.train_step(step)
        found.append((made.sums.means()["loss"], made.grad_norm, weights_of(made)))
    for loss, norm, weights in found[1:]:
        assert loss == pytest.approx(found[0][0], abs=1e-6)
        assert norm == pytest.approx(found[0][1], rel=1e-5)
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(weights, found[0][2], strict=True))


def test_weights_of_microbatches_add_up_to_one():
    parts = [flatten(ToyRows(4).batch(rows)) for rows in ([0], [1, 2], [3])]
    for weighting in ("token", "sequence"):
        whole = sum(weight(part, weighting) for part in parts)
        assert sum(loss_weights(part, weighting, whole).sum().item() for part in parts) == pytest.approx(1)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_about_the_same(tmp_path, precision):
    exact, half = (trainer(tmp_path, msgspec.structs.replace(TOY, precision=p)) for p in ("float32", precision))
    for step in range(4):
        exact.train_step(step)
        half.train_step(step)
    assert half.sums.means()["loss"] == pytest.approx(exact.sums.means()["loss"], rel=0.01)
    assert half.grad_norm == pytest.approx(exact.grad_norm, rel=0.05)
    assert half.engine.model.word_embeddings.weight.dtype == getattr(torch, precision)


def test_overflow_leaves_the_step_out_and_lowers_the_scale(tmp_path):
    made = trainer(tmp_path, msgspec.structs.replace(TOY, precision="float16"))
    made.engine.scale.scale = 2.0**40
    before = weights_of(made)
    made.train_step(0)
    made.train_step(1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(made), strict=True))
    assert made.engine.scale.scale == 2.0**39
    assert made.left_out == 2
    made.engine.scale.scale = 2.0**10
    made.train_step(2)
    assert not torch.equal(before[0], weights_of(made)[0])


def test_recomputing_moves_nothing(tmp_path):
    found = []
    for recompute in (False, True):
        made = trainer(tmp_path, msgspec.structs.replace(TOY, recompute=recompute, dropout=0.2))
        made.train_step(0)
        found.append(weights_of(made))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_interrupted_run_with_a_ramp_ends_in_the_same_bytes(tmp_path, tokenizer_folder, optimizer):  # noqa: F811
    options = msgspec.structs.replace(
        OPTIONS, optimizer=optimizer, batch_start=1, batch_rise=1, batch_rows=3, batch_ramp=6, precision="float16",
        shrink_at={"0": 1.0, "20": 0.1},
    )  # fmt: skip
    data = data_of(10, tokenizer_folder)
    train_rows(data, tmp_path / "whole", options)

    def die(line):
        if line["step"] == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rows(data, tmp_path / "b", options, report=die)
    train_rows(data, tmp_path / "b", options)
    assert tree(tmp_path / "whole") == tree(tmp_path / "b")
    line = json.loads((tmp_path / "b" / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"shrink", "loss_scale", "samples"} <= set(line)
    assert line["samples"] == step_bounds(options, 8)[-1]


# --- what is left out ------------------------------------------------------------------------------------------------


def test_guard_knows_the_unusual():
    guard = Guard()
    for number in range(30):
        assert guard.verdict(2.0 + 0.01 * (number % 2), 1.0 + 0.01 * (number % 3), 6.0) == ""
        guard.note(2.0 + 0.01 * (number % 2), 1.0 + 0.01 * (number % 3), True, 25, 3)
    assert len(guard.losses) == 25
    assert "loss 2.2" in guard.verdict(2.2, 1.0, 6.0)
    assert "gradient norm 3" in guard.verdict(2.0, 3.0, 6.0)
    assert guard.verdict(2.2, 3.0, 0.0) == ""
    assert guard.verdict(float("nan"), 1.0, 0.0) == guard.verdict(1.0, float("inf"), 0.0) == "not finite"
    guard.note(9.0, 1.0, False, 25, 3)
    guard.note(9.0, 1.0, False, 25, 3)
    assert max(guard.losses) < 3
    with pytest.raises(GlmDataError, match="3 steps in a row"):
        guard.note(9.0, 1.0, False, 25, 3)


def test_spike_is_left_out_and_its_rows_are_named(tmp_path, monkeypatch):
    made = trainer(tmp_path)
    made.guard = Guard(losses=[4.0, 4.1] * 20, norms=[50.0, 90.0] * 20)
    whole = engines.batch_loss

    def spiking(model, batch, weights):
        loss, losses = whole(model, batch, weights)
        return loss, torch.where(torch.from_numpy(batch.row_P) == 2, losses + 100, losses)

    monkeypatch.setattr(engines, "batch_loss", spiking)
    before = weights_of(made)
    made.train_step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(made), strict=True))
    (line,) = [json.loads(line) for line in (tmp_path / SPIKES).read_text().splitlines()]
    assert line["step"] == 1
    assert line["why"].startswith("loss ")
    assert len(line["rows"]) == 4
    assert np.argmax(line["row_losses"]) == 2
    assert made.sums.total_tokens == 0


def test_rows_of_the_skip_list_are_not_trained_on(tmp_path):
    whole = trainer(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / SKIP).write_text("0:3\n\n5\n")
    part = trainer(tmp_path / "b")
    assert part.skipped.tolist() == [0, 1, 2, 5]
    seen = []
    for made in (whole, part):
        made.train_step(0)
        seen.append(made.sums.total_tokens)
    assert 0 < seen[1] < seen[0]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / SKIP).write_text("0:8\n")
    nothing = trainer(tmp_path / "c")
    before = weights_of(nothing)
    nothing.train_step(0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(nothing), strict=True))
    (tmp_path / SKIP).write_text("3-5\n")
    with pytest.raises(UsageError, match="line 1"):
        read_skip_list(tmp_path / SKIP)


# --- labels and metrics ----------------------------------------------------------------------------------------------


def labelled_pack(folder):
    pack = write_pack(folder, rows=6, per_shard=6)
    languages, sources = ["en", "zh", "en", "zh", "zh", "en"], ["a", "b", "c", "a", "b", "c"]
    pq.write_table(pa.table({"lang": languages, "source": sources}), pack / "documents.parquet", row_group_size=2)
    return PackedRows.open(pack), languages, sources


def test_losses_by_language_and_source_add_up(tmp_path):
    pack, languages, sources = labelled_pack(tmp_path)
    labels, rows = PackLabels(pack), np.array([4, 0, 3])
    batch = flatten(pack.batch(rows))
    losses = torch.rand(len(batch.row_P), generator=torch.Generator().manual_seed(0))
    sums = LossSums()
    sums.add(losses, batch.kind_P)
    labels.add(sums, losses, batch, rows)
    for group, names in (("lang", languages), ("source", sources)):
        for name in {names[row] for row in rows.tolist()}:
            here = np.isin(batch.row_P, [n for n, row in enumerate(rows.tolist()) if names[row] == name])
            assert sums.tokens[f"{group}/{name}"] == here.sum()
            assert sums.means()[f"loss/{group}/{name}"] == pytest.approx(losses[torch.from_numpy(here)].mean().item())
    assert sums.total_tokens == len(losses)


def test_speed_is_measured_and_the_peak_named(tmp_path):
    config = ModelConfig(vocab=10, layers=2, hidden=4, heads=1, ffn=8)
    layers, head = metrics.operations(config, tokens=3, loss_tokens=2, pairs=5)
    per_layer = 3 * 4 * 4 + 3 * 4 + 4 * 4 + 4 + 4 * 16 + 16 + 8 * 4 + 4 + 16
    assert layers == 6 * 2 * per_layer * 3 + 12 * 4 * 5 * 2
    assert head == 6 * 10 * 4 * 2
    clock = metrics.Clock(tmp_path, config, TrainOptions(recompute=True), 10)
    clock.peak = 1e9
    clock.count(3, 2, 5, 0.0)
    told = clock.lap({"step": 4, "loss": 1.0})
    assert told["mfu"] == pytest.approx(told["flops_per_second"] / 1e9)
    assert told["hfu"] / told["mfu"] == pytest.approx((layers * 8 / 6 + head) / (layers + head))
    assert told["eta_seconds"] > 0
    assert json.loads((tmp_path / "training.jsonl").read_text())["step"] == 4
    assert metrics.device_peak(TrainOptions()) == 0


def test_curve_is_a_picture_of_the_lines(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step":1,"loss":3.0,"loss/mask":4.0}\n{"step":9,"loss":1.0}\n')
    metrics.write_curve(tmp_path, tmp_path / "metrics.jsonl")
    picture = (tmp_path / "loss.svg").read_text()
    lines = re.findall(r'points="([^"]*)"', picture)
    assert len(lines) == 2
    assert lines[0].split()[1] == "672.0,312.0"  # the last step at the right, the lowest loss at the bottom
    assert "loss/mask" in picture
    assert metrics.draw({}).startswith("<svg")
