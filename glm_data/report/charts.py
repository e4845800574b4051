"""Pictures of counts as inline SVG: the funnel of documents, and counts against what was expected of them.

Colours come from the page's style, so that they follow light and dark; words stand in both languages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from glm_data.hidden import spell_hidden
from glm_data.report.chinese import LABELS, NAMES
from glm_data.report.text import SPACE, percent, size

_WIDTH = 1000
_LABELS, _VALUES = 150, 250
"""Room for names on the left and numbers on the right of the funnel."""
_STEP, _BAR = 50, 26
_CHART_WIDTH, _CHART_HEIGHT = 460, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 10, 28

_FLOW = Markup('<polygon class="flow" points="{}"/>')
_KEPT = Markup('<rect class="kept" x="{}" y="{}" width="{:.1f}" height="{}" rx="3"/>')
_VALUE = Markup('<text class="value" x="{:.1f}" y="{}">{}</text>')
_NAME = Markup('<text class="{} name" x="{:.1f}" y="{}" text-anchor="end">{}</text>')
_COUNT = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}: {:,}</title></rect>')
_DOT = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3.4"/>')
_TICK = Markup('<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
_GRID = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')


def funnel(steps: Sequence[Mapping[str, Any]]) -> Markup:
    """One bar a stage, as long as the documents that it kept are of all records, joined to the next."""
    first = max(steps[0]["records"], 1)
    widths = [(_WIDTH - _LABELS - _VALUES) * min(1.0, amount / first) for amount in _amounts(steps)]
    parts = []
    for number, width in enumerate(widths):
        top = number * _STEP
        if number:
            above = top - _STEP + _BAR
            corners = [(_LABELS, above), (_LABELS + widths[number - 1], above), (_LABELS + width, top), (_LABELS, top)]
            parts.append(_FLOW.format(" ".join(f"{x:.1f},{y}" for x, y in corners)))
        parts.append(_KEPT.format(_LABELS, top, max(width, 1.5), _BAR))
    for number, (name, value) in enumerate(_captions(steps, first)):
        middle = number * _STEP + _BAR / 2 + 5
        parts += [_both(name, _LABELS - 12, middle), _VALUE.format(_LABELS + widths[number] + 10, middle, value)]
    height = (len(widths) - 1) * _STEP + _BAR
    head = Markup('<svg class="wide" viewBox="0 0 {} {}" role="img" aria-label="Documents kept by each stage">{}</svg>')
    return head.format(_WIDTH, height, Markup("").join(parts))


def _amounts(steps: Sequence[Mapping[str, Any]]) -> list[int]:
    return [steps[0]["records"], *(step["kept"] for step in steps)]


def _captions(steps: Sequence[Mapping[str, Any]], first: int) -> list[tuple[str, str]]:
    captions = [("records read", f"{steps[0]['records']:,}" + _bytes(steps[0]["text_bytes_in"]))]
    for step in steps:
        share = percent(step["kept"], first)
        captions.append((step["stage"], f"{step['kept']:,} · {share}" + _bytes(step["text_bytes_kept"])))
    return captions


def _bytes(count: int | None) -> str:
    return "" if count is None else f" · {size(count)}"


def span_lengths(seen: Sequence[int], expected: Sequence[float]) -> Markup:
    """Spans of each length as bars, the recipe's curve as dots; lengths that nearly nobody has are left out."""
    last = max([at + 1 for at, value in enumerate(expected) if value >= 0.5], default=1)
    return _bars(seen[:last], expected[:last], [str(at + 1) for at in range(last)], "mask")


def suffixes(seen: Sequence[int], least: float) -> Markup:
    """Deciles of the share of [gMASK] pieces that is to be generated as bars, their mean as dots."""
    mean = sum(seen) / len(seen)
    starts = [least + (1 - least) * at / len(seen) for at in range(len(seen))]
    names = [f"{start:.0%}".replace("%", SPACE + "%") for start in starts]
    return _bars(seen, [mean] * len(seen), names, "gmask")


def _bars(seen: Sequence[float], expected: Sequence[float], names: Sequence[str], kind: str) -> Markup:
    most = max(*seen, *expected, 1)
    slot = (_CHART_WIDTH - _LEFT - _RIGHT) / len(seen)
    tall = _CHART_HEIGHT - _TOP - _BOTTOM
    floor = _CHART_HEIGHT - _BOTTOM
    every = -(-len(names) // 12)
    parts = []
    for at, (count, mean, name) in enumerate(zip(seen, expected, names, strict=True)):
        left = _LEFT + at * slot
        height = tall * count / most
        parts.append(_COUNT.format(kind, left + slot * 0.12, floor - height, slot * 0.76, height, name, count))
        parts.append(_DOT.format(left + slot / 2, floor - tall * mean / most))
        if at % every == 0:
            parts.append(_TICK.format(left + slot / 2, floor + 16, "middle", name))
    for share in (0.0, 0.5, 1.0):
        y = floor - tall * share
        parts.append(_GRID.format(_LEFT, _CHART_WIDTH - _RIGHT, y, y))
        parts.append(_TICK.format(_LEFT - 6, y + 4, "end", f"{most * share:,.0f}"))
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="Counts and what was expected">{}</svg>')
    return head.format(_CHART_WIDTH, _CHART_HEIGHT, Markup("").join(parts))


def _both(name: str, x: float, y: float) -> Markup:
    shown = spell_hidden(name)
    return _NAME.format("en", x, y, shown) + _NAME.format("zh", x, y, LABELS.get(name, NAMES.get(name, shown)))
