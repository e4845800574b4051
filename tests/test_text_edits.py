"""Edits of a block's texts, against Python's slices."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.text.edits import begin_with, edit_texts
from glm_data.text.statistics import utf8_buffers

Edit = tuple[int, int, str]


def twin(text: str, edits: list[Edit], strip: bool) -> str:
    parts, at = [], 0
    for first, last, replacement in edits:
        parts += [text[at:first], replacement]
        at = last
    edited = "".join(parts) + text[at:]
    return edited.strip("\n") if strip else edited


@st.composite
def edited_texts(draw: st.DrawFn) -> tuple[str, list[Edit], bool]:
    text = draw(st.text("ab \n", max_size=12))
    places = draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    pairs = zip(places[::2], places[1::2], strict=False)
    return text, [(first, last, draw(st.text("xy\n", max_size=3))) for first, last in pairs], draw(st.booleans())


@given(st.lists(edited_texts(), max_size=6), st.integers(0, 2))
@settings(deadline=None)
def test_edits_of_a_block_are_those_of_each_text(some: list[tuple[str, list[Edit], bool]], skipped: int) -> None:
    texts = pa.array(["not looked at"] * skipped + [text for text, *_ in some], pa.string()).slice(skipped)
    offsets = utf8_buffers(texts)[1].tolist()
    spans = [
        (row, offsets[row] + first, offsets[row] + last, len(replacement))
        for row, (_, edits, _) in enumerate(some)
        for first, last, replacement in edits
    ]
    replacements = "".join(edit[2] for _, edits, _ in some for edit in edits).encode()
    strip = np.array([strip for *_, strip in some], bool)
    found = edit_texts(texts, np.array(spans, np.int64).reshape(-1, 4), replacements, strip)
    assert found.texts.to_pylist() == [twin(*one) for one in some]
    unstripped = [twin(text, edits, False) for text, edits, _ in some]
    assert found.stripped.tolist() == [
        len(after) < len(before) for before, after in zip(unstripped, found.texts.to_pylist(), strict=True)
    ]


@given(st.lists(st.tuples(st.text("ab", max_size=4), st.text("ab", max_size=4)), max_size=8))
@settings(deadline=None)
def test_beginnings_are_those_of_python(pairs: list[tuple[str, str]]) -> None:
    texts = pa.array(["", *(text for text, _ in pairs)], pa.string())
    found = begin_with(texts, np.arange(1, len(pairs) + 1), pa.array([start for _, start in pairs], pa.string()))
    assert found.tolist() == [text.startswith(start) for text, start in pairs]
