"""The loss curve of a training run, thinned out to what a picture can show."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data.manifest import Success

METRICS = "metrics.jsonl"
MOST_POINTS = 240


def read_curve(folder: Path, success: Success, plan: dict[str, Any]) -> dict[str, Any]:
    """Loss by step, in all and by kind of piece, and the entropy of the targets (nats a token)."""
    lines = _read_lines(folder / METRICS)
    names = sorted({name for line in lines for name in line if name == "loss" or name.startswith("loss/")})
    points = {name: thin([(line["step"], line[name]) for line in lines if name in line]) for name in names}
    return {"curves": points, "unigram_entropy": success.facts.get("unigram_entropy"), "facts": success.facts}


def _read_lines(path: Path) -> list[Mapping[str, Any]]:
    """The lines of a metrics file that hold a step; a torn last line is left out."""
    found: list[Mapping[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(line)
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                found.append(value)
    return found


def thin(points: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> list[list[float]]:
    """At most ``most`` points: the means of equally long stretches, which keep the first and last step."""
    if len(points) <= most:
        return [[step, value] for step, value in points]
    inner = points[1:-1]
    thinned = [list(points[0])]
    for index in range(most - 2):
        stretch = inner[index * len(inner) // (most - 2) : (index + 1) * len(inner) // (most - 2)]
        thinned.append([mean([step for step, _ in stretch]), mean([value for _, value in stretch])])
    return [*thinned, list(points[-1])]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)
