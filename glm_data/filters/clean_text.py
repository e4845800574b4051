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
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from glm_data.filters.encodings import fix_mojibake
from glm_data.filters.options import Step
from glm_data.filters.personal import PLACEHOLDERS, replace_personal
from glm_data.text import defects
from glm_data.text.characters import CLOSERS, END_MARKS

_ABOUT_HTML = ("html", "xml", "css", "javascript", "markdown", "php", "标签", "标记", "代码")


def fix_newlines(text: str) -> str:
    """One kind of line end."""
    return _patterns()["newlines"].sub("\n", text.replace("\r\n", "\n"))


def remove_controls(text: str) -> str:
    """Drop invisible characters; joiners only where no script needs them (emoji and Indic scripts do)."""
    found = _patterns()
    text = found["control"].sub("", text)
    return found["joiner"].sub("", text) if "\u200c" in text or "\u200d" in text else text


def fix_white_space(text: str) -> str:
    """Blanks for odd spaces, no indentation of paragraphs by them, nothing at line ends, at most one blank line."""
    found = _patterns()
    text = found["space"].sub(" ", found["indent"].sub("", text))
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return found["blank_lines"].sub("\n\n", text.rstrip(" \t")).strip("\n")


def shorten_repeats(text: str) -> str:
    """Three sentence marks of a kind are enough, and two ``…``."""
    found = _patterns()
    return found["ellipses"].sub("……", found["repeats"].sub(r"\1\1\1", text))


def remove_html(text: str) -> str:
    """Decode the entities and drop the tags that extraction left; what is about HTML, or code, stays as it is."""
    if not _patterns()["markup"].search(text) or is_about_html(text):
        return text
    return "\n".join(map(remove_html_of_line, text.split("\n")))


def remove_html_of_line(line: str) -> str:
    """As :func:`remove_html`, of one line of a text that is not about HTML."""
    found = _patterns()
    if not ("&" in line or "<" in line) or _is_code(line):
        return line
    line = found["tag"].sub("", found["break"].sub("\n", line))
    return found["entity"].sub(lambda match: html.unescape(match.group()), line)


def _is_code(line: str) -> bool:
    stripped = line.strip()
    return (
        stripped.endswith((";", "{", "}", '="', "='"))
        or stripped.startswith(("#", "$", "/", "*", ">>>"))
        or ("return" in line and bool(_patterns()["return"].search(line)))
    )


def is_about_html(text: str) -> bool:
    """Whether a text speaks of HTML or shows code, so that its tags and entities are part of what it says."""
    lower = text.lower()
    return any(word in lower for word in _ABOUT_HTML)


def drop_last_fragment(text: str) -> str:
    """Without what follows the last end mark, if that is Chinese and less than half of the text."""
    end = max((text.rfind(mark) for mark in END_MARKS if mark != "."), default=-1) + 1
    while end < len(text) and text[end] in CLOSERS:
        end += 1
    rest = text[end:]
    return text[:end] if 2 * end > len(text) and _patterns()["han"].search(rest) else text


def title_line(text: bytes, title: str) -> bytes:
    """``title`` and a new line to go before ``text`` (UTF-8); nothing if that begins with it, white space aside.

    No more than the first :func:`head_bytes` of the text are looked at.
    """
    squeezed, most = "".join(title.split()), head_bytes(title)
    if not squeezed or "".join(text[:most].decode("utf-8", "ignore")[: most // 4].split()).startswith(squeezed):
        return b""
    return f"{' '.join(title.split())}\n".encode()


def head_bytes(title: str) -> int:
    """How much of a text can tell whether it begins with its title."""
    return 16 * len(title) + 64


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
        "blank_lines": r"\n{3,}",
        "repeats": r"([!?！？。，、；～])\1{3,}",
        "ellipses": r"…{3,}",
        "markup": r"&[a-z#]|</?[A-Za-z]",
        "return": r"\breturn\b",
        "break": r"(?i:<br ?/?>|</p>|</div>|</li>|</tr>)",
        "tag": rf"(?i:</?(?:{'|'.join(tag for tag in defects.TAGS if tag != 'br')})(?: [^<>]{{0,500}})?/?>)",
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
    "newlines": _TextStep(fix_newlines, defects.NEWLINES, defects.BLANK_LINES | defects.LAYOUT),
    "control": _TextStep(remove_controls, defects.CONTROL | defects.JOINER, _ALL & ~defects.MOJIBAKE),
    "html": _TextStep(remove_html, defects.HTML, _ALL & ~defects.MOJIBAKE),
    "white_space": _TextStep(
        fix_white_space, defects.ODD_SPACE | defects.LAYOUT | defects.BLANK_LINES, defects.PERSONAL
    ),
    "repeats": _TextStep(shorten_repeats, defects.REPEATS, 0),
    "personal": _TextStep(replace_personal, defects.PERSONAL, 0),
}
_LINE_STEPS = {
    **{name: step for name, step in _TEXT_STEPS.items() if name not in ("mojibake", "newlines")},
    "html": _TEXT_STEPS["html"]._replace(function=remove_html_of_line),
}
"""Steps done line by line, as lines without a flag need nothing; see :mod:`glm_data.filters.clean_block`."""


def clean_text(text: str, flags: int, steps: Sequence[Step], cleaned: Counter[str]) -> str:
    """Run the text steps that ``flags`` (of :mod:`glm_data.text.defects`) ask for; ``cleaned`` counts changes."""
    return run_steps(_TEXT_STEPS, text, flags, steps, cleaned)


def clean_line(line: str, flags: int, steps: Sequence[Step], cleaned: Counter[str]) -> str:
    """As :func:`clean_text`, of a line of a text that is not about HTML and has none of the flags ``WHOLE``."""
    return run_steps(_LINE_STEPS, line, flags, steps, cleaned)


WHOLE = defects.MOJIBAKE | defects.NEWLINES | defects.JOINER
"""Flags of documents that are cleaned as a whole: what a line becomes may depend on its neighbours."""


def run_steps(
    text_steps: Mapping[Step, _TextStep], text: str, flags: int, steps: Sequence[Step], cleaned: Counter[str]
) -> str:
    """Run those of ``text_steps`` that are among ``steps`` and that ``flags`` ask for."""
    for name, step in text_steps.items():
        if name in steps and flags & step.flags:
            changed = replace_personal(text, flags) if name == "personal" else step.function(text)
            if changed != text:
                cleaned[name] += 1
                if name == "personal":
                    _count_placeholders(text, changed, cleaned)
                text, flags = changed, flags | step.leaves
    return text


def _count_placeholders(before: str, after: str, cleaned: Counter[str]) -> None:
    """Add to ``personal/<kind>`` how many placeholders of it a text got."""
    for placeholder, name in _KINDS.items():
        gained = after.count(placeholder) - before.count(placeholder)
        if gained > 0:
            cleaned[name] += gained


_KINDS = {placeholder: f"personal/{placeholder.strip('<>')}" for placeholder in PLACEHOLDERS.values()}


def to_simplified(texts: Sequence[str]) -> list[str]:
    """Traditional Chinese to simplified, by OpenCC's phrases."""
    converter = _converter()
    return [converter.convert(text) for text in texts]


@lru_cache(maxsize=1)
def _converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
