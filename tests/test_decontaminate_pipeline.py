"""The decontaminate stage: what stands in an evaluation set is gone from the output, and nothing else is."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stage_helpers import contents
from test_decontaminate_search import FILLER, QUESTION, RIDDLE, TRADITIONAL, write_manifest

from glm_data.cli.shell import run as run_cli
from glm_data.decontaminate import DecontaminateOptions
from glm_data.documents import SCHEMA
from glm_data.errors import StageMismatchError
from glm_data.stage import Stage, Success
from pipelines import decontaminate as pipeline
from pipelines.runner import RunnerOptions, run_and_record

ONE = RunnerOptions(workers=1)
WORDS = ["stone", "river", "lamp", "winter", "market", "bridge", "copper", "garden", "letter", "window", "harbour"]


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare Beam's start for runs that are not about it."""

    def run_tasks(opened: Stage, function: Any, tasks: Any, options: RunnerOptions) -> None:
        for task in tasks:
            if task.shard in opened.pending(len(tasks)):
                run_and_record(function, task)

    monkeypatch.setattr(pipeline, "run_tasks", run_tasks)


in_process = pytest.mark.usefixtures("_in_process")


def prose(seed: int, words: int = 120) -> str:
    """English that no other seed shares 13 words of."""
    rng = random.Random(seed)
    return " ".join(rng.choice(WORDS) for _ in range(words))


def write_shards(folder: Path, *shards: list[str], source: str = "web") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, texts in enumerate(shards):
        rows = [json.dumps({"text": text, "meta": {"pile_set_name": source}}, ensure_ascii=False) for text in texts]
        (folder / f"{number:02d}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def run(shards: Path, evaluation: Path, out: Path, runner: RunnerOptions = ONE, **options: Any) -> Success:
    return pipeline.run([shards], out, DecontaminateOptions(evaluation=str(evaluation), **options), runner)


def table(out: Path, success: Success, kind: str) -> list[dict[str, Any]]:
    names = [item.name for item in success.files if item.name.startswith(f"{kind}/")]
    return pa.concat_tables([pq.read_table(out / name) for name in names]).to_pylist() if names else []


LONG_ENGLISH = f"{prose(1)} {QUESTION} {prose(2)}"
LONG_CHINESE = f"{FILLER * 5}{TRADITIONAL}{FILLER * 5}"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two shards, and an evaluation of two items of which one is in both languages' documents."""
    folder = tmp_path_factory.mktemp("job")
    shards = write_shards(
        folder / "shards", [prose(3), LONG_ENGLISH, f"Say: {QUESTION}"], [prose(4), LONG_CHINESE, RIDDLE, "天"]
    )
    return shards, write_manifest(folder / "sets", en=[{"q": QUESTION}], zh=[{"q": RIDDLE}, {"q": prose(9)}])


@in_process
def test_what_was_found_is_cut_out_and_listed_and_all_else_stays(job: tuple[Path, Path], tmp_path: Path) -> None:
    success = run(*job, tmp_path / "out")
    assert (success.records, success.kept, success.dropped) == (7, 5, {"nothing_left": 2})
    texts = [row["text"] for row in table(tmp_path / "out", success, "data")]
    assert texts[0] == prose(3)
    assert texts[2] == prose(4)
    assert texts[4] == "天"
    left, right = texts[1].split("\n\n")
    begin = LONG_ENGLISH.index(QUESTION)
    assert left == LONG_ENGLISH[: begin - 200].strip()
    assert LONG_ENGLISH.endswith(right)
    assert TRADITIONAL[:8] not in texts[3]
    assert [row["reason"] for row in table(tmp_path / "out", success, "dropped")] == ["nothing_left"] * 2
    ledger = table(tmp_path / "out", success, "ledger")
    assert [(row["id"], row["benchmark"], row["item"], row["action"]) for row in ledger] == [
        ("shards/00.jsonl#1", "en", "sets/en.jsonl#0", "cut"),
        ("shards/00.jsonl#2", "en", "sets/en.jsonl#0", "nothing_left"),
        ("shards/01.jsonl#1", "zh", "sets/zh.jsonl#0", "cut"),
        ("shards/01.jsonl#2", "zh", "sets/zh.jsonl#0", "nothing_left"),
    ]
    for row, text in zip(ledger, (LONG_ENGLISH, f"Say: {QUESTION}", LONG_CHINESE, RIDDLE), strict=True):
        assert text.encode()[row["start"] :].startswith(row["text"].encode())
        assert row["containment"] == 1.0


@in_process
def test_the_facts_say_what_was_found_of_each_benchmark(job: tuple[Path, Path], tmp_path: Path) -> None:
    success = run(*job, tmp_path / "out")
    facts = success.facts["benchmarks"]
    assert {name: (fact["items"], fact["items_found"], fact["documents"]) for name, fact in facts.items()} == {
        "en": (1, 1, 2), "zh": (2, 1, 2),
    }  # fmt: skip
    assert facts["zh"]["examples"][0]["text"] in TRADITIONAL
    assert success.counts["in/web"] == success.counts["kept/web"] + success.counts["dropped/web"] == 7
    assert success.counts["cut/web"] == 2
    assert success.counts["text_bytes_in"] > success.counts["text_bytes_kept"]
    assert success.ok


@in_process
def test_documents_are_dropped_where_that_is_asked_for(job: tuple[Path, Path], tmp_path: Path) -> None:
    success = run(*job, tmp_path / "out", action="drop")
    assert success.dropped == {"contaminated": 4}
    assert [row["text"] for row in table(tmp_path / "out", success, "data")] == [prose(3), prose(4), "天"]


@in_process
def test_a_text_in_pieces_is_dropped(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [" ".join(prose(seed) + QUESTION for seed in range(4)), prose(20)])
    evaluation = write_manifest(tmp_path / "sets", en=[{"q": QUESTION}])
    assert run(shards, evaluation, tmp_path / "out", most_cuts=3).dropped == {"too_many_cuts": 1}
    assert run(shards, evaluation, tmp_path / "other", most_cuts=4).dropped == {}


@in_process
def test_what_is_common_in_the_corpus_is_no_evidence_and_is_said(tmp_path: Path) -> None:
    motto = "ask not what your country can do for you, ask what you can do for your country, my fellow citizens"
    shards = write_shards(tmp_path / "shards", [f"{prose(seed)} {motto} {prose(99 + seed)}" for seed in range(6)])
    evaluation = write_manifest(tmp_path / "sets", en=[{"q": motto}])
    spared = run(shards, evaluation, tmp_path / "spared", common_documents=5)
    assert spared.counts["spared/en"] == 6
    assert spared.facts["benchmarks"]["en"]["spared_documents"] == 6
    assert not table(tmp_path / "spared", spared, "ledger")
    cut = run(shards, evaluation, tmp_path / "cut", common_documents=6)
    assert cut.counts["cut/web"] == 6


@in_process
def test_guard_rails_trip_on_a_source_and_on_a_benchmark(tmp_path: Path) -> None:
    texts = [prose(seed, 60) for seed in range(92)] + [
        f"{prose(200 + seed)} {QUESTION} {prose(300 + seed)}" for seed in range(8)
    ]
    shards = write_shards(tmp_path / "shards", texts)
    evaluation = write_manifest(tmp_path / "sets", en=[{"q": QUESTION}])
    success = run(shards, evaluation, tmp_path / "out")
    assert {check.name: check.ok for check in success.checks} == {
        "source-hits": False, "benchmark-hits": False, "unreadable": True,
    }  # fmt: skip
    assert success.checks[0].sentence == "8.00% of source 'web' was cut or dropped (limit 5.00%)."
    assert run(shards, evaluation, tmp_path / "wide", max_source_hits=0.08, max_benchmark_hits=0.08).ok


@in_process
def test_unreadable_records_and_columns_of_ours_are_kept(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [prose(1), LONG_ENGLISH])
    with (folder / "00.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": \n')
    evaluation = write_manifest(tmp_path / "sets", en=[{"q": QUESTION}])
    success = run(folder, evaluation, tmp_path / "out", max_bad_fraction=0.5)
    assert success.unreadable == {"malformed_json": 1}
    assert (success.records, success.kept) == (3, 2)
    rows = [dict.fromkeys(SCHEMA.names, "x") | {"text": text} for text in (prose(1), LONG_ENGLISH)]
    own = pa.Table.from_pylist(rows, SCHEMA).append_column("duplicates", pa.array([3, 4], pa.uint32()))
    (tmp_path / "own").mkdir()
    pq.write_table(own, tmp_path / "own" / "00.parquet")
    kept = table(tmp_path / "more", run(tmp_path / "own", evaluation, tmp_path / "more"), "data")
    assert [row["duplicates"] for row in kept] == [3, 4]
    assert kept[1]["text"] != LONG_ENGLISH


def test_the_same_bytes_with_worker_processes(job: tuple[Path, Path], tmp_path: Path) -> None:
    one = run(*job, tmp_path / "one")
    two = run(*job, tmp_path / "two", RunnerOptions(workers=2))
    assert one.digest == two.digest
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@in_process
def test_a_finished_run_is_left_alone_and_another_question_is_another_run(
    job: tuple[Path, Path], tmp_path: Path
) -> None:
    evaluation = write_manifest(tmp_path / "sets", en=[{"q": QUESTION}])
    out = tmp_path / "out"
    first = run(job[0], evaluation, out)
    before = contents(out)
    assert run(job[0], evaluation, out) == first
    assert contents(out) == before
    write_manifest(tmp_path / "sets", en=[{"q": QUESTION}, {"q": RIDDLE}])
    with pytest.raises(StageMismatchError, match="evaluation"):
        run(job[0], evaluation, out)


def test_a_killed_run_goes_on_to_the_same_bytes(job: tuple[Path, Path], tmp_path: Path) -> None:
    run(*job, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "pipelines.decontaminate", str(job[0]), "--evaluation", str(job[1])]
    for files in (5, 9):
        process = subprocess.Popen([*command, "--output", str(out)], stdout=subprocess.DEVNULL)
        while process.poll() is None and sum(1 for path in out.rglob("*") if path.is_file()) < files:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run(*job, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_the_command_prints_what_it_found(
    job: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["decontaminate", str(job[0]), "--evaluation", str(job[1]), "--out", str(tmp_path / "out")]
    assert run_cli(arguments) == 0
    said = capsys.readouterr().out
    assert "1 of 1 items in 2 documents" in said
    assert 'shards/00.jsonl#1: "A baker sells seven loaves' in said
    assert run_cli([*arguments[:2], "--out", str(tmp_path / "x")]) == 2
    assert "the option --evaluation is missing" in capsys.readouterr().err
