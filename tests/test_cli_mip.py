"""``glm-data mip``: what its commands print, their JSON and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mip_mixtures import TEMPLATES, run_here, write_mixture

from glm_data.cli.shell import run
from glm_data.mip import MipOptions

DEMO = str(Path(__file__).parents[1] / "manifests/demo/mip/mixture.yaml")


def test_show_prints_prompt_and_target_of_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "show", "zh/inference", "--row", "1"]) == 0
    said = capsys.readouterr().out
    assert "zh/inference, row 1" in said
    assert "前提：两个孩子在河边放风筝。" in said
    assert "=> 蕴含" in said
    assert run(["mip", "show", "zh/inference", "--row", "0", "--template", "写出结论"]) == 0
    assert "nothing (not_applicable)" in capsys.readouterr().out


def test_show_reads_a_data_set_of_a_mixture_or_a_file_with_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["mip", "show", "village_reviews", "--mixture", DEMO, "--row", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told) == 4
    assert {"template", "name", "prompt", "target", "choices"} == set(told[0])
    write_mixture(tmp_path)
    file = tmp_path / "templates.yaml"
    file.write_text(TEMPLATES + "blocked: {divide: divides by zero}\n", encoding="utf-8")
    assert run(["mip", "show", str(file), "--rows", str(tmp_path / "rows.jsonl"), "--row", "2"]) == 0
    said = capsys.readouterr().out
    assert "blocked: divides by zero" in said
    assert "nothing (error: ZeroDivisionError: division by zero)" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["zh/sentimant"], "Did you mean 'zh/sentiment'"),
        (["zh/sentiment", "--row", "9"], "has 3 rows, so there is no row 9"),
        (["zh/sentiment", "--template", "好评"], "has no template '好评'"),
        (["toy", "--mixture", DEMO], "has no data set 'toy'"),
        (["village", "--mixture", "mip-47"], "Did you mean 'mip-74'"),
        (["squad_v2", "--mixture", "mip-74"], "rows of the hub or own); `glm-data mip fetch` gets it"),
        (["village_reviews", "--mixture", DEMO, "--rows", DEMO], "give --rows or --mixture, not both"),
        (["super_glue", "--mixture", "mip-74"], "may be super_glue/boolq/train or"),
    ],
)
def test_show_says_what_cannot_be_shown(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "show", *words]) == 2
    assert message in capsys.readouterr().err


def test_show_of_a_file_without_rows_asks_for_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mixture(tmp_path)
    assert run(["mip", "show", str(tmp_path / "templates.yaml")]) == 2
    assert "has no rows of its own to show; give some with --rows" in capsys.readouterr().err


def test_show_tells_rows_that_cannot_be_read_from_rows_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mixture(tmp_path, ['{"text": "a", "label": 1, "number": 1}', "{broken", '{"text": "b"}'])
    (tmp_path / "none.jsonl").write_text("", encoding="utf-8")
    file = str(tmp_path / "templates.yaml")
    for rows, number, message in (
        ("rows.jsonl", "1", "row 1 of 'toy' cannot be read; give another --row"),
        ("rows.jsonl", "3", "'toy' has 3 rows, so there is no row 3"),
        ("none.jsonl", "0", "none.jsonl' holds no row that can be read"),
    ):
        assert run(["mip", "show", file, "--rows", str(tmp_path / rows), "--row", number]) == 2
        assert message in capsys.readouterr().err


def test_lint_ends_with_three_for_an_error_and_zero_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "lint", "zh/topic", "en/events"]) == 0
    assert "10 templates: 0 errors, 0 warnings" in capsys.readouterr().out
    assert run(["mip", "lint", "--mixture", DEMO, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6
    write_mixture(tmp_path)
    assert run(["mip", "lint", str(tmp_path / "templates.yaml"), "--columns", "text,label"]) == 3
    assert "toy: divide: error variables: reads 'number', which is no column" in capsys.readouterr().out
    assert run(["mip", "lint", str(tmp_path / "templates.yaml"), "--rows", str(tmp_path / "rows.jsonl")]) == 3
    assert "divide: error fails: failed on 1 of 5 rows; row 2" in capsys.readouterr().out
    assert run(["mip", "lint"]) == 2
    assert run(["mip", "lint", "--mixture", DEMO, "--rows", str(tmp_path / "rows.jsonl")]) == 2
    assert "a mixture's data sets are tried on their own rows" in capsys.readouterr().err


def test_packs_are_listed_with_their_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "packs", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["zh/inference"]["fields"]["premise"] == "前提"
    assert run(["mip", "packs"]) == 0
    assert "en/semantic_roles" in capsys.readouterr().out


def test_report_prints_tables_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    exclude = {"divide": "divides by zero"}
    run_here(write_mixture(tmp_path / "in", exclude=exclude), out, MipOptions(max_error_fraction=1))
    assert run(["mip", "report", str(out), "--samples"]) == 0
    said = capsys.readouterr().out
    assert "10 rows x templates, 5 samples" in said
    assert "blocked: cccc: divides by zero" in said
    assert "toy/train#1/aaaa  (ask)" in said
    assert run(["mip", "report", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["templates"][0]["dropped"] == {"duplicate": 1, "hidden_label": 1}
    assert run(["mip", "report", str(tmp_path / "in")]) == 2


def test_fetch_refuses_a_mixture_without_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "fetch", DEMO]) == 2
    assert "names no 'hub'" in capsys.readouterr().err


def test_render_takes_a_bundled_mixture_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mip", "render", "mip-fewclue", "--rows", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "does not exist" in capsys.readouterr().err
