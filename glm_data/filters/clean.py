"""Cleaning: steps that change text, each a plain function, run only on the documents that need it.

============= ===============================================================================================
mojibake      what was read in the wrong encoding is read again, line by line (:mod:`glm_data.filters.encodings`)
newlines      ``\\r\\n``, ``\\r``, U+0085, U+2028, U+2029 become ``\\n``
control       control, zero-width and direction characters go; joiners too, beside Han characters and ASCII
html          entities and tags that extraction left, in texts that are not about HTML, and not in lines of code
white_space   odd spaces become blanks; ideographic and trailing ones at line ends go; at most one blank line in a row
repeats       four or more of one of ``!?！？。，、；～`` become three, three or more ``…`` two
personal      e-mail addresses, numbers of phones, cards and the like become placeholders (see ``personal``)
title         a WuDao document begins with its title, unless it does already
last_fragment by choice: of Chinese text, what follows the last end mark goes, as in WuDao; poems and code lose by it
============= ===============================================================================================

The full-width digit １ and everything else that carries meaning stays.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data.filters.encodings import fix_mojibake
from glm_data.filters.options import Step
from glm_data.filters.personal import PLACEHOLDERS, replace_personal
from glm_data.text import defects
from glm_data.text.characters import CLOSERS, END_MARKS

_TITLED_SOURCES = "WuDao"


_ABOUT_HTML = ("html", "xml", "css", "javascript", "markdown", "php", "标签", "标记", "代码")


class _Titled(msgspec.Struct):
    title: str | None = None


_title_decoder = msgspec.json.Decoder(_Titled)


def fix_newlines(text: str) -> str:
    """One kind of line end."""
    return _patterns()["newlines"].sub("\n", text.replace("\r\n", "\n"))


def remove_controls(text: str) -> str:
    """Drop invisible characters; joiners only where no script needs them (emoji and Indic scripts do)."""
    found = _patterns()
    text = found["control"].sub("", text)
    return found["joiner"].sub("", text) if any(chr(point) in text for point in defects.JOINERS) else text


def fix_white_space(text: str) -> str:
    """Blanks for odd spaces, no indentation of paragraphs by them, nothing at line ends, at most one blank line."""
    found = _patterns()
    if any(chr(point) in text for point in defects.SPACES):
        text = found["space"].sub(" ", found["indent"].sub("", text))
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n")


def shorten_repeats(text: str) -> str:
    """Three sentence marks of a kind are enough, and two ``…``."""
    found = _patterns()
    return found["ellipses"].sub("……", found["repeats"].sub(r"\1\1\1", text))


def remove_html(text: str) -> str:
    """Decode the entities and drop the tags that extraction left; what is about HTML, or code, stays as it is."""
    found = _patterns()
    if not found["markup"].search(text) or any(word in text.lower() for word in _ABOUT_HTML):
        return text
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if ("&" in line or "<" in line) and not found["code"].search(line):
            line = found["tag"].sub("", found["break"].sub("\n", line))
            lines[number] = found["entity"].sub(lambda match: html.unescape(match.group()), line)
    return "\n".join(lines)


def drop_last_fragment(text: str) -> str:
    """Without what follows the last end mark, if that is Chinese and less than half of the text."""
    end = max((text.rfind(mark) for mark in END_MARKS if mark != "."), default=-1) + 1
    while end < len(text) and text[end] in CLOSERS:
        end += 1
    rest = text[end:]
    return text[:end] if 2 * end > len(text) and _patterns()["han"].search(rest) else text


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
        "newlines": f"[{class_of(defects.LINE_ENDS)}]",
        "control": f"[{class_of(defects.CONTROLS)}]+",
        "joiner": rf"(?<=[{no_joiner}])[\u200c\u200d]+|[\u200c\u200d]+(?=[{no_joiner}]|$)",
        "indent": rf"^[{spaces}]+",
        "space": f"[{spaces}]",
        "repeats": r"([!?！？。，、；～])\1{3,}",
        "ellipses": r"…{3,}",
        "markup": r"&[a-z#]|</?[A-Za-z]",
        "code": r"[;{}]\s*$|^\s*(?:[#$/*]|>>>)|=[\"']\s*$|\breturn\b",
        "break": r"(?i:<br ?/?>|</p>|</div>|</li>|</tr>)",
        "tag": r"(?i:</?(?:p|div|span|font|b|strong|em|i|u|a|img|ul|ol|li|tr|td|th|table|tbody|center|h[1-6])"
        r"(?: [^<>]{0,500})?/?>)",
        "entity": r"&(?:nbsp|ensp|emsp|quot|amp|lt|gt|middot|bull|hellip|mdash|ndash|[lr][sd]quo|#[0-9]{2,6});",
        "han": r"[\u3400-\u9fff]",
    }
    return {name: re.compile(pattern, re.MULTILINE) for name, pattern in patterns.items()}


class _TextStep(NamedTuple):
    function: Callable[[str], str]
    flags: int
    """Flags of the documents that need it."""
    leaves: int
    """Flags of what may need doing once it has changed a text."""


_ALL = -1
_TEXT_STEPS: dict[Step, _TextStep] = {
    "mojibake": _TextStep(fix_mojibake, defects.MOJIBAKE, _ALL),
    "newlines": _TextStep(fix_newlines, defects.NEWLINES, defects.LAYOUT),
    "control": _TextStep(remove_controls, defects.CONTROL | defects.JOINER, _ALL & ~defects.MOJIBAKE),
    "html": _TextStep(remove_html, defects.HTML, _ALL & ~defects.MOJIBAKE),
    "white_space": _TextStep(fix_white_space, defects.ODD_SPACE | defects.LAYOUT, defects.PERSONAL),
    "repeats": _TextStep(shorten_repeats, defects.REPEATS, 0),
    "personal": _TextStep(replace_personal, defects.PERSONAL, 0),
}
_ALWAYS: dict[Step, Callable[[str], str]] = {"last_fragment": drop_last_fragment}
"""Steps that no flag asks for: they look at every document."""


def clean_text(text: str, flags: int, steps: Sequence[Step], cleaned: Counter[str]) -> str:
    """Run the text steps that ``flags`` (of :mod:`glm_data.text.defects`) ask for; ``cleaned`` counts changes."""
    for name, step in _TEXT_STEPS.items():
        if name in steps and flags & step.flags:
            changed = step.function(text)
            if changed != text:
                cleaned[name] += 1
                if name == "personal":
                    cleaned.update(_placeholders(text, changed))
                text, flags = changed, flags | step.leaves
    return text


def _placeholders(before: str, after: str) -> Counter[str]:
    """``personal/<kind>`` and how many placeholders of it a text got."""
    kinds = sorted(set(PLACEHOLDERS.values()))
    gained = {kind.strip("<>"): after.count(kind) - before.count(kind) for kind in kinds}
    return Counter({f"personal/{kind}": count for kind, count in gained.items() if count > 0})


def clean_block(block: pa.RecordBatch, steps: Sequence[Step]) -> tuple[pa.RecordBatch, Counter[str]]:
    """Clean the texts of a block; returns it with how many documents each step changed.

    A document that needs nothing keeps its bytes.
    """
    column = block.column("text")
    flags = defects.find_defects(column)
    cleaned: Counter[str] = Counter()
    titled = _titled_rows(block) if "title" in steps else []
    always = [(name, function) for name, function in _ALWAYS.items() if name in steps]
    if not titled and not flags.any() and not always:
        return block, cleaned
    texts = column.to_pylist()
    for row in np.flatnonzero(flags).tolist():
        texts[row] = clean_text(texts[row], int(flags[row]), steps, cleaned)
    for name, function in always:
        changed = [function(text) for text in texts]
        cleaned[name] += sum(new != old for new, old in zip(changed, texts, strict=True))
        texts = changed
    for row, title in titled:
        text = join_title(texts[row], title)
        cleaned["title"] += text != texts[row]
        texts[row] = text
    return replace_column(block, "text", pa.array(texts, pa.string())), cleaned


def _titled_rows(block: pa.RecordBatch) -> list[tuple[int, str]]:
    """Rows of WuDao documents that have a title, and the title."""
    rows = pc.indices_nonzero(pc.starts_with(block.column("source"), _TITLED_SOURCES))
    titles = [title_of(meta) for meta in block.column("meta").take(rows).to_pylist()]
    return [(row, title) for row, title in zip(rows.to_pylist(), titles, strict=True) if title]


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
