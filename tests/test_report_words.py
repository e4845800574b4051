"""The report's words: Latin names among Han, and numbers that mean the same on the page and in the terminal."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from glm_data.cli.output import _benchmark_rows
from glm_data.manifest import ShardRecord, unreadable_check
from glm_data.report.chinese import translate, with_gaps
from glm_data.report.render import _environment, both


@pytest.mark.parametrize(
    ("chinese", "value", "said"),
    [
        ("被{x}丢弃", "dc", "被 dc 丢弃"),
        ("被{x}丢弃", "过滤", "被过滤丢弃"),
        ("被{x}丢弃", "去重2", "被去重2 丢弃"),
        ("{x}之后", "dc", "dc 之后"),
        ("来源“{x}”失去", "dc", "来源“dc”失去"),
        ("有 {x} 个", "7", "有 7 个"),
        ("占{x}，", "5%", "占 5%，"),
        ("被{x}丢弃", "", "被丢弃"),
    ],
)
def test_latin_letters_and_digits_stand_apart_from_han(chinese: str, value: str, said: str) -> None:
    assert with_gaps(chinese, {"x": value}).format(x=value) == said


def test_labels_and_sentences_are_set_so() -> None:
    assert translate("931 documents kept by dc, all read by tokenize.") == "dc 保留的 931 篇文档，分词全部读到。"
    dropped = "Dropped by {stage}, of {records} read"
    assert "被 <bdi>dc</bdi> 丢弃（共读入 <bdi>7</bdi> 条）" in both(dropped, stage="dc", records="7")
    assert "被<bdi>过滤</bdi>丢弃（" in both(dropped, stage="filter", records="7")


def test_the_guard_rail_on_unreadable_records_is_said_in_both_languages() -> None:
    good = ShardRecord(shard=0, input="a", records=90, kept=90)
    bad = ShardRecord(shard=1, input="b.jsonl", records=10, kept=5, unreadable={"truncated": 5})
    held, tripped = (unreadable_check([good, bad], most) for most in (0.05, 0.01))
    assert (held.ok, held.sentence) == (True, "5 of 100 records (5.00%) are unreadable; the limit is 5.00%.")
    assert not tripped.ok
    assert tripped.sentence == (
        "5 of 100 records (5.00%) are unreadable; the limit is 1.00%, worst is 'b.jsonl': look at unreadable/, "
        "or raise --max-bad-fraction with --overwrite."
    )
    assert translate(held.sentence) == "100 条记录中有 5 条（5.00%）无法读取；上限 5.00%。"
    assert translate(tripped.sentence) == (
        "100 条记录中有 5 条（5.00%）无法读取，上限 1.00%；“b.jsonl”最多：请查看 unreadable/，"
        "或以 --overwrite 调高 --max-bad-fraction。"
    )
    assert unreadable_check([], 0.0).ok


def test_evaluation_items_are_counted_alike_by_the_page_and_the_terminal() -> None:
    fact: dict[str, Any] = {"items": 100, "copies": 20, "too_short": 5, "common": 3, "items_found": 9, "documents": 11}
    stage: Any = SimpleNamespace(facts={"benchmarks": {"Stories": fact | {"spared_documents": 0, "examples": []}}})
    page = _environment().get_template("decontaminate.html").render(by_kind={"decontaminate": stage})
    assert "Stories 72 8 9 11" in re.sub(r"(<[^>]*>|\s)+", " ", page)
    assert _benchmark_rows(stage) == [
        ("Stories", "9 of 72 items in 11 documents, 5 too short, 3 nothing but boilerplate")
    ]
