"""What a run tells on its way: losses by language and source whoever starts it, speed, TensorBoard's events."""

import json
import shutil
import sys

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
from loading_packs import write_pack
from test_training_loop import OPTIONS, data_of, tokenizer_folder  # noqa: F401 - a fixture

from glm_data import recipe
from glm_data.errors import GlmDataError, MissingExtraError
from glm_data.training import parallel
from glm_data.training.cluster import train_parallel
from glm_data.training.parallel import Layout
from glm_data.training.stage import pack_data, train_rows
from tokenizer import Tokenizer

OPTIONS = msgspec.structs.replace(OPTIONS, optimizer="adamw", dropout=0.0, micro_rows=1, steps=6, log_every=2)
LABELS = {"loss/lang/en", "loss/lang/zh", "loss/source/a", "loss/source/b", "loss/source/c"}


@pytest.fixture(scope="module")
def pack(tmp_path_factory, tokenizer_folder):  # noqa: F811
    """Ten rows, each a document, of two languages and three sources."""
    fingerprint = Tokenizer.load(tokenizer_folder).fingerprint
    folder = write_pack(tmp_path_factory.mktemp("watch") / "pack", rows=10, per_shard=10, fingerprint=fingerprint)
    documents = {"lang": ["en", "zh"] * 5, "source": ["a", "b", "c", "a", "c"] * 2}
    pq.write_table(pa.table(documents), folder / "documents.parquet")
    for name in ("tokenizer.model", "tokenizer.json"):
        shutil.copyfile(tokenizer_folder / name, folder / name)
    return folder


@pytest.fixture
def alone():
    """This process as the only one of a gloo group."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("alone")
def test_losses_are_told_apart_whoever_starts_the_run(tmp_path, pack):
    recipe.perform(recipe.Step(stage="train", inputs=(str(pack),), out=tmp_path / "one", options=OPTIONS), None)
    train_parallel(pack_data(pack), tmp_path / "many", OPTIONS, Layout())
    one, many = (lines_of(tmp_path / name / "metrics.jsonl") for name in ("one", "many"))
    assert set().union(*one) >= LABELS
    for ours, theirs in zip(many, one, strict=True):
        assert ours == {name: pytest.approx(value, rel=1e-5) for name, value in theirs.items()}
    speeds = [lines_of(tmp_path / name / "_run" / "training.jsonl") for name in ("one", "many")]
    for ours, theirs in zip(*speeds, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["tokens_per_second"] > ours["loss_tokens_per_second"] > 0
        tokens = [line["tokens_per_second"] / line["flops_per_second"] for line in (ours, theirs)]
        assert tokens[0] == pytest.approx(tokens[1]), "the same tokens and operations are counted"


@pytest.mark.usefixtures("alone")
def test_steps_left_out_over_many_processes_are_told_with_their_rows(tmp_path, monkeypatch, tokenizer_folder):  # noqa: F811
    whole, broken = parallel.Stage._weighted_losses, {1, 2, 5}
    calls = []

    def breaking(stage, x, batch, number):
        losses = whole(stage, x, batch, number)
        calls.append(number)
        if (len(calls) + 1) // 2 in broken:  # two microbatches a step
            stage.losses[number] = stage.losses[number] * torch.where(torch.tensor(number == 1), torch.nan, 1.0)
        return losses

    monkeypatch.setattr(parallel.Stage, "_weighted_losses", breaking)
    data = data_of(8, tokenizer_folder)
    options = msgspec.structs.replace(OPTIONS, log_every=1, checkpoint_every=3, spike_patience=3)
    train_parallel(data, tmp_path / "run", options, Layout())
    spikes = lines_of(tmp_path / "run" / "spikes.jsonl")
    assert [line["step"] for line in spikes] == [1, 2, 5]
    assert all(len(line["rows"]) == len(line["row_losses"]) == 2 for line in spikes)
    assert all(line["row_losses"][0] > 0 and line["row_losses"][1] is None for line in spikes)
    assert [line.get("left_out", 0) for line in lines_of(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 2, 2, 3, 3]
    newest = tmp_path / "run" / "checkpoints" / "step-00000006"
    shutil.rmtree(newest)
    (tmp_path / "run" / "_SUCCESS.json").unlink()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    calls[:] = [0] * 6
    train_parallel(data, tmp_path / "run", options, Layout())
    assert lines_of(tmp_path / "run" / "spikes.jsonl") == spikes
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    broken |= set(range(1, 7))
    calls.clear()
    with pytest.raises(GlmDataError, match="3 steps in a row"):
        train_parallel(data, tmp_path / "broken", options, Layout())
    assert [line["step"] for line in lines_of(tmp_path / "broken" / "spikes.jsonl")] == [1, 2, 3]


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_events_are_the_lines_each_once_though_the_run_was_broken_off(tmp_path, pack):
    data, seen = pack_data(pack), []

    def stop(line):
        seen.append(line)
        if len(seen) == 2:  # behind step 4, whose line has to be written again from the checkpoint of step 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rows(data, tmp_path / "run", OPTIONS, report=stop)
    watched = msgspec.structs.replace(OPTIONS, tensorboard=True)
    train_rows(data, tmp_path / "run", watched)
    train_rows(data, tmp_path / "whole", OPTIONS)
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    events = events_of(tmp_path / "run" / "_run" / "tensorboard")
    lines = lines_of(tmp_path / "run" / "metrics.jsonl")
    for name in set().union(*lines) - {"step"}:
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        assert events[name] == expected, name
    assert [step for step, _ in events["tokens_per_second"]] == [2, 4, 6]
    assert train_rows(data, tmp_path / "run", OPTIONS).facts["steps"] == 6, "finished, whatever is watched"


def test_missing_package_is_one_sentence_before_anything_is_begun(tmp_path, tokenizer_folder, monkeypatch):  # noqa: F811
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glm-data\[tensorboard\]'"):
        train_rows(data_of(8, tokenizer_folder), tmp_path / "run", msgspec.structs.replace(OPTIONS, tensorboard=True))
    assert not (tmp_path / "run").exists()
