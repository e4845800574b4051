"""Flags of lines: those told 64 bytes at a time are those of the closer look, which short blocks get."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.text.defects import find_defects

PIECES = [
    "word ", "a.b@c.de", " @x.y", "@", "<p>", "</b>", "<1", "&amp;", "& ", "&#", "!", "!!", "??", "qq", "Q", "q", "12",
    "3.", "10.1.2.3", "138 0013 8000", "+86", "a:b::", "::", ":", "\t", " ", "\x07", "\x7f", "é", "的", "扣", "锟斤",
    "!?", "x" * 61, "long line of plain words " * 3,
]  # fmt: skip
AFTER = "nothing that may need cleaning stands in this line, which is longer than 64 bytes"


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), min_size=1, max_size=4))
@settings(deadline=None, max_examples=300)
def test_what_follows_a_text_changes_nothing(lines: list[str]) -> None:
    text = "\n".join(lines)
    alone, followed = (find_defects(pa.array(texts)) for texts in ([text], [text, AFTER, AFTER]))
    assert followed.documents.tolist() == [*alone.documents.tolist(), 0, 0]
    assert followed.lines.tolist() == alone.lines.tolist()
    apart = [find_defects(pa.array([line])).documents[0] for line in lines]  # each in a block that is too short for 64
    found = {int(first): int(flags) for _, first, _, flags in followed.lines.tolist()}
    at = 0
    for line, flags in zip(lines, apart, strict=True):
        assert len(line) == 0 or found.get(at, 0) == flags or line.isspace()
        at += len(line.encode()) + 1
