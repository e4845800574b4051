import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data import files
from glm_data.errors import ConfigError, GlmDataError, InputError, UsageError
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.model.store import read_description, read_tensors
from glm_data.stage import InputFile
from glm_data.training import batches, losses
from glm_data.training.checkpoint import find_checkpoints
from glm_data.training.engine import Engine
from glm_data.training.loop import METRICS, Trainer
from glm_data.training.options import TrainOptions, model_config, step_bounds
from glm_data.training.schedule import learning_rate
from glm_data.training.stage import TrainingData, train_rows

LENGTH, VOCAB = 48, 64


@dataclass(frozen=True)
class ToyBatch:
    tokens: np.ndarray
    targets: np.ndarray
    position_ids: np.ndarray
    loss_mask: np.ndarray
    pieces: list
    block_position_ids: None = None


class ToyRows:
    """Rows of one [gMASK] piece (even numbers) or two [MASK] pieces (odd ones) over counting sequences."""

    def __init__(self, rows):
        self.rows = [self._row(number) for number in range(rows)]

    def _row(self, number):
        text = (np.arange(LENGTH) * (1 + number % 3) + number) % 40 + 10
        tokens, targets, positions, mask = (np.zeros(LENGTH, np.int32) for _ in range(4))
        pieces = [(0, 20, 40, 0)] if number % 2 == 0 else [(0, 15, 18, 1), (20, 30, 34, 1)]
        for start, sep, end, kind in pieces:
            tokens[start:end], targets[start:end] = text[start:end], text[start + 1 : end + 1]
            positions[start:sep] = np.arange(sep - start)
            positions[sep:end] = np.arange(sep - start, end - start) if kind == 0 else 4
            mask[sep:end] = 1
        return tokens, targets, positions, mask.astype(np.uint8), np.array(pieces, np.int32)

    def __len__(self):
        return len(self.rows)

    def batch(self, indices, *, epoch=0, **options):
        columns = list(zip(*(self.rows[index] for index in indices), strict=True))
        return ToyBatch(*(np.stack(column) for column in columns[:4]), list(columns[4]))


def order(positions, rows, seed, epoch):
    return np.random.default_rng([seed, epoch]).permutation(rows)[positions]


OPTIONS = TrainOptions(
    model="tiny", layers=2, hidden=16, heads=2, ffn=24, dropout=0.1, steps=12, batch_rows=2, lr=0.01, warmup_samples=4,
    log_every=5, checkpoint_every=3, threads=1, held_out_rows=2,
)  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def make_tokenizer(folder):
    """A tokenizer of our own from a few sentences, small enough to train in a moment."""
    import tokenizer

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(60)] + ["床前明月光，", "疑是地上霜。"] * 9
    tokenizer.train(
        [" ".join(rng.choice(words, 30)) for _ in range(60)], folder, tokenizer.TrainOptions(vocab_size=512)
    )
    return folder


def data_of(rows, folder):
    toy = InputFile(name="toy", path="toy", bytes=rows, digest=str(rows))
    return TrainingData(ToyRows(rows), order, [toy], folder)


def tree(folder):
    """Every byte of a stage folder except what may differ from run to run."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "_run" not in path.parts)
    return {str(path.relative_to(folder)): files.digest_file(path) for path in paths}


def test_run_learns_writes_a_stage_and_is_the_same_twice(tmp_path, tokenizer_folder):
    seen = []
    success = train_rows(data_of(10, tokenizer_folder), tmp_path / "a", OPTIONS, report=seen.append)
    assert success.facts["last_loss"] < success.facts["first_loss"]
    assert set(success.facts["held_out"]) == {"loss", "loss/gmask", "loss/mask"}
    assert success.facts["rows"] == 8
    assert success.facts["held_out_rows"] == 2
    assert [line["step"] for line in seen] == [5, 10, 12]
    lines = [json.loads(line) for line in (tmp_path / "a" / METRICS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert {"loss", "loss/mask", "loss/gmask", "grad_norm", "lr", "samples", "loss_tokens"} <= set(lines[0])
    assert "tokens_per_second" in seen[0]
    assert not any("second" in key for key in lines[0])
    assert [path.stem for path in find_checkpoints(tmp_path / "a" / "checkpoints")] == [
        "step-00000012",
        "step-00000009",
    ]
    train_rows(data_of(10, tokenizer_folder), tmp_path / "b", OPTIONS)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_guard_rail_says_whether_the_model_beats_guessing_by_frequency(tmp_path, tokenizer_folder):
    long = msgspec.structs.replace(OPTIONS, steps=60, lr=0.02, checkpoint_every=0)
    success = train_rows(data_of(10, tokenizer_folder), tmp_path / "long", long)
    assert success.ok
    assert success.facts["last_loss"] < success.facts["unigram_entropy"]
    short = train_rows(data_of(10, tokenizer_folder), tmp_path / "short", msgspec.structs.replace(OPTIONS, steps=1))
    assert not short.ok
    assert "guessing by frequency" in short.checks[0].sentence


def test_saved_model_is_the_trained_one(tmp_path, tokenizer_folder):
    success = train_rows(data_of(10, tokenizer_folder), tmp_path / "a", OPTIONS)
    description, tensors = read_description(tmp_path / "a"), read_tensors(tmp_path / "a")
    model = build(description.model, seed=99)
    model.load_state_dict(tensors)
    found = losses.measure(model, ToyRows(10), np.array([2, 7])).means()
    assert found == pytest.approx(success.facts["held_out"], abs=1e-6)
    assert description.model.vocab == 512
    assert description.tokenizer != ""


RUN_TOY = """
import sys, pathlib, time
sys.path.insert(0, sys.argv[1])
from test_training_loop import OPTIONS, data_of
from glm_data.training.stage import train_rows
def tell(line):
    print(line["step"], flush=True)
    if line["step"] == 10:
        time.sleep(600)
train_rows(data_of(10, pathlib.Path(sys.argv[2])), pathlib.Path(sys.argv[3]), OPTIONS, report=tell)
"""


def test_kill_9_and_resume_gives_the_same_bytes(tmp_path, tokenizer_folder):
    train_rows(data_of(10, tokenizer_folder), tmp_path / "whole", OPTIONS)
    arguments = [
        sys.executable,
        "-c",
        RUN_TOY,
        str(Path(__file__).parent),
        str(tokenizer_folder),
        str(tmp_path / "killed"),
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert [process.stdout.readline() for _ in range(2)] == ["5\n", "10\n"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(find_checkpoints(tmp_path / "killed" / "checkpoints")) == 2
    train_rows(data_of(10, tokenizer_folder), tmp_path / "killed", OPTIONS)
    assert tree(tmp_path / "whole") == tree(tmp_path / "killed")


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("stop", "optimizer"), [(5, "adamw"), (10, "adamw"), (10, "muon")])
def test_resume_from_every_kind_of_leftover(tmp_path, tokenizer_folder, stop, optimizer):
    data = data_of(10, tokenizer_folder)
    options = msgspec.structs.replace(OPTIONS, optimizer=optimizer)
    train_rows(data, tmp_path / "whole", options)

    def die(line):
        if line["step"] == stop:
            raise KilledError

    with pytest.raises(KilledError):
        train_rows(data, tmp_path / "b", options, report=die)
    checkpoints = find_checkpoints(tmp_path / "b" / "checkpoints")
    if stop == 10:  # the newest is torn: the one before it must do
        checkpoints[0].write_bytes(checkpoints[0].read_bytes()[:1000])
    (tmp_path / "b" / "checkpoints" / ".tmp-1-step-00000009.safetensors").write_bytes(b"half")
    with (tmp_path / "b" / METRICS).open("ab") as metrics:
        metrics.write(b'{"step": 11, "los')
    train_rows(data, tmp_path / "b", options)
    assert tree(tmp_path / "whole") == tree(tmp_path / "b")


def test_metrics_lost_behind_a_checkpoint_are_named(tmp_path, tokenizer_folder):
    data = data_of(10, tokenizer_folder)

    def die(line):
        if line["step"] == 10:
            raise KilledError

    with pytest.raises(KilledError):
        train_rows(data, tmp_path / "b", OPTIONS, report=die)
    (tmp_path / "b" / METRICS).write_bytes(b"")
    with pytest.raises(GlmDataError, match="--overwrite"):
        train_rows(data, tmp_path / "b", OPTIONS)


def test_finished_run_is_not_done_again(tmp_path, tokenizer_folder):
    data = data_of(10, tokenizer_folder)
    first = train_rows(data, tmp_path / "a", OPTIONS)
    seen = []
    assert train_rows(data, tmp_path / "a", OPTIONS, report=seen.append) == first
    assert seen == []
    with pytest.raises(UsageError, match=r"lr 0\.01 -> 0\.02"):
        train_rows(data, tmp_path / "a", msgspec.structs.replace(OPTIONS, lr=0.02))


def test_loss_that_is_not_finite_is_one_sentence(tmp_path, tokenizer_folder):
    with pytest.raises(GlmDataError, match="lower lr"):
        train_rows(data_of(10, tokenizer_folder), tmp_path, msgspec.structs.replace(OPTIONS, lr=1e30, clip=0.0))


def test_missing_tokenizer_and_too_many_held_out_rows_are_named(tmp_path, tokenizer_folder):
    with pytest.raises(InputError, match=r"tokenizer\.model"):
        train_rows(data_of(10, tmp_path / "none"), tmp_path / "a", OPTIONS)
    with pytest.raises(UsageError, match="held_out_rows is 2"):
        train_rows(data_of(2, tokenizer_folder), tmp_path / "a", OPTIONS)


def test_options_that_cannot_be_meant_are_refused():
    for change in ({"batch_rows": 0}, {"lr": 0.0}, {"epochs": 0.0}, {"warmup_samples": -1}, {"log_every": 0}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            TrainOptions(**change)


def test_preset_with_replacements_and_steps_of_epochs():
    config = model_config(TrainOptions(model="110m", layers=3, norm="pre"), 512)
    assert (config.vocab, config.layers, config.hidden, config.norm) == (512, 3, 768, "pre")
    switched = model_config(TrainOptions(model="110m", positions="learned-2d", softmax="glm-130b"), 512)
    assert (switched.positions, switched.softmax, switched.layers) == ("learned-2d", "glm-130b", 12)
    assert step_bounds(TrainOptions(epochs=2.0, batch_rows=3), 10) == list(range(0, 22, 3))
    assert step_bounds(TrainOptions(steps=5), 10) == [0, 1, 2, 3, 4, 5]


@given(st.integers(1, 300), st.integers(0, 50), st.floats(0, 1))
@settings(deadline=None)
def test_learning_rate_rises_then_falls_to_its_floor(steps, warmup, ratio):
    rates = [learning_rate(step, steps - 1, warmup, 0.5, ratio) for step in range(steps)]
    top = min(warmup, steps - 1)
    assert max(rates) == rates[top] == 0.5
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert steps - top < 2 or rates[-1] == pytest.approx(0.5 * ratio, abs=1e-12)


@given(st.integers(1, 20), st.integers(1, 7), st.integers(0, 3))
@settings(deadline=None)
def test_every_epoch_visits_every_row_once(rows, batch_rows, seed):
    training = np.arange(rows) * 3 + 1
    steps = -(-2 * rows // batch_rows)
    seen = np.concatenate(
        [
            batches.rows_of_samples(step * batch_rows, (step + 1) * batch_rows, training, seed, order)[0]
            for step in range(steps)
        ]
    )
    for epoch in range(2):
        assert sorted(seen[epoch * rows : (epoch + 1) * rows]) == training.tolist()


@given(st.integers(1, 500), st.data())
@settings(deadline=None)
def test_held_out_rows_are_as_many_as_asked_and_apart(rows, data):
    wanted = data.draw(st.integers(0, rows - 1))
    training, held_out = batches.split_rows(rows, wanted)
    assert len(held_out) == wanted
    assert sorted([*training.tolist(), *held_out.tolist()]) == list(range(rows))


def test_weightings():
    flat = batches.flatten(ToyRows(4).batch([0, 1]))
    per_token, per_row = losses.loss_weights(flat, "token"), losses.loss_weights(flat, "sequence")
    assert per_token.tolist() == pytest.approx([1 / 27] * 27)
    assert per_row[flat.row_P == 0].tolist() == pytest.approx([0.5 / 20] * 20)
    assert per_row[flat.row_P == 1].tolist() == pytest.approx([0.5 / 7] * 7)


def test_gradient_of_a_step_does_not_depend_on_how_rows_are_batched():
    rows, config = ToyRows(4), ModelConfig(vocab=VOCAB, layers=2, hidden=16, heads=2, ffn=24)

    def gradient(groups):
        model = build(config, 0).double()
        total = sum(int(rows.batch([i]).loss_mask.sum()) for i in range(4))
        for group in groups:
            flat = batches.flatten(rows.batch(group))
            losses.batch_loss(model, flat, torch.full((len(flat.row_P),), 1 / total).double())[0].backward()
        return [p.grad for p in model.parameters()]

    for one, other in zip(gradient([[0, 1, 2, 3]]), gradient([[2], [0, 3], [1]]), strict=True):
        assert torch.allclose(one, other, atol=1e-14)


def test_flattened_batch_against_a_loop():
    batch = ToyRows(4).batch([1, 2])
    flat = batches.flatten(batch)
    expected = [
        (batch.tokens[r, c], batch.position_ids[r, c], kind, batch.targets[r, c] if batch.loss_mask[r, c] else -1)
        for r in range(2)
        for start, _, end, kind in batch.pieces[r].tolist()
        for c in range(start, end)
    ]
    target = np.full(len(flat.tokens_T), -1)
    target[flat.predict_P] = flat.targets_P
    kind = np.full(len(flat.tokens_T), -1)
    kind[flat.predict_P] = flat.kind_P
    found = list(zip(flat.tokens_T.tolist(), flat.positions_T.tolist(), target.tolist(), kind.tolist(), strict=True))
    assert sorted((t, p, y) for t, p, y, _ in found) == sorted((t, p, y) for t, p, _, y in expected)
    assert all((k >= 0) == (y >= 0) for _, _, y, k in found)


def test_loss_sums_by_kind_and_round_trip():
    sums = losses.LossSums()
    sums.add(torch.tensor([1.0, 2.0, 6.0]), np.array([0, 1, 1]))
    again = losses.LossSums(**json.loads(json.dumps({"nats": sums.nats, "tokens": sums.tokens})))
    assert again.means() == sums.means() == {"loss": 3.0, "loss/gmask": 1.0, "loss/mask": 4.0}


def test_unigram_entropy_of_targets():
    rows = ToyRows(6)
    batch = rows.batch(range(6))
    targets = batch.targets[batch.loss_mask == 1].tolist()
    shares = [targets.count(token) / len(targets) for token in set(targets)]
    expected = -sum(share * np.log(share) for share in shares)
    counts = losses.count_targets(rows, np.arange(6), VOCAB, batch_rows=4)
    assert losses.unigram_entropy(counts) == pytest.approx(expected)
    assert losses.unigram_entropy(np.array([5, 5])) == pytest.approx(np.log(2))


def test_dropout_is_a_function_of_the_step_and_off_when_measuring(tmp_path):
    options = msgspec.structs.replace(OPTIONS, dropout=0.5)
    trainers = [
        Trainer(Engine(build(model_config(options, VOCAB), 0), options), ToyRows(4), np.arange(4), order, tmp_path)
        for _ in range(2)
    ]
    (tmp_path / "_run").mkdir(exist_ok=True)
    torch.manual_seed(1)
    trainers[0].train_step(3)
    torch.manual_seed(2)
    trainers[1].train_step(3)
    first, second = (list(trainer.engine.model.parameters()) for trainer in trainers)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    means = [losses.measure(trainers[0].engine.model, ToyRows(4), np.arange(4)).means() for _ in range(2)]
    assert means[0] == means[1]
