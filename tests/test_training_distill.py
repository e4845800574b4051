"""Distillation: the loss against a plain twin, learning from a teacher alone, and what is refused."""

import json
import math
import shutil

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training_loop import OPTIONS, VOCAB, ToyRows, data_of, tokenizer_folder  # noqa: F401 - a fixture

from glm_data.errors import ConfigError, InputError, UsageError
from glm_data.model.attention import PieceAttention
from glm_data.model.model import build
from glm_data.training import distill
from glm_data.training.batches import flatten
from glm_data.training.distill import Teacher, distilled_loss
from glm_data.training.engine import Engine
from glm_data.training.options import TrainOptions, model_config
from glm_data.training.stage import train_rows

TOY = msgspec.structs.replace(OPTIONS, dropout=0.0, steps=4, checkpoint_every=2, held_out_rows=0)
CONFIG = model_config(TOY, VOCAB)
WIDER = msgspec.structs.replace(CONFIG, layers=1, hidden=24)


def scores(model, batch):
    return model(batch.tokens_T, batch.positions_T, PieceAttention(batch.groups, 0.0), batch.predict_P)


@pytest.mark.parametrize(("share", "temperature"), [(0.3, 2.0), (1.0, 1.0)])
def test_loss_is_that_of_a_plain_twin(monkeypatch, share, temperature):
    monkeypatch.setattr(distill, "CHUNK", 7)
    student, teacher = build(CONFIG, 0).double(), build(WIDER, 1).double()
    batch = flatten(ToyRows(4).batch(range(4)))
    weights = torch.rand(len(batch.targets_P), generator=torch.Generator().manual_seed(0))
    assert len(weights) % 7
    loss, losses = distilled_loss(student, batch, weights, Teacher(teacher, share, temperature))
    loss.backward()
    found = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    ours, theirs = scores(student, batch), scores(teacher, batch).detach()
    p, q = (theirs / temperature).softmax(1), (ours / temperature).softmax(1)
    hard = -ours.log_softmax(1)[torch.arange(len(weights)), batch.targets_P]
    soft = (p * (p.log() - q.log())).sum(1)
    plain = (weights * ((1 - share) * hard + share * temperature**2 * soft)).sum()
    plain.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert torch.allclose(losses, hard.float().detach(), atol=1e-5)
    for gradient, parameter in zip(found, student.parameters(), strict=True):
        assert torch.allclose(gradient, parameter.grad, atol=1e-5)


def test_student_comes_to_its_teacher_without_a_target():
    rows, teacher = ToyRows(4), build(WIDER, 1)
    with torch.no_grad():
        teacher.word_embeddings.weight.mul_(30)  # so that it is sure of something
    options = msgspec.structs.replace(TOY, optimizer="adamw", lr=0.01, teacher_share=1.0)
    engine = Engine(build(CONFIG, 0), options, Teacher(teacher, 1.0, 1.0))
    batch = flatten(rows.batch(range(4)))

    def distance():
        with torch.no_grad():
            ours, theirs = (scores(model, batch).log_softmax(1) for model in (engine.model, teacher))
            return F.kl_div(ours, theirs, reduction="batchmean", log_target=True).item()

    before = distance()
    for _ in range(30):
        engine.gradients(engine.microbatches(rows, np.arange(4), np.zeros(4, np.int64)))
        engine.norm()
        engine.update(1.0)
    assert distance() < before / 2
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tokenizer_folder):  # noqa: F811
    folder = tmp_path_factory.mktemp("taught") / "teacher"
    train_rows(data_of(8, tokenizer_folder), folder, TOY)
    return folder


def test_stage_depends_on_the_teachers_weights(tmp_path, taught, tokenizer_folder):  # noqa: F811
    data, teacher = data_of(8, tokenizer_folder), tmp_path / "teacher"
    shutil.copytree(taught, teacher)
    options = msgspec.structs.replace(TOY, teacher=str(teacher), seed=1)
    first = train_rows(data, tmp_path / "student", options)
    assert math.isfinite(first.facts["last_loss"])
    alone = train_rows(data, tmp_path / "alone", msgspec.structs.replace(TOY, seed=1))
    assert first.facts["last_loss"] != alone.facts["last_loss"]
    assert train_rows(data, tmp_path / "student", options).key == first.key
    weights = teacher / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UsageError):
        train_rows(data, tmp_path / "student", options)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        train_rows(data, tmp_path / "student", options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer": "0" * 32}, "another tokenizer"),
        ({"quantization": {"bits": 4}}, "is quantised"),
        ({"positions": "learned-2d"}, "positions"),
    ],
)
def test_teachers_of_another_kind_are_refused(tmp_path, taught, tokenizer_folder, change, words):  # noqa: F811
    shutil.copytree(taught, tmp_path / "teacher")
    path = tmp_path / "teacher" / "config.json"
    values = json.loads(path.read_text())
    if "positions" in change:
        values["model"] |= change
    else:
        values |= change
    path.write_text(json.dumps(values))
    options = msgspec.structs.replace(TOY, teacher=str(tmp_path / "teacher"))
    with pytest.raises(UsageError, match=words):
        train_rows(data_of(8, tokenizer_folder), tmp_path / "student", options)


def test_bad_numbers_and_folders_are_refused(tmp_path, tokenizer_folder):  # noqa: F811
    for bad in ({"teacher_share": 0.0}, {"teacher_share": 1.5}, {"teacher_temperature": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            TrainOptions(**bad)
    options = msgspec.structs.replace(TOY, teacher=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="holds no model"):
        train_rows(data_of(8, tokenizer_folder), tmp_path / "student", options)
