"""Two runs beside each other: what was asked, what came of it, and which documents make the difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inspected_run import DROPPED, write_raw
from report_helpers import make_dedupe, make_filter, make_pack, make_stage, shard

from glm_data.cli.shell import run
from glm_data.report.compare import compare


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same shards filtered by two profiles."""
    folder = tmp_path_factory.mktemp("two")
    write_raw(folder)
    raw = [str(folder / "raw" / name) for name in ("pile", "wudao")]
    for name, profile in (("a", "bilingual"), ("b", "gopher")):
        flags = ["--profile", profile, "--max-bad-fraction", "1", "--max-source-loss", "1", "--workers", "1", "--quiet"]
        assert run(["filter", *raw, "--out", str(folder / name / "filter"), *flags]) == 0
    return folder / "a", folder / "b"


def test_equal_runs_are_the_same(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(runs[0]), str(runs[0])]) == 0
    assert capsys.readouterr().out == "the same in every stage, byte for byte\n"


def test_options_counts_and_documents_are_told(runs: tuple[Path, Path]) -> None:
    told = compare(*runs)
    stage = told["stages"]["filter"]
    assert not told["same"]
    assert ("options.profile", "bilingual", "gopher") in stage["options"]
    assert stage["inputs"] == []
    counts = {name: (before, after) for name, before, after in stage["counts"]}
    assert counts["kept"][0] > counts["kept"][1]
    assert "records" not in counts
    alone = [item for item in stage["documents"] if item["kept_by"] == "first"]
    assert alone
    assert all("dropped for" in item["other"] for item in alone)


def test_the_other_way_round_is_the_mirror_image(runs: tuple[Path, Path]) -> None:
    one, other = compare(*runs)["stages"]["filter"], compare(*reversed(runs))["stages"]["filter"]
    assert sorted(one["counts"]) == sorted((name, after, before) for name, before, after in other["counts"])
    sides = {"first": "second", "second": "first"}
    turned = [{**item, "kept_by": sides[item["kept_by"]]} for item in other["documents"]]
    assert sorted(map(str, turned)) == sorted(map(str, one["documents"]))
    assert DROPPED not in {item["id"] for item in one["documents"]}


def test_it_is_told_in_words(runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", *map(str, runs)]) == 0
    said = capsys.readouterr().out
    assert "filter  another result" in said
    assert "bilingual -> gopher" in said
    assert "kept by RUN_A alone: " in said
    assert "; --all shows them" in said
    assert run(["diff", *map(str, runs), "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"].keys() == {"filter"}


def differing(folder: Path) -> tuple[Path, Path]:
    make_filter(folder / "a")
    make_dedupe(folder / "a")
    make_filter(folder / "b")
    make_pack(folder / "b")
    return folder / "a", folder / "b"


def test_stages_that_one_run_lacks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = differing(tmp_path)
    stages: dict[str, Any] = compare(one, other)["stages"]
    assert stages["filter"]["same"]
    assert stages["dedupe"] == {"only": "first"}
    assert stages["pack"] == {"only": "second"}
    assert run(["diff", str(one), str(other)]) == 0
    assert "pack  only in RUN_B" in capsys.readouterr().out


def test_stages_without_readable_documents_are_compared_by_their_numbers(tmp_path: Path) -> None:
    make_filter(tmp_path / "a")
    records = [shard(0, 11, {"language": 3, "short": 2}, {"truncated": 1}), shard(1, 2, {"short": 1}, {})]
    make_stage(tmp_path / "b", "filter", records=records)
    stage = compare(tmp_path / "a", tmp_path / "b")["stages"]["filter"]
    assert not stage["same"]
    assert ("in/Pile", 9, None) in stage["counts"]
    assert "kept" not in {name for name, _, _ in stage["counts"]}
    assert stage["documents"] == []


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["diff", str(tmp_path), str(tmp_path)]) == 2
    assert "holds no stage; give the folder of a run or of a stage." in capsys.readouterr().err
