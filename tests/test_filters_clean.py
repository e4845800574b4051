"""Cleaning: what each step does, that the cheap test never misses work, and that sound text keeps its bytes."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_data import documents
from glm_data.filters import ALL_STEPS
from glm_data.filters.clean_block import clean_block
from glm_data.filters.clean_text import (
    clean_text,
    drop_last_fragment,
    fix_newlines,
    fix_white_space,
    remove_controls,
    remove_html,
    shorten_repeats,
    title_line,
    to_simplified,
)
from glm_data.filters.encodings import fix_mojibake
from glm_data.filters.options import DEFAULT_STEPS, Step
from glm_data.text.defects import MOJIBAKE, find_defects


@pytest.mark.parametrize(
    ("function", "before", "after"),
    [
        (fix_newlines, "a\r\nb\rc\x85d\u2028e\u2029f\n\rg", "a\nb\nc\nd\ne\nf\n\ng"),
        (remove_controls, "a\x00b\x08\u200bc\ufeff\xad\u202ed\x7f\x9f", "abcd"),
        (remove_controls, "中\u200d文 a\u200cb", "中文 ab"),
        (remove_controls, "\U0001f468\u200d\U0001f469 می\u200cخواهم", "\U0001f468\u200d\U0001f469 می\u200cخواهم"),
        (
            fix_white_space,
            "\u3000\u3000第一段。 \n\u3000\u3000第二\xa0段。\t\n\n\n \n\n第三段。\n\n",
            "第一段。\n第二 段。\n\n第三段。",
        ),
        (fix_white_space, "\n\n    indented = code\n\tmore", "    indented = code\n\tmore"),
        (shorten_repeats, "好！！！！！！吗？？？真的…………", "好！！！吗？？？真的……"),
        (shorten_repeats, "if (a !== b) // ---- ....... ,,,,", "if (a !== b) // ---- ....... ,,,,"),
        (fix_mojibake, "Itâ€™s a cafÃ©\nnaïve “quotes” stay", "It’s a café\nnaïve “quotes” stay"),
        (fix_mojibake, "l’été… «à» 中文", "l’été… «à» 中文"),
        (fix_mojibake, "今天天气很好".encode().decode("gbk") + "\n中文", "今天天气很好\n中文"),
        (fix_mojibake, "标题：" + "中国历史".encode("gbk").decode("latin-1"), "标题：中国历史"),
        (fix_mojibake, "ÄÖÜäöüß àéîõü Ÿ\n龘靐齉齾爩", "ÄÖÜäöüß àéîõü Ÿ\n龘靐齉齾爩"),
        (remove_html, "第一段&nbsp;&ldquo;好&rdquo;<br/>第<b class=x>二</b>段 a < b", "第一段\xa0“好”\n第二段 a < b"),
        (remove_html, "if (a&lt;b) return;\nR&amp;D", "if (a&lt;b) return;\nR&D"),
        (remove_html, "HTML 里用 <br> 换行，&nbsp; 是空格。", "HTML 里用 <br> 换行，&nbsp; 是空格。"),
        (drop_last_fragment, "一句话。两句话！”\n更多内容请", "一句话。两句话！”"),
        (drop_last_fragment, "短。没有句号的诗\n没有句号的诗", "短。没有句号的诗\n没有句号的诗"),
        (drop_last_fragment, "一句话很长很长。 the end", "一句话很长很长。 the end"),
    ],
)
def test_steps(function, before: str, after: str) -> None:
    assert function(before) == after
    assert function(after) == after


@pytest.mark.parametrize(
    ("text", "title", "expected"),
    [
        ("正文。", "标题", "标题\n正文。"),
        ("标题\n正文。", "标题", "标题\n正文。"),
        (" 标 题\n正文。", "标题", " 标 题\n正文。"),
        ("正文。", " 标\n题 ", "标 题\n正文。"),
        ("正文。", " \n", "正文。"),
        ("", "标题", "标题\n"),
    ],
)
def test_titles_are_joined_unless_they_are_there(text: str, title: str, expected: str) -> None:
    assert title_line(text.encode(), title).decode() + text == expected


def make(texts: list[str], source: str = "Pile-CC", meta: str = "{}") -> pa.RecordBatch:
    count = len(texts)
    return documents.make_block(list(map(str, range(count))), texts, [source] * count, [""] * count, [meta] * count)


def test_sound_text_keeps_its_bytes_and_full_width_digits_stay_digits() -> None:
    texts = [
        "１２３，“全角”。",
        "    code(a, b)  # x\n\n\n\tend".replace("\n\n\n", "\n\n"),
        "l’été… 😀\u200d😀",
        "",
        "《x》——y……",
    ]
    block = make(texts)
    cleaned, counts = clean_block(block, ALL_STEPS)
    assert cleaned.column("text").to_pylist() == texts
    assert not +counts


def test_steps_can_be_switched_off_and_are_counted() -> None:
    block = make(["a\r\nb", "a\x00b\r\n", "好！！！！！", "sound"])
    cleaned, counts = clean_block(block, ALL_STEPS)
    assert cleaned.column("text").to_pylist() == ["a\nb", "ab", "好！！！", "sound"]
    assert +counts == Counter(newlines=2, control=1, white_space=1, repeats=1)
    cleaned, counts = clean_block(block, ["control"])
    assert cleaned.column("text").to_pylist() == ["a\r\nb", "ab\r\n", "好！！！！！", "sound"]
    assert +counts == Counter(control=1)


def test_titles_come_from_meta_of_wudao_only() -> None:
    meta = json.dumps({"title": "静夜思", "id": 1}, ensure_ascii=False)
    for source, expected in (("WuDao/诗词", "静夜思\n床前明月光"), ("Fortunes", "床前明月光")):
        cleaned, counts = clean_block(make(["床前明月光"], source, meta), ALL_STEPS)
        assert cleaned.column("text").to_pylist() == [expected]
        assert counts["title"] == (source != "Fortunes")
    for odd in ('{"title": 5}', "{}", "not JSON", '{"title": null}'):
        assert clean_block(make(["正文"], "WuDao", odd), ALL_STEPS)[0].column("text").to_pylist() == ["正文"]


PIECES = [
    "中文", "word", "é", "…", "Ã©", "â€™", "\r", "\n", "\n\n\n", " ", "\t", "\u3000", "\xa0", "\x00", "\u200b",
    "\u200d", "\u200c", "！", "！！！！", "????", "，，，，，", "\ufeff", "\u2028", "\x85", "😀", "Â", "°", "\xad",
    "می", "……", "…………", "&nbsp;", "<p>", "bob@ex.org", "13812345678", "QQ:12345", "114.114.115.119 ", "鐨勬槸",
    "2001:4860:4860::8888", "2606:4700::1111 ", "2a00:1450:4001:81b:0:0:0:200E,", "ab::", "12:30:45",
    "+44 20 7946 0958", "5 +1 2 34 56", "(021)5555 6666", "ÖÐ¹úÀúÊ·", "扣扣12345", " &#8220;", "加我", ".",
]  # fmt: skip


@example(["…", "…", "…"])
@given(st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=12))
@settings(deadline=None, max_examples=300)
def test_the_cheap_test_never_misses_work(pieces: list[str]) -> None:
    text = "".join(pieces)
    flags = int(find_defects(pa.array([text])).documents[0])
    every = -1 if flags & MOJIBAKE else ~MOJIBAKE
    assert clean_text(text, flags, ALL_STEPS, Counter()) == clean_text(text, every, ALL_STEPS, Counter())


@example(["\x00", " ", "\n", "\n", "\x00", "\n", "a"], ("control", "white_space"))
@example(["<p>", "html", "\n", "bob@ex.org", " ", "\n"], ALL_STEPS)
@given(
    st.lists(st.sampled_from(PIECES) | st.sampled_from(["\n", "a ", "HTML", "qq1234567", "v1.2.3.4 "]), max_size=16),
    st.sampled_from([ALL_STEPS, DEFAULT_STEPS, *((step,) for step in DEFAULT_STEPS)])
    | st.just(("html", "white_space")),
)
@settings(deadline=None, max_examples=400)
def test_lines_one_by_one_become_what_whole_texts_become(pieces: list[str], steps: tuple[Step, ...]) -> None:
    text = "".join(pieces)
    flags = int(find_defects(pa.array([text])).documents[0])
    expected: Counter[str] = Counter()
    whole = clean_text(text, -1 if flags & MOJIBAKE else ~MOJIBAKE, steps, expected)
    if "last_fragment" in steps:
        expected["last_fragment"] += drop_last_fragment(whole) != whole
        whole = drop_last_fragment(whole)
    block, counts = clean_block(make(["before\n", text, "", "after"]), steps)
    assert block.column("text").to_pylist()[1:] == [whole, "", "after"]
    counts["white_space"] -= "white_space" in steps  # of the first text
    assert +counts == +expected


@given(st.text("aé中文“”—😀 \n", min_size=1), st.sampled_from(["latin-1", "cp1252"]))
@settings(deadline=None)
def test_text_read_in_the_wrong_encoding_is_always_looked_at(text: str, encoding: str) -> None:
    misread = text.encode().decode(encoding, "replace")
    assert misread.isascii() or find_defects(pa.array([misread])).documents[0] & MOJIBAKE


def test_traditional_becomes_simplified_by_phrases() -> None:
    assert to_simplified(["國學與電腦軟體", "乾隆皇帝", "皇后在後面"]) == ["国学与电脑软体", "乾隆皇帝", "皇后在后面"]
