"""Progress read from a stage's folder, and what the output says where."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from glm_data import files
from glm_data import progress as meters
from glm_data.cli import progress
from glm_data.cli.output import Output, megabytes, table
from glm_data.cli.shell import run
from glm_data.stage import PLAN, SHARDS, SUCCESS
from pipelines import launcher


def _plan(folder: Path, stage: str, inputs: int, size: int = 0) -> None:
    files.write_json(folder / PLAN, {"stage": stage, "inputs": [{"bytes": size}] * inputs})
    time.sleep(0.01)  # steps are told apart by when they were begun


def _finish(folder: Path, shards: int, records: int = 0) -> None:
    for shard in range(shards):
        files.write_json(folder / SHARDS / f"{shard:05d}.json", {"records": records})


def how_far(folder: Path) -> str:
    return meters.Meter(folder).look(0.0)


def test_nothing_is_said_of_a_folder_that_is_not_begun(tmp_path: Path) -> None:
    assert how_far(tmp_path) == ""
    (tmp_path / PLAN).write_text('{"stage": "fil')
    assert how_far(tmp_path) == ""
    assert how_far(tmp_path / "none") == ""


def test_shards_are_counted_against_the_inputs(tmp_path: Path) -> None:
    _plan(tmp_path, "filter", 8)
    assert how_far(tmp_path) == "0 of 8 shards"
    _finish(tmp_path, 3)
    assert how_far(tmp_path) == "3 of 8 shards"
    (tmp_path / SUCCESS).touch()
    assert how_far(tmp_path) == ""


def test_more_shards_than_inputs_are_counted_alone(tmp_path: Path) -> None:
    _plan(tmp_path, "pack", 2)
    _finish(tmp_path, 5)
    assert how_far(tmp_path) == "5 shards"


def test_speed_and_time_left_are_those_of_this_run(tmp_path: Path) -> None:
    _plan(tmp_path, "filter", 10, 30_000_000)
    _finish(tmp_path, 2, records=1000)  # by an earlier run
    meter = meters.Meter(tmp_path)
    assert meter.look(100.0) == "2 of 10 shards, 2,000 documents"
    _finish(tmp_path, 4, records=1000)
    assert meter.look(104.0) == "4 of 10 shards, 4,000 documents, 15.0 MB/s, about 12 s left"
    (tmp_path / SHARDS / "00009.json").write_text("{")  # is being written
    assert meter.look(105.0) == "4 of 10 shards, 4,000 documents, 12.0 MB/s, about 15 s left"
    _finish(tmp_path, 10, records=1000)
    assert meter.look(112.0) == "10 of 10 shards, 10,000 documents, 20.0 MB/s"


def test_the_steps_of_a_stage_are_named_and_numbered(tmp_path: Path) -> None:
    _plan(tmp_path, "dedupe", 2)
    meter, work = meters.Meter(tmp_path), tmp_path / "_work"
    assert meter.look(0.0) == "0 of 3 shards"
    for number, step in enumerate(("sign", "exact", "bands", "sets", "select"), 1):
        _plan(work / step, f"dedupe/{step}", 2)
        _finish(work / step, 1)
        assert meter.look(0.0) == f"step {number} of 6, {step}: 1 of 2 shards"
        (work / step / SUCCESS).touch()
        if step == "bands":
            assert meter.look(0.0) == "after step bands: 0 of 3 shards"
    _finish(tmp_path, 1, records=7)
    assert meter.look(0.0) == "step 6 of 6, output: 1 of 3 shards, 7 documents"


def test_the_steps_are_those_that_a_run_takes(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one"}\n{"text": "one"}\n')
    assert run(["dedupe", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out"), "-q"]) == 0
    begun = sorted((tmp_path / "out/_work").glob(f"*/{PLAN}"), key=lambda path: path.stat().st_mtime_ns)
    kept = [step for step in meters.STEPS["dedupe"] if step != "sets"]  # bulk that goes with the end of the run
    assert [*(path.parent.name for path in begun), "output"] == kept


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (99.4, "99 s"), (100, "2 min"), (5400, "90 min"), (7500, "2 h 5 min")]
)
def test_times_are_as_exact_as_a_guess_deserves(seconds: float, said: str) -> None:
    assert meters.duration(seconds) == said


def test_training_shows_its_newest_whole_line(tmp_path: Path) -> None:
    _plan(tmp_path, "train", 9)
    assert how_far(tmp_path) == ""
    (tmp_path / "metrics.jsonl").write_text('{"step":10,"loss":7.25,"lr":0.001}\n{"step":20,"loss":6.12345678}\n{"ste')
    assert how_far(tmp_path) == "step 20, loss 6.123"


def test_training_shows_its_speed_and_the_time_left_counting_down(tmp_path: Path) -> None:
    _plan(tmp_path, "train", 9)
    (tmp_path / "metrics.jsonl").write_text('{"step":20,"loss":6.125}\n')
    speed = tmp_path / "_run/training.jsonl"
    speed.parent.mkdir(exist_ok=True)
    speed.write_text('{"step":10,"steps":300,"tokens_per_second":5100.4,"eta_seconds":90.0}\n')
    meter = meters.Meter(tmp_path)
    assert meter.look(1000.0) == "step 20, loss 6.125"  # the speed is an older line's
    with speed.open("a") as handle:
        handle.write('{"step":20,"steps":300,"tokens_per_second":5100.4,"eta_seconds":90.0}\n')
    assert meter.look(1000.0) == "step 20 of 300, loss 6.125, 5,100 tokens/s, about 90 s left"
    assert meter.look(1030.0) == "step 20 of 300, loss 6.125, 5,100 tokens/s, about 60 s left"
    assert meter.look(1095.0) == "step 20 of 300, loss 6.125, 5,100 tokens/s"


def test_line_of_a_real_clock_is_understood(tmp_path: Path) -> None:
    from glm_data.model.config import ModelConfig
    from glm_data.training.metrics import Clock
    from glm_data.training.options import TrainOptions

    (tmp_path / "_run").mkdir()
    sources = {f"loss/source/the {number}th data set of many": 1.0 for number in range(300)}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 4, "loss": 1.0, **sources}) + "\n")
    config = ModelConfig(vocab=10, layers=1, hidden=4, heads=1, ffn=8)
    clock = Clock(tmp_path / "_run", config, TrainOptions(), 1_000_000_000)
    clock.count(3, 2, 5, 0.0)
    clock.lap({"step": 4, "loss": 1.0})
    said = how_far(tmp_path)
    assert said.startswith("step 4 of 1000000000, loss 1, ")
    assert said.endswith(" left")


def test_following_writes_log_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meters, "LOG_SECONDS", 0.02)
    _plan(tmp_path, "filter", 4)
    with progress.follow(Output(), tmp_path, "filter"):
        _finish(tmp_path, 2)
        time.sleep(0.2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].endswith(" filter: 2 of 4 shards")
    with progress.follow(Output(quiet=True), tmp_path, "filter"):
        time.sleep(0.05)
    assert capsys.readouterr() == ("", "")


def test_a_pipeline_run_as_such_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meters, "LOG_SECONDS", 0.01)
    (tmp_path / "in.jsonl").write_text("\n".join(f'{{"text": "document {n} of many"}}' for n in range(3000)))
    assert launcher.main(["run", "dedupe", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("dedupe: 3,000 records")
    assert "dedupe: step 1 of 6, sign: 0 of 1 shards\n" in said.err


def test_results_go_to_standard_output_and_notes_do_not(capsys: pytest.CaptureFixture[str]) -> None:
    for output in (Output(), Output(as_json=True), Output(quiet=True)):
        output.say("said")
        output.note("noted")
        output.answer("answered")
        output.value({"value": "值"})
    said = capsys.readouterr()
    assert said.out == 'said\nanswered\n{\n "value": "值"\n}\nanswered\n'
    assert said.err == "noted\nnoted\n"


def test_sizes_have_the_unit_that_fits() -> None:
    assert [megabytes(size) for size in (900, 123_456, 2_500_000, 3_200_000_000)] == [
        "0.9 kB",
        "0.1 MB",
        "2.5 MB",
        "3.2 GB",
    ]


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    assert table([("狐狸", "1"), ("fox", "22")]) == ["狐狸  1", "fox   22"]


def test_a_stage_whose_shards_are_not_its_inputs_counts_its_tasks(tmp_path: Path) -> None:
    _plan(tmp_path, "pack", inputs=3, size=7)
    files.write_json(tmp_path / "_run/tasks.json", [5, 5, 5, 5, 5])
    _finish(tmp_path, shards=2, records=10)
    assert how_far(tmp_path) == "2 of 5 shards, 20 documents"
