"""Spans of styled text on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glm_data.viewer.styled import Span, lines, visible

if TYPE_CHECKING:
    from glm_data.viewer.differences import Facing

COLOURS = {
    "gmask": "bold blue",
    "mask": "bold yellow",
    "mip": "bold green",
    "smask": "bold magenta",
    "bytes": "red",
    "removed": "bold red",
    "added": "bold green",
    "value": "underline",
    "dim": "dim",
}
NAMES = {"gmask": "[gMASK] text", "mask": "[MASK] text", "mip": "MIP", "smask": "[sMASK] text"}

_MARKS = {"removed": "[-{}-]", "added": "{{+{}+}}"}
"""Around what differs, where there is no colour."""
_PLAIN_WIDTH = 110


def paint(spans: Iterable[Span], *, marks: bool = False) -> Text:
    """Spans as one text; with ``marks``, what differs stands in brackets instead of colours."""
    text = Text(overflow="fold")
    for change, run in groupby(spans, _change_of):
        own = Text()
        for span in run:
            own.append(f"{span.text} " if "line" in span.style.split() else span.text, _colour(span.style))
        if marks and change:
            text.append(_MARKS[change].format(own.plain))
        else:
            text.append(own)
    return text


def _change_of(span: Span) -> str:
    return next((name for name in span.style.split() if name in _MARKS), "")


def _colour(style: str) -> str:
    return next((COLOURS[name] for name in style.split() if name in COLOURS), "")


def console() -> Console:
    """Standard output, as wide as the terminal or of a fixed width where there is none."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else _PLAIN_WIDTH, highlight=False)


def print_text(text: Text, indent: int = 0) -> None:
    """Print styled text, wrapped."""
    console().print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)


def print_lines(spans: Iterable[Span], first: str, later: str, style: str = "") -> None:
    """Print spans a line each, as long as they are, behind ``first`` and then ``later``."""
    for place, line in enumerate(lines(spans)):
        head = Text(later if place else first, style)
        console().print(head.append(paint(line)), soft_wrap=True)


def print_side_by_side(found: Sequence[Facing], titles: Sequence[str], most: int = 12) -> None:
    """Print passages that face each other, the first ``most`` of them, under their titles."""
    grid = Table(box=None, expand=True, padding=(0, 1), show_header=True, header_style="bold")
    for title in titles:
        grid.add_column(Text(visible(title)), ratio=1, overflow="fold")
    out = console()
    marks = not out.is_terminal or out.no_color
    for passage in found[:most]:
        if passage.alike_before:
            grid.add_row(*[Text(f"⋯ {passage.alike_before:,} characters alike", "dim")] * 2)
        if passage.left or passage.right:
            grid.add_row(paint(passage.left, marks=marks), paint(passage.right, marks=marks))
    out.print(grid)
    if not found:
        out.print(Text("  the two texts are the same, character for character", "dim"))
    if more := sum(bool(passage.left or passage.right) for passage in found[most:]):
        out.print(Text(f"  and in {more:,} more place{'s' if more > 1 else ''}", "dim"))
