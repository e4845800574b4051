"""``glm-data run`` from raw shards to INT4 infilling on a very small input: the same bytes however it got there."""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_jobs import RECIPE, write_corpus, write_evaluation, write_mixture

from glm_data import recipe as recipes
from glm_data.cli.shell import run
from glm_data.cli.stages import command_line
from glm_data.demo_input import write_demo_input
from glm_data.files import digest_file
from glm_data.recipe import STAGES


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_demo_input(folder / "raw", 2, write_corpus(folder / "corpus"))
    write_mixture(folder / "mip")
    write_evaluation(folder)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe: Path) -> tuple[Path, int]:
    """A run from beginning to end, and its exit code."""
    folder = recipe.parent / "undisturbed"
    return folder, run(["run", str(recipe), "--out", str(folder), "--quiet"])


def tree(folder: Path) -> dict[str, str]:
    """Digests of all files that have to be the same in every run."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and "_run" not in relative.parts and not relative.name.startswith("report."):
            found[relative.as_posix()] = digest_file(path)
    return found


def report_of(folder: Path) -> dict[str, Any]:
    """The report but for its part that tells time and place."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del report["run"]
    return report


def _start(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "glm_data.cli", "run", str(recipe), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait_for_files(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Return when ``out`` holds ``count`` files, temporary ones included, or the process has ended."""
    while process.poll() is None and sum(len(found) for _, _, found in os.walk(out)) < count:
        time.sleep(0.02)


def test_a_run_makes_every_stage_and_its_report(undisturbed: tuple[Path, int]) -> None:
    folder, code = undisturbed
    report = report_of(folder)
    assert tuple(sorted(report["stages"])) == tuple(sorted(STAGES))
    assert code == (0 if report["ok"] else 3)
    for name, stage in report["stages"].items():
        accounted = stage["kept"] + sum(stage["dropped"].values()) + sum(stage["unreadable"].values())
        assert stage["records"] == accounted > 0, name
    assert report["stages"]["dedupe"]["dropped"].keys() == {"exact", "near"}
    assert report["stages"]["decontaminate"]["facts"]["benchmarks"]["Stories"]["items_found"] == 2
    assert sum(report["stages"]["filter"]["unreadable"].values()) >= 6
    assert [len(sample["filled"]) for sample in json.loads((folder / "infill.json").read_text("utf-8"))] == [1, 1]
    assert (folder / "report.html").stat().st_size > 1000


def test_each_printed_command_alone_makes_the_same_bytes(recipe: Path, undisturbed: tuple[Path, int]) -> None:
    alone = recipe.parent / "alone"
    codes = [
        run([*shlex.split(command_line(step, recipe))[1:], "--quiet"])
        for step in recipes.steps(recipes.load(recipe), alone)
    ]
    assert set(codes) <= {0, 3}
    expected = {name: digest for name, digest in tree(undisturbed[0]).items() if name != "infill.json"}
    assert tree(alone) == expected


def test_running_again_does_nothing_again(
    recipe: Path, undisturbed: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, code = undisturbed
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.parent != folder}
    assert run(["run", str(recipe), "--out", str(folder)]) == code
    assert capsys.readouterr().out.count("already done") == len(STAGES)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert {path for path in before if before[path] != after[path] and path.name != "lock"} == set()


def test_a_changed_option_is_refused_then_only_what_it_touches_is_done_again(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = recipe.parent / "changed"
    arguments = ["run", str(recipe), "--out", str(out), "--until", "tokenizer", "--quiet"]
    assert run(arguments) == 0
    before = tree(out)
    other = recipe.with_name("other.yaml")
    other.write_text(RECIPE.replace("threshold: 0.6", "threshold: 0.5"), encoding="utf-8")
    arguments[1] = str(other)
    assert run(arguments) == 2
    assert "threshold 0.6 -> 0.5" in capsys.readouterr().err
    assert tree(out) == before
    filtered = (out / "filter" / "_SUCCESS.json").stat().st_mtime_ns
    assert run([*arguments, "--overwrite"]) == 0
    assert (out / "filter" / "_SUCCESS.json").stat().st_mtime_ns == filtered
    assert json.loads((out / "dedupe" / "_plan.json").read_bytes())["options"]["threshold"] == 0.5


def test_two_workers_make_the_same_bytes_as_one(recipe: Path, undisturbed: tuple[Path, int]) -> None:
    out = recipe.parent / "two"
    code = run(["run", str(recipe), "--out", str(out), "--until", "filter", "--workers", "2", "--quiet"])
    assert code in (0, 3)
    expected = tree(undisturbed[0])
    assert tree(out) == {name: expected[name] for name in expected if name.startswith("filter/")}


def test_killed_twice_and_run_again_gives_the_same_bytes(recipe: Path, undisturbed: tuple[Path, int]) -> None:
    out, expected = recipe.parent / "killed", tree(undisturbed[0])
    files = sum(1 for path in undisturbed[0].rglob("*") if path.is_file())
    seed = random.SystemRandom().randrange(1 << 32)
    moments = sorted(random.Random(seed).sample(range(3, files), 2))
    for moment in moments:
        process = _start(recipe, out)
        _wait_for_files(process, out, moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert run(["run", str(recipe), "--out", str(out), "--quiet"]) == undisturbed[1]
    assert report_of(out) == report_of(undisturbed[0])
    assert tree(out) == expected, f"killed at {moments} of {files} files (seed {seed})"


def test_sigterm_ends_with_130_and_says_how_to_go_on(recipe: Path, undisturbed: tuple[Path, int]) -> None:
    out = recipe.parent / "stopped"
    process = _start(recipe, out)
    _wait_for_files(process, out, 12)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"To go on: glm-data run {recipe} --out {out}" in said
    assert "Traceback" not in said
    assert run(["run", str(recipe), "--out", str(out), "--until", "filter", "--quiet"]) == 0
    expected = tree(undisturbed[0])
    made = {name: digest for name, digest in tree(out).items() if name.startswith("filter/")}
    assert made == {name: expected[name] for name in expected if name.startswith("filter/")}


def test_json_is_one_document_and_quiet_is_silent(
    recipe: Path, undisturbed: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, code = undisturbed
    arguments = ["run", str(recipe), "--out", str(folder), "--until", "dedupe"]
    assert run([*arguments, "--json"]) == code or code == 3
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(value["stages"]) == ["filter", "dedupe"]
    assert value["seconds"].keys() == value["stages"].keys()
    run([*arguments, "--quiet"])
    assert capsys.readouterr() == ("", "")


def test_the_trained_model_answers_through_the_commands(
    undisturbed: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = undisturbed
    report = json.loads((folder / "infill.json").read_text(encoding="utf-8"))
    prompts = [completion["prompt"] for completion in report]
    model = str(folder / "quantize")
    assert run(["infill", model, prompts[0], "--max-length", "8", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["filled"] == report[0]["filled"]
    assert said["text"] == prompts[0].replace("[MASK]", said["filled"][0])
    assert run(["generate", model, prompts[1], "--max-length", "8", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert [said["continuation"]] == report[1]["filled"]
    assert run(["infill", model, "no blank here"]) == 2
    capsys.readouterr()
    assert run(["eval", model, str(folder / "pack"), "--held-out-rows", "1", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["all"]["tokens"] == sum(item["tokens"] for kind, item in scores.items() if kind != "all") > 0
    assert scores["all"]["bits_per_byte"] > 0
    assert run(["eval", model, str(folder / "pack"), "--held-out-rows", "100000"]) == 2
    assert run(["generate", model, "a [MASK] inside"]) == 2
    assert capsys.readouterr().err.count("glm-data: ") == 2


def test_beam_run_is_the_same_as_the_command(
    recipe: Path, undisturbed: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = recipe.parent / "raw"
    pipeline = [sys.executable, "-m", "glm_data.cli", "beam", "run", "pipelines/filter.py"]
    inputs = [str(raw / "pile"), str(raw / "wudao"), "--output", str(tmp_path / "filter"), "--max-bad-fraction", "0.1"]
    done = subprocess.run(
        [*pipeline, *inputs],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=dict(os.environ),
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    expected = {name: digest for name, digest in tree(undisturbed[0]).items() if name.startswith("filter/")}
    assert tree(tmp_path) == expected


def test_the_report_shows_rows_clusters_and_where_options_come_from(undisturbed: tuple[Path, int]) -> None:
    report = json.loads((undisturbed[0] / "report.json").read_text("utf-8"))
    rows, pack = report["rows"], report["stages"]["pack"]
    assert rows["rows"] == pack["facts"]["rows"]
    assert sum(rows["lengths"]) == pack["counts"]["spans/mask"] == rows["fit"]["spans"]
    assert sum(rows["expected"]) == pytest.approx(sum(rows["lengths"]), abs=1)
    assert sum(rows["suffixes"]) == pack["counts"]["pieces/gmask"]
    for example in rows["examples"]:
        numbers = [part for part in example["part_a"] if isinstance(part, int)]
        assert sorted(numbers) == list(range(1, len(example["part_b"]) + 1))
    assert "".join(report["tokenizer"][0]["pieces"]) == report["tokenizer"][0]["text"]
    duplicates = report["duplicates"]
    assert sum(map(sum, duplicates["overlap"]["removed"])) == duplicates["removed"]
    assert duplicates["clusters"][0]["documents"] == duplicates["facts"]["largest_cluster"]
    assert all(row["removed"] in duplicates["excerpts"] for row in duplicates["examples"])
    origins = {line["option"]: line["origin"] for line in report["run"]["origins"]["pack"]}
    assert (origins["seq_length"], origins["seed"], origins["bans"]) == ("recipe", "default", "default")
    assert report["run"]["stages"]["pack"]["packages"].keys() >= {"numpy", "pyarrow"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_a_report_of_its_own(undisturbed: tuple[Path, int], stage: str, capsys) -> None:
    folder = undisturbed[0] / stage
    page = folder / "_run" / "report.html"
    before = page.read_bytes()
    assert run(["report", str(folder), "--json"]) in (0, 3)
    assert list(json.loads(capsys.readouterr().out)["stages"]) == [stage]
    assert page.read_bytes() == before


def test_a_flag_is_told_from_a_default(recipe: Path, undisturbed: tuple[Path, int], tmp_path: Path) -> None:
    shard = next((undisturbed[0] / "filter" / "data").glob("*.parquet"))
    given = ["--recipe", str(recipe), "--max-source-loss", "1", "--out", str(tmp_path / "out"), "--quiet"]
    assert run(["dedupe", str(shard), *given]) == 0
    told = json.loads((tmp_path / "out/_run/report.json").read_text("utf-8"))["run"]["origins"]["out"]
    origins = {line["option"]: line["origin"] for line in told}
    assert origins["max_source_loss"] == "command line"
    assert origins["ngram"] == "default"
