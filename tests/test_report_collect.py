"""Stage folders to plain values: numbers that add up, cross-checks, and nothing that differs between equal runs."""

import itertools
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_helpers import (
    METRICS,
    SOURCES,
    make_dedupe,
    make_filter,
    make_run,
    make_stage,
    make_tokenize,
    make_train,
    shard,
)

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.report import REPORT_HTML, REPORT_JSON, collect, write_report
from glm_data.report.funnel import part
from glm_data.report.training import MOST_POINTS, thin
from glm_data.stage import PLAN, SUCCESS, Check, read_success


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("report") / "run")


def test_stages_stand_in_the_order_of_the_work(run: Path) -> None:
    assert list(collect(run)["stages"]) == ["filter", "dedupe", "tokenizer", "tokenize", "mip", "pack", "train"]


def test_a_stage_is_told_as_it_tells_itself(run: Path) -> None:
    stage, success = collect(run)["stages"]["filter"], read_success(run / "filter")
    for field in ("stage", "key", "version", "shards", "records", "kept", "dropped", "unreadable", "counts", "digest"):
        assert stage[field] == getattr(success, field)
    assert stage["inputs"] == {"files": 1, "bytes": 5000}
    assert stage["outputs"] == {"files": 1, "bytes": len(b"filtered")}
    assert collect(run)["stages"]["pack"]["options"]["spans"] == {"mean": 3}
    assert "shards" not in collect(run)["stages"]["pack"]["facts"]


def test_the_funnel_adds_up(run: Path) -> None:
    steps = collect(run)["funnel"]
    assert [(step["stage"], step["records"], step["kept"]) for step in steps] == [
        ("filter", 20, 13),
        ("dedupe", 13, 10),
        ("tokenize", 10, 10),
    ]
    assert steps[0]["dropped"] == {"language": 3, "short": 3}
    assert steps[0]["unreadable"] == {"truncated": 1}
    assert (steps[0]["text_bytes_in"], steps[0]["text_bytes_kept"]) == (2_500_000, 1_600_000)
    assert steps[1]["text_bytes_kept"] is None
    for step, after in itertools.pairwise(steps):
        assert step["kept"] == step["records"] - sum(step["dropped"].values()) - sum(step["unreadable"].values())
        assert after["records"] == step["kept"]


def test_sources_are_followed_through_the_stages(run: Path) -> None:
    assert collect(run)["sources"] == [
        {"source": "新闻", "in": 10, "kept": {"filter": 6, "dedupe": 5}, "packed": None},
        {"source": "Pile", "in": 9, "kept": {"filter": 7, "dedupe": 5}, "packed": SOURCES["Pile"]},
    ]


def test_languages_join_filter_and_tokenize(run: Path) -> None:
    zh, en = ({"language": language, "packed": None} for language in ("zh", "en"))
    assert collect(run)["languages"] == [
        {**zh, "documents": 2, "kept_bytes": 100_000, "tokens": 300, "tokenized_bytes": 900},
        {**en, "documents": 0, "kept_bytes": 0, "tokens": 100, "tokenized_bytes": 420},
    ]


def test_duplicates_are_summed_up_with_the_borderline_pairs_first(run: Path) -> None:
    duplicates = collect(run)["duplicates"]
    assert duplicates["removed"] == sum(duplicates["similarity"]) == 3
    assert duplicates["by_rule"] == {"near": 2, "exact": 1}
    assert duplicates["similarity"] == [0, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert [row["removed"] for row in duplicates["examples"]] == ["p#5", "p#3", "p#4"]


def test_the_curve_is_that_of_the_metrics(run: Path) -> None:
    training = collect(run)["training"]
    assert training["curves"] == {
        "loss": [[line["step"], line["loss"]] for line in METRICS],
        "loss/mask": [[line["step"], line["loss/mask"]] for line in METRICS],
    }
    assert training["unigram_entropy"] == 6.5


def test_torn_and_foreign_metrics_lines_are_left_out(tmp_path: Path) -> None:
    torn = b'{"step": 1, "loss": 3.0}\n[]\n{"step": "x"}\n{"loss": 1}\n{"step": 2, "lo'
    make_train(tmp_path, writes={"metrics.jsonl": torn})
    assert collect(tmp_path)["training"]["curves"] == {"loss": [[1, 3.0]]}


def test_all_checks_are_gathered_and_the_numbers_held_against_each_other(run: Path) -> None:
    report = collect(run)
    assert report["ok"]
    assert [(check["stage"], check["sentence"]) for check in report["checks"]] == [
        ("filter", "No source lost much."),
        ("report", "filter: 20 records read = 13 kept + 6 dropped + 1 unreadable."),
        ("report", "dedupe: 13 records read = 10 kept + 3 dropped + 0 unreadable."),
        ("report", "tokenize: 10 records read = 10 kept + 0 dropped + 0 unreadable."),
        ("report", "13 documents kept by filter, all read by dedupe."),
        ("report", "10 documents kept by dedupe, all read by tokenize."),
    ]


def failures(folder: Path) -> list[str]:
    report = collect(folder)
    assert report["ok"] == all(check["ok"] for check in report["checks"])
    return [check["sentence"] for check in report["checks"] if not check["ok"]]


def test_a_tripped_guard_rail_fails_the_report(tmp_path: Path) -> None:
    make_filter(tmp_path, checks=[Check(name="loss", ok=False, sentence="Pile lost 99 %.")])
    assert failures(tmp_path) == ["Pile lost 99 %."]


def test_documents_lost_between_stages_fail_the_report(tmp_path: Path) -> None:
    make_filter(tmp_path)
    make_dedupe(tmp_path, records=[shard(0, 9, {"near": 2}, {"malformed": 1})])
    assert failures(tmp_path) == ["13 documents kept by filter, but 12 read by dedupe."]


def test_a_file_without_documents_is_no_lost_document(tmp_path: Path) -> None:
    make_filter(tmp_path)
    make_dedupe(tmp_path)
    make_tokenize(tmp_path, records=[shard(0, 10, {}, {"empty": 2})])
    assert failures(tmp_path) == []


def test_a_stage_of_another_run_is_not_compared(tmp_path: Path) -> None:
    make_filter(tmp_path)
    other = tmp_path / "elsewhere.parquet"
    other.write_bytes(b"other documents")
    make_dedupe(tmp_path, reads=[other], records=[shard(0, 5, {}, {})])
    assert failures(tmp_path) == []


def test_a_manifest_that_does_not_add_up_fails_the_report(tmp_path: Path) -> None:
    folder = make_filter(tmp_path)
    success = read_success(folder)
    files.write_json(folder / SUCCESS, msgspec.structs.replace(success, kept=12))
    assert failures(tmp_path) == [
        "filter: 20 records read but 12 kept + 6 dropped + 1 unreadable.",
        "filter: 12 documents kept, but 13 counted by source.",
    ]


def test_an_unfinished_stage_is_said(tmp_path: Path) -> None:
    make_filter(tmp_path)
    make_dedupe(tmp_path, finish=False)
    report = collect(tmp_path)
    assert report["unfinished"] == {"dedupe": 1}
    assert not report["ok"]
    assert list(report["stages"]) == ["filter"]
    assert report["duplicates"] is None


def test_equal_runs_have_equal_reports_but_for_the_run(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "another place" / "run")
    one, two = collect(run), collect(other)
    assert one.pop("run") != two.pop("run")
    assert one == two
    assert str(run) not in str(one)


def test_the_run_tells_command_time_and_memory(run: Path) -> None:
    told = collect(run)["run"]
    assert told["folder"] == str(run)
    assert set(told["stages"]) == {"filter", "dedupe", "tokenizer", "tokenize", "mip", "pack", "train"}
    assert all(stage["peak_bytes"] > 0 for stage in told["stages"].values())
    assert len(told["commands"]) == 1  # every stage was run by this one process


def test_samples_are_those_of_infill_json(run: Path, tmp_path: Path) -> None:
    assert collect(run)["samples"] == [{"prompt": "The [MASK] fox", "filled": ["快"]}]
    make_filter(tmp_path)
    assert collect(tmp_path)["samples"] == []
    (tmp_path / "infill.json").write_text("{")
    with pytest.raises(InputError, match=r"infill\.json' is damaged"):
        collect(tmp_path)


def test_one_stage_is_a_run_of_one(run: Path) -> None:
    report = collect(run / "pack")
    assert list(report["stages"]) == ["pack"]
    assert report["run"]["folder"] == str(run / "pack")


def test_a_stage_we_know_nothing_of_is_shown_too(tmp_path: Path) -> None:
    make_stage(tmp_path, "aardvark", records=[shard(0, 1, {}, {})])
    make_filter(tmp_path)
    assert list(collect(tmp_path)["stages"]) == ["filter", "aardvark"]


@pytest.mark.parametrize("place", ["nowhere", "empty", "file"])
def test_a_folder_without_stages_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="give the folder of a run or of a stage"):
        collect(tmp_path / place)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"inputs": 1}'])
def test_a_damaged_plan_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (make_filter(tmp_path) / PLAN).write_bytes(damage)
    with pytest.raises(InputError, match=r"_plan\.json' is damaged"):
        collect(tmp_path)


def test_a_lost_measurement_is_no_obstacle(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "filter/_run/stage.json").unlink()
    (copy / "dedupe/_run/stage.json").write_text("{")
    assert "filter" not in collect(copy)["run"]["stages"]
    assert write_report(copy).exists()


def test_the_report_is_written_beside_the_stages(run: Path) -> None:
    page = write_report(run)
    assert page == run / REPORT_HTML
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    written = files.read_json(run / REPORT_JSON)
    assert written == msgspec.to_builtins(collect(run))


def test_the_report_of_a_stage_leaves_its_result_alone(run: Path) -> None:
    def result() -> dict[Path, bytes]:
        found = (path for path in (run / "pack").rglob("*") if path.is_file() and "_run" not in path.parts)
        return {path: path.read_bytes() for path in found}

    before = result()
    assert write_report(run / "pack") == run / "pack" / "_run" / REPORT_HTML
    assert result() == before


def test_part_takes_the_counters_below_a_prefix() -> None:
    assert part({"in/a": 1, "in/b/c": 2, "inner": 3, "kept/a": 4}, "in/") == {"a": 1, "b/c": 2}


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=900))
def test_thinning_keeps_the_ends_and_the_mean_between(values: list[float]) -> None:
    points = list(enumerate(values))
    thinned = thin(points)
    assert len(thinned) == min(len(points), MOST_POINTS)
    assert thinned[0] == list(points[0])
    assert thinned[-1] == list(points[-1])
    assert all(before[0] < after[0] for before, after in itertools.pairwise(thinned))
    assert min(values) - 1e-9 <= min(value for _, value in thinned)
    assert max(value for _, value in thinned) <= max(values) + 1e-9
