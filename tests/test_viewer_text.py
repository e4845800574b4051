"""Styled text: what is hidden is shown and nothing else changes; two texts side by side come back whole."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from glm_data.cli.paint import paint
from glm_data.viewer.differences import side_by_side
from glm_data.viewer.styled import Span, clip, reveal, visible

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ab \n\t\u202e\u2066\u200d\u3164\ue000\ud800")), max_size=60)


@given(TEXTS)
def test_hidden_characters_become_escapes_and_all_else_stays(text: str) -> None:
    spans = reveal(text, "own")
    shown = "".join(span.text for span in spans)
    assert {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"} <= (
        {"Cf"} if set("\u200c\u200d") & set(text) else set()
    )
    back = ""
    for span in spans:
        kinds = span.style.split()
        assert kinds[0] == "own"
        if "hidden" in kinds:
            back += span.text.encode().decode("unicode_escape")
        else:
            back += "\n" if "line" in kinds else "\t" if "tab" in kinds else span.text
    assert back == text


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\u202e", "\u2066", "\ufeff", "\u3164", "\U000e0041", "\ud800"])
def test_what_steers_or_hides_is_never_shown_as_it_is(letter: str) -> None:
    (before, shown, after) = reveal(f"a{letter}b")
    assert (before, after) == (Span("a"), Span("b"))
    assert shown.style == "hidden"
    assert shown.text.encode().decode("unicode_escape") == letter
    assert visible(f"a{letter}\nb") == f"a{shown.text}⏎ b"


@given(TEXTS, st.integers(0, 20))
def test_clipping_keeps_a_beginning(text: str, characters: int) -> None:
    spans = reveal(text)
    shown = "".join(span.text for span in clip(spans, characters))
    whole = "".join(span.text for span in spans)
    assert shown == (whole if len(whole) <= characters else f"{whole[:characters]} …")


@given(
    st.lists(st.sampled_from(["the fox ran. ", "it rained all day! ", "天下雨了。", "\u202e"]), max_size=8), st.data()
)
def test_sides_hold_what_each_text_has_alone(parts: list[str], data: st.DataObject) -> None:
    other = data.draw(st.permutations(parts))
    left, right = "".join(parts), "".join(other)
    found = side_by_side(left, right, 10_000)
    assert bool(found) == (left != right)
    for passage in found:
        for spans, style, text in ((passage.left, "removed", left), (passage.right, "added", right)):
            assert "".join(span.text for span in spans) in "".join(span.text for span in reveal(text))
            assert {kind for span in spans for kind in span.style.split()} <= {style, "hidden", "line", "tab"}


def test_what_is_alike_behind_the_last_difference_is_counted() -> None:
    first, behind = side_by_side("one. " + "the rest is alike", "two. " + "the rest is alike", 100)
    assert first.alike_before == 0
    assert behind == ([], [], len("the rest is alike"))
    assert side_by_side("the same text", "the same text", 100) == []


def test_a_terminal_without_colour_gets_brackets_around_what_differs() -> None:
    (passage,) = side_by_side("one two \x1b three", "one 2 \x1b three", 100)
    assert paint(passage.left, marks=True).plain == "one [-two-] \\u001b three"
    assert paint(passage.right, marks=True).plain == "one {+2+} \\u001b three"
    assert paint(passage.left).plain == "one two \\u001b three"


def test_terminal_and_page_paint_the_same_spans() -> None:
    spans = [Span("plain "), Span("[MASK]1", "mask"), Span("⏎", "line"), Span("said", "dim")]
    text = paint(spans)
    assert isinstance(text, Text)
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as said:
        console.print(text)
    assert "plain \x1b[1;33m[MASK]1\x1b[0m⏎ \x1b[2msaid\x1b[0m" in said.get()
