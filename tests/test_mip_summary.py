"""Tallies and the report of a finished stage: what adds up, what is shown, what leaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mip_mixtures import ROWS, run_here, write_mixture

from glm_data.errors import UsageError
from glm_data.mip import MipOptions, Template
from glm_data.mip.arrange import Arranged
from glm_data.mip.summary import summarize
from glm_data.mip.tally import SAMPLES, TemplateTally, merge, new_tally

TEMPLATE = Template(id="t", name="ask", jinja="{{a}} ||| b")


def tally(events: list[tuple[str, int]]) -> TemplateTally:
    made = new_tally("toy/train", TEMPLATE, "en")
    for number, (kind, size) in enumerate(events):
        if kind == "kept":
            made.keep(f"id{size}-{number}", Arranged("p" * size, "t", size % 3, "", size, 1), 5)
        else:
            made.drop(kind)
    return made


_EVENTS = st.lists(st.tuples(st.sampled_from(["kept", "duplicate", "error"]), st.integers(0, 9)), max_size=20)


@settings(deadline=None, max_examples=30)
@given(_EVENTS, _EVENTS)
def test_the_sum_of_tallies_is_the_tally_of_all(one: list[tuple[str, int]], other: list[tuple[str, int]]) -> None:
    parts = [[tally(one)], [tally(other)]]
    (merged,) = merge(parts)
    assert merge(parts[::-1]) == [merged]
    assert merged.rows == len(one) + len(other) == merged.kept + sum(merged.dropped.values())
    assert merged.prompt_characters == sum(size for kind, size in one + other if kind == "kept")
    assert sum(merged.shots.values()) == merged.kept
    kept = [*tally(one).samples, *tally(other).samples]
    assert list(merged.samples) == sorted(kept, key=lambda sample: (sample.order, sample.id))[:SAMPLES]


def test_long_samples_are_clipped_where_they_are_shown() -> None:
    made = new_tally("d", TEMPLATE, "en")
    made.keep("id", Arranged("x" * 3000, "y", 0, "", 900, 1), 512)
    assert len(made.samples[0].prompt) == 2001
    assert (made.prompt_characters, made.prompt_tokens, made.over_long) == (3000, 900, 1)


def test_the_report_accounts_for_every_template(tmp_path: Path) -> None:
    out = tmp_path / "out"
    success = run_here(write_mixture(tmp_path / "in"), out, MipOptions(max_error_fraction=1))
    found = summarize(out)
    assert found.records == success.records == sum(item.rows for item in found.templates)
    assert found.kept == success.kept == sum(item.kept for item in found.templates)
    by_name = {item.name: item for item in found.templates}
    assert by_name["ask"].dropped == {"duplicate": 1, "hidden_label": 1}
    assert by_name["divide"].dropped == {"empty_prompt": 1, "error": 1}
    assert sum(by_name["copy"].dropped.values()) == len(ROWS) - by_name["copy"].kept == 3
    assert [len(item.samples) for item in found.templates] == [min(3, item.kept) for item in found.templates]
    assert found.datasets["toy/train"].tokens == found.tokens == success.counts["tokens/toy/train"]
    assert sum(amount.share for amount in found.languages.values()) == pytest.approx(1)
    assert found.leaks is None
    assert found.shots == {"0": found.kept}


def test_over_long_samples_are_counted_by_the_window(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{n} " + "word " * size, "label": 1, "number": 1}) for n, size in enumerate((5, 800))]
    out = tmp_path / "out"
    run_here(write_mixture(tmp_path / "in", lines), out)
    assert {item.name: item.over_long for item in summarize(out).templates} == {"ask": 1, "copy": 1, "divide": 1}
    run_here(write_mixture(tmp_path / "in", lines), tmp_path / "wide", MipOptions(window=5000))
    assert {item.over_long for item in summarize(tmp_path / "wide").templates} == {0}


def test_blocked_templates_are_named_with_their_reason(tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = write_mixture(tmp_path / "in", exclude={"divide": "divides by zero", "bbbb": "noisy"})
    success = run_here(manifest, out)
    assert success.records == len(ROWS)
    assert summarize(out).blocked == {"toy/train": {"cccc": "divides by zero", "bbbb": "noisy"}}


def test_items_of_evaluation_sets_are_found_in_samples(tmp_path: Path) -> None:
    question = "which of the two brothers carried the heavy wooden chest up the narrow stairs on sunday evening"
    lines = [json.dumps({"text": text, "label": 1, "number": 1}) for text in ("nothing", f"He asked {question} or not")]
    out = tmp_path / "out"
    run_here(write_mixture(tmp_path / "in", lines), out)
    benchmark: dict[str, Any] = {"name": "Chests", "files": ["items.jsonl"], "fields": ["question"]}
    (tmp_path / "evaluation.yaml").write_text(json.dumps({"benchmarks": [benchmark]}), encoding="utf-8")
    other = "how many geese were on the pond behind the old mill when the first snow fell in november"
    items = "".join(json.dumps({"question": text}) + "\n" for text in (question, other))
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")
    leaks = summarize(out, tmp_path / "evaluation.yaml").leaks
    assert leaks is not None
    assert [(leak.dataset, leak.benchmark, leak.samples, leak.items) for leak in leaks] == [("toy", "Chests", 3, 1)]
    assert leaks[0].examples[0] == "toy/train#1/aaaa"
    (tmp_path / "items.jsonl").write_text(json.dumps({"question": other}) + "\n", encoding="utf-8")
    assert summarize(out, tmp_path / "evaluation.yaml").leaks == ()


def test_only_a_finished_mip_stage_has_a_report(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a finished stage"):
        summarize(tmp_path)
