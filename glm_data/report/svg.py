"""The loss curve as inline SVG; colours come from the page's style, so that it follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from glm_data.report.chinese import LABELS

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 116, 14, 34
_LABEL_GAP = 15
_NAMES = {"loss": "all", "loss/mask": "[MASK]", "loss/gmask": "[gMASK]", "loss/mip": "MIP", "loss/smask": "[sMASK]"}
"""What is drawn, by its name among the metrics."""

Points = Sequence[Sequence[float]]


def loss_curve(curves: Mapping[str, Points], entropy: float | None) -> Markup:
    """Loss by step: ``loss`` as a thick line, that of each kind of piece as a thin one, the unigram entropy dashed.

    Losses by language and by source, which may be dozens, are left to a table.
    """
    drawn = {name: points for name, points in sorted(curves.items(), reverse=True) if points and name in _NAMES}
    values = [value for points in drawn.values() for _, value in points] + ([entropy] if entropy is not None else [])
    steps = [step for points in drawn.values() for step, _ in points]
    if not steps:
        return Markup()
    ticks = nice_ticks(0.0, max(values))
    last = max(max(steps), 1)

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * step / last

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / ticks[-1]

    parts = [_grid(y(tick), f"{tick:g}") for tick in ticks]
    parts += [_tick(x(step), f"{step:,.0f}") for step in nice_ticks(0, last) if step <= last]
    labels = []
    if entropy is not None:
        parts.append(
            Markup('<line class="entropy" x1="{}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, x(last), y(entropy), y(entropy)
            )
        )
        labels.append((y(entropy), "entropy-label", f"unigram {entropy:.2f}"))
    for name, points in drawn.items():
        path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)
        kind = _class(name)
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(kind, path))
        labels.append((y(points[-1][1]), f"{kind}-label", f"{_NAMES[name]} {points[-1][1]:.2f}"))
    parts += [_text(x(last) + 8, place, css, text) for place, css, text in spread(labels)]
    body = Markup("").join(parts)
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="Loss by step"><g>{}</g>'
        '<text class="axis en" x="{}" y="{}" text-anchor="end">step</text>'
        '<text class="axis zh" x="{}" y="{}" text-anchor="end">{}</text></svg>'
    ).format(WIDTH, HEIGHT, body, *2 * (WIDTH - _RIGHT, HEIGHT - 4), LABELS["step"])


def _class(name: str) -> str:
    return f"c-{name.partition('/')[2] or 'all'}"


def _grid(y: float, text: str) -> Markup:
    line = Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, WIDTH - _RIGHT, y, y)
    return line + Markup('<text class="axis" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
        _LEFT - 6, y + 4, text
    )


def _tick(x: float, text: str) -> Markup:
    return Markup('<text class="axis" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        x, HEIGHT - _BOTTOM + 16, text
    )


def _text(x: float, y: float, css: str, text: str) -> Markup:
    word, _, value = text.rpartition(" ")
    label = Markup('<text class="label {} {}" x="{:.1f}" y="{:.1f}">{}</text>')
    english = label.format(css, "en", x, y + 4, escape(text))
    return english + label.format(css, "zh", x, y + 4, f"{LABELS.get(word, word)} {value}")


def spread(labels: Sequence[tuple[float, str, str]]) -> list[tuple[float, str, str]]:
    """Labels moved apart so that none covers another: from the top down, then back up from the bottom edge."""
    ordered = sorted(labels)
    places = [place for place, _, _ in ordered]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + _LABEL_GAP)
    floor = float(HEIGHT - _BOTTOM)
    for index in reversed(range(len(places))):
        places[index] = min(places[index], floor)
        floor = places[index] - _LABEL_GAP
    return [(place, css, text) for place, (_, css, text) in zip(places, ordered, strict=True)]


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to the first that is not below ``high``: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= span)
    return [low + step * index for index in range(math.ceil(span / step - 1e-9) + 1)]
