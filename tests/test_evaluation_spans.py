"""Reading sets: answers compared as spans, rows that lie deep in one JSON value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_model import write_small_model

from glm_data.errors import InputError
from glm_data.evaluation.items import read_items
from glm_data.evaluation.show import result_rows
from glm_data.evaluation.spans import f1, is_exact, longest_common_run, units
from glm_data.evaluation.statistics import mean_share
from glm_data.evaluation.suite import Setup, run_task
from glm_data.evaluation.tasks import Prompt, Task
from glm_data.generation.glm import Glm
from glm_data.generation.options import GenerationOptions

READ = Prompt(
    name="p",
    answer_choices="{{answers | map(attribute='text') | join(' ||| ')}}",
    jinja="{{file.context}} {{question}} [MASK] ||| {{answers[0].text}}",
)


def test_units_are_characters_and_runs_of_ascii_without_punctuation() -> None:
    assert units("《三国 演义》，1.5% of GLM-130B！") == ["三", "国", "演", "义", "1.5%", "of", "glm", "130b"]
    assert units("  。～ ") == []


def test_signs_blanks_and_case_do_not_count_but_points_in_numbers_do() -> None:
    assert is_exact("“Ａ股 glm”。", ("甲", "Ａ股GLM"))
    assert not is_exact("125", ("12.5",))
    assert not is_exact("", ("甲",))


def test_f1_is_of_the_longest_run_in_common() -> None:
    assert f1("在北京大学", ("北京",)) == pytest.approx(2 * 2 / (5 + 2))
    assert f1("北大京", ("北京",)) == pytest.approx(2 * 1 / (3 + 2)), "characters apart are not a run"
    assert f1("北京", ("上海", "北京。")) == 1
    assert f1("", ("北京",)) == f1("北京", ("。",)) == 0


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_longest_run_is_that_of_a_search_through_all(first: list[str], second: list[str]) -> None:
    runs = {tuple(first[start:end]) for start in range(len(first)) for end in range(start + 1, len(first) + 1)}
    there = {tuple(second[start:end]) for start in range(len(second)) for end in range(start + 1, len(second) + 1)}
    assert longest_common_run(first, second) == max(map(len, runs & there), default=0)


def test_a_mean_stands_between_the_ends_of_its_interval() -> None:
    found = mean_share([0.0, 0.5, 1.0, 1.0] * 20)
    assert found.value == 0.625
    assert 0.5 < found.low < found.value < found.high < 0.75
    assert mean_share([]).items == 0


def squad(path: Path, *answers: str) -> Task:
    rows = [{"question": f"q{number}", "answers": [{"text": text}]} for number, text in enumerate(answers)]
    value = {"version": 1, "data": [{"title": "t", "paragraphs": [{"context": "the fox", "qas": rows}]}]}
    (path / "squad.json").write_text(json.dumps(value), encoding="utf-8")
    rows_at = "data.*.paragraphs.*.qas"
    return Task(name="S", kind="complete", match="span", files=("squad.json",), rows=rows_at, prompts=(READ,))


def test_rows_bring_the_plain_fields_of_all_they_lie_in(tmp_path: Path) -> None:
    task = squad(tmp_path, "fox", "the")
    items = read_items(task, tmp_path, task.files)
    assert [(item.id.rpartition("/")[2], item.row["question"]) for item in items] == [
        ("squad.json#0", "q0"), ("squad.json#1", "q1"),
    ]  # fmt: skip
    assert items[1].row["file"] == {"version": 1, "title": "t", "context": "the fox"}


@pytest.mark.parametrize("rows", ["data.*.paragraphs.*.questions", "data.0.paragraphs.7.qas", "*.data", "version.qas"])
def test_a_way_that_leads_to_no_list_is_told(tmp_path: Path, rows: str) -> None:
    task = squad(tmp_path, "fox")
    with pytest.raises(InputError, match="has no list at"):
        read_items(Task(name="S", kind="complete", files=task.files, rows=rows, prompts=(READ,)), tmp_path, task.files)


def test_span_tasks_show_exact_matches_and_f1(tmp_path: Path) -> None:
    """What the model writes is taken for the right answer of one item; of the other it is a part."""
    glm = Glm.load(write_small_model(tmp_path / "model"))
    said = run_task(glm, squad(tmp_path, "x"), Setup(data=tmp_path))
    assert (said.prompts[0].score.value, said.prompts[0].score.items) == (0, 1)
    options = GenerationOptions(max_length=32, no_repeat_ngram=0)
    (written,) = glm.infill("the fox q0 [MASK]", options).answers
    assert units(written), "a model that writes nothing shows nothing"
    result = run_task(glm, squad(tmp_path, written), Setup(data=tmp_path)).prompts[0]
    assert (result.score.value, result.f1.value if result.f1 else None) == (1, 1)
    half = run_task(glm, squad(tmp_path, written + " " + "甲" * len(units(written))), Setup(data=tmp_path))
    part = half.prompts[0].f1
    assert part is not None
    assert (half.prompts[0].score.value, part.value) == (0, pytest.approx(2 / 3))
    assert [row[1:4] for row in result_rows([half])[1:]] == [("p", "1", "0.0%"), ("p, F1", "1", "66.7%")]
