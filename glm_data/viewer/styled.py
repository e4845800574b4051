"""Styled text: stretches of text with a style each, which the terminal and the page only paint.

A style is a string of names with blanks between them, the classes of the page:

=======  =================================================================
hidden   stands for a character that is not seen or steers what it is in
line     the sign of a line end
tab      the sign of a tab
special  a task token by its name, such as ``<eos>``
bytes    a character spelt in byte pieces
removed  stands on the left side only
added    stands on the right side only
value    a value of the row that a template was filled with
dim      said by us, not by the text
gmask    of a [gMASK] piece; so ``mask``, ``smask`` and ``mip``
=======  =================================================================

Foreign text enters by :func:`reveal` alone: control characters, overrides of the writing direction and what else does
not show become their escapes, so that no painter has to know of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from glm_data.hidden import is_hidden, is_plain, spell

_WHITE = {"\n": "line", "\t": "tab"}
_SIGNS = {"line": "⏎", "tab": "⇥"}


class Span(NamedTuple):
    """A stretch of text and how to paint it."""

    text: str
    style: str = ""


def reveal(text: str, style: str = "") -> list[Span]:
    """``text`` as spans: ``⏎`` for line ends, ``⇥`` for tabs, escapes such as ``\\u202e`` for hidden characters."""
    if is_plain(text):
        return [Span(text, style)] if text else []
    spans = []
    for kind, letters in groupby(text, _kind_of):
        found = "".join(letters)
        if kind in _SIGNS:
            spans += [Span(_SIGNS[kind], _both(style, kind))] * len(found)
        else:
            spans.append(Span(spell(found) if kind else found, _both(style, kind)))
    return spans


def visible(text: str) -> str:
    """``text`` on a line of its own: as :func:`reveal` shows it, with a blank after the sign of a line end."""
    return "".join(f"{span.text} " if "line" in span.style.split() else span.text for span in reveal(text))


def lines(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Spans cut at line ends, whose signs are left out."""
    held: list[Span] = []
    for span in spans:
        if "line" in span.style.split():
            yield held
            held = []
        else:
            held.append(span)
    yield held


def clip(spans: Iterable[Span], characters: int) -> list[Span]:
    """The first ``characters`` characters of spans, and ``…`` if there are more."""
    kept: list[Span] = []
    room = characters
    for span in spans:
        if len(span.text) > room:
            return [*kept, *([Span(span.text[:room], span.style)] if room else []), Span(" …", "dim")]
        kept.append(span)
        room -= len(span.text)
    return kept


def _kind_of(letter: str) -> str:
    if letter in _WHITE:
        return _WHITE[letter]
    return "hidden" if is_hidden(letter) else ""


def _both(style: str, kind: str) -> str:
    return f"{style} {kind}".strip()
