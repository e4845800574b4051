"""Progress read from a stage's folder, and what the output says where."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from glm_data import files
from glm_data.cli import progress
from glm_data.cli.output import Output, megabytes, table
from glm_data.stage import PLAN, SHARDS


def _plan(folder: Path, stage: str, inputs: int) -> None:
    files.write_json(folder / PLAN, {"stage": stage, "inputs": [{}] * inputs})


def _finish(folder: Path, shards: int) -> None:
    for shard in range(shards):
        files.write_json(folder / SHARDS / f"{shard:05d}.json", {})


def test_nothing_is_said_of_a_folder_that_is_not_begun(tmp_path: Path) -> None:
    assert progress.how_far(tmp_path) == ""
    (tmp_path / PLAN).write_text('{"stage": "fil')
    assert progress.how_far(tmp_path) == ""


def test_shards_are_counted_against_the_inputs(tmp_path: Path) -> None:
    _plan(tmp_path, "filter", 8)
    assert progress.how_far(tmp_path) == "0 of 8 shards"
    _finish(tmp_path, 3)
    assert progress.how_far(tmp_path) == "3 of 8 shards"


def test_more_shards_than_inputs_are_counted_alone(tmp_path: Path) -> None:
    _plan(tmp_path, "pack", 2)
    _finish(tmp_path, 5)
    assert progress.how_far(tmp_path) == "5 shards"


def test_the_newest_stage_within_a_stage_is_named(tmp_path: Path) -> None:
    _plan(tmp_path, "dedupe", 2)
    time.sleep(0.01)
    _plan(tmp_path / "_work" / "sign", "dedupe/sign", 2)
    _finish(tmp_path / "_work" / "sign", 1)
    assert progress.how_far(tmp_path) == "sign, 1 of 2 shards"


def test_training_shows_its_newest_whole_line(tmp_path: Path) -> None:
    _plan(tmp_path, "train", 9)
    assert progress.how_far(tmp_path) == ""
    (tmp_path / "metrics.jsonl").write_text('{"step":10,"loss":7.25,"lr":0.001}\n{"step":20,"loss":6.12345678}\n{"ste')
    assert progress.how_far(tmp_path) == "step 20, loss 6.123"


def test_following_writes_log_lines_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
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
