"""Cleaning: steps that change text, each a plain function, run only on the documents that need it.

========== ==================================================================================================
mojibake   UTF-8 that was read as Latin-1 or Windows-1252 is read again, line by line (ftfy, where its test says so)
newlines   ``\\r\\n``, ``\\r``, U+0085, U+2028, U+2029 become ``\\n``
control    control, zero-width and direction characters go; joiners too, beside Han characters and ASCII
white_space  odd spaces become blanks; ideographic and trailing ones at line ends go; at most one blank line in a row
repeats    four or more of one of ``!?！？。，、；～`` become three, three or more ``…`` two
title      a WuDao document begins with its title, unless it does already
========== ==================================================================================================

The full-width digit １ and everything else that carries meaning stays.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from glm_data.filters.options import Step
from glm_data.text import defects

_TITLED_SOURCES = "WuDao"


class _Titled(msgspec.Struct):
    title: str | None = None


_title_decoder = msgspec.json.Decoder(_Titled)


def fix_mojibake(text: str) -> str:
    """Read again the lines that are UTF-8 read as another encoding; ftfy decides which are and how."""
    import ftfy.badness

    if not ftfy.badness.is_bad(text):
        return text
    return "\n".join(ftfy.fix_encoding(line) if ftfy.badness.is_bad(line) else line for line in text.split("\n"))


def fix_newlines(text: str) -> str:
    """One kind of line end."""
    return _patterns()["newlines"].sub("\n", text)


def remove_controls(text: str) -> str:
    """Drop invisible characters; joiners only where no script needs them (emoji and Indic scripts do)."""
    found = _patterns()
    return found["joiner"].sub("", found["control"].sub("", text))


def fix_white_space(text: str) -> str:
    """Blanks for odd spaces, no indentation of paragraphs by them, nothing at line ends, at most one blank line."""
    found = _patterns()
    text = found["indent"].sub("", text)
    text = found["space"].sub(" ", text)
    text = found["trailing"].sub("\n", text)
    return found["blank lines"].sub("\n\n", text).lstrip("\n").rstrip()


def shorten_repeats(text: str) -> str:
    """Three sentence marks of a kind are enough, and two ``…``."""
    found = _patterns()
    return found["ellipses"].sub("……", found["repeats"].sub(r"\1\1\1", text))


def join_title(text: str, title: str) -> str:
    """``title``, a new line and ``text``; just ``text`` if it begins with the title, white space aside."""
    squeezed = "".join(title.split())
    if not squeezed or "".join(text[: 4 * len(title) + 16].split()).startswith(squeezed):
        return text
    return f"{' '.join(title.split())}\n{text}"


@lru_cache(maxsize=1)
def _patterns() -> dict[str, re.Pattern[str]]:
    """The patterns of the steps, made at the first call."""

    def class_of(points: Sequence[int]) -> str:
        return "".join(re.escape(chr(point)) for point in points)

    spaces = class_of(defects.SPACES)
    no_joiner = r"\u3400-\u9fff\x00-\x7f"
    patterns = {
        "newlines": rf"\r\n|[{class_of(defects.LINE_ENDS)}]",
        "control": f"[{class_of(defects.CONTROLS)}]+",
        "joiner": rf"(?<=[{no_joiner}])[\u200c\u200d]+|[\u200c\u200d]+(?=[{no_joiner}]|$)",
        "indent": rf"^[{spaces}]+",
        "space": f"[{spaces}]",
        "trailing": r"[ \t]+\n",
        "blank lines": r"\n{3,}",
        "repeats": r"([!?！？。，、；～])\1{3,}",
        "ellipses": r"…{3,}",
    }
    return {name: re.compile(pattern, re.MULTILINE) for name, pattern in patterns.items()}


_TEXT_STEPS: dict[Step, tuple[int, Callable[[str], str]]] = {
    "mojibake": (defects.MOJIBAKE, fix_mojibake),
    "newlines": (defects.NEWLINES, fix_newlines),
    "control": (defects.CONTROL | defects.JOINER, remove_controls),
    "white_space": (defects.WHITE_SPACE, fix_white_space),
    "repeats": (defects.REPEATS, shorten_repeats),
}


def clean_text(text: str, flags: int, steps: Sequence[Step], cleaned: Counter[str]) -> str:
    """Run the text steps that ``flags`` ask for; ``cleaned`` counts those that changed something.

    A step may leave work for the next (a removed control character, trailing blanks), so once one has changed the
    text, all later ones look at it.
    """
    for step, (mask, function) in _TEXT_STEPS.items():
        if step in steps and flags & mask:
            changed = function(text)
            if changed != text:
                cleaned[step] += 1
                text, flags = changed, -1
    return text


def clean_block(block: pa.RecordBatch, steps: Sequence[Step]) -> tuple[pa.RecordBatch, Counter[str]]:
    """Clean the texts of a block; returns it with how many documents each step changed.

    A document that needs nothing keeps its bytes.
    """
    column = block.column("text")
    flags = defects.find_defects(column)
    cleaned: Counter[str] = Counter()
    changed: dict[int, str] = {}
    for row in np.flatnonzero(flags).tolist():
        text = column[row].as_py()
        changed[row] = clean_text(text, int(flags[row]), steps, cleaned)
    if "title" in steps:
        _join_titles(block, changed, cleaned)
    if not changed:
        return block, cleaned
    texts = [changed.get(row) if row in changed else text for row, text in enumerate(column.to_pylist())]
    return replace_column(block, "text", pa.array(texts, pa.string())), cleaned


def _join_titles(block: pa.RecordBatch, changed: dict[int, str], cleaned: Counter[str]) -> None:
    for row, source in enumerate(block.column("source").to_pylist()):
        if source.partition("/")[0] != _TITLED_SOURCES:
            continue
        title = title_of(block.column("meta")[row].as_py())
        before = changed[row] if row in changed else block.column("text")[row].as_py()
        text = join_title(before, title)
        if text != before:
            cleaned["title"] += 1
            changed[row] = text


def title_of(meta: str) -> str:
    """The title in a document's ``meta``, or an empty string."""
    try:
        return _title_decoder.decode(meta).title or ""
    except msgspec.DecodeError:
        return ""


def to_simplified(texts: Sequence[str]) -> list[str]:
    """Traditional Chinese to simplified, by OpenCC's phrases."""
    converter = _converter()
    return [converter.convert(text) for text in texts]


@lru_cache(maxsize=1)
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")


def replace_column(block: pa.RecordBatch, name: str, values: pa.Array) -> pa.RecordBatch:
    """``block`` with another column ``name``."""
    return block.set_column(block.schema.get_field_index(name), block.schema.field(name), values)
