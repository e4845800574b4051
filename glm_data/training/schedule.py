"""Learning rate, batch size and gradient shrink as pure functions of the samples trained on.

A sample is a row. Samples, not steps, are what schedules count (GLM-130B's did too): a change of the batch size in the
middle of a run then moves nothing. GLM-130B: warm-up over 1,098,632 samples, batches from 192 rows up by 24 to 4,224
over the first 5,493,164, half a cosine to a tenth over 90 % of 219,726,562.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping

from glm_data.errors import ConfigError


def learning_rate(before: int, last: int, warmup: int, highest: float, min_ratio: float, rows: int = 1) -> float:
    """The learning rate of a step of ``rows`` rows that ``before`` samples precede; ``last`` precede the last step.

    Linear warm-up, then half a cosine: ``highest`` once ``warmup`` samples precede, ``highest * min_ratio`` at ``last``
    and behind it. A warm-up longer than the run is cut to the run.
    """
    warmup = min(warmup, last)
    if before < warmup:
        return highest * (before + rows) / (warmup + rows)
    progress = (before - warmup) / max(1, last - warmup)
    return highest * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def batch_rows_at(before: int, rows: int, start: int, step: int, ramp: int) -> int:
    """Rows of a step that ``before`` samples precede: from ``start`` up to ``rows`` in rises of ``step``, the last of
    which comes after ``ramp`` samples. GLM-130B: ``(4224, 192, 24, 5_493_164)``."""
    if before >= ramp or start >= rows:
        return rows
    rises = math.ceil((rows - start) / step)
    return min(rows, start + before * rises // ramp * step)


def steps_of_run(total: int | None, steps: int, rows: int, start: int, step: int, ramp: int) -> list[int]:
    """Samples before each step, and in all. The run has ``steps`` steps, or as many as make at least ``total``."""
    before, bounds = 0, [0]
    while before < ramp and (len(bounds) <= steps if total is None else before < total):
        before += batch_rows_at(before, rows, start, step, ramp)
        bounds.append(before)
    left = steps + 1 - len(bounds) if total is None else max(0, math.ceil((total - before) / rows))
    return [*bounds, *(before + rows * number for number in range(1, left + 1))]


def shrink_at(samples: int, points: Mapping[str, float], otherwise: float) -> float:
    """The embedding's share of its gradient after ``samples``: linear between ``points`` (samples -> share), constant
    before the first and behind the last. GLM-130B's log: 0.1 up to 1.0, later 0.5, then 0.1 again."""
    if not points:
        return otherwise
    pairs = shrink_points(points)
    pairs = [(min(samples, pairs[0][0]), pairs[0][1]), *pairs, (max(samples, pairs[-1][0]) + 1, pairs[-1][1])]
    number = bisect.bisect_right(pairs, samples, key=lambda pair: pair[0])
    (left, low), (right, high) = pairs[number - 1 : number + 1]
    return low + (high - low) * (samples - left) / (right - left)


def shrink_points(points: Mapping[str, float]) -> list[tuple[int, float]]:
    """The points in order; :class:`ConfigError` for one that cannot be meant."""
    for place, share in points.items():
        if not place.isdecimal() or not 0 < share <= 1:
            raise ConfigError(
                f"shrink_at has '{place}: {share}'; give samples as a whole number, and a share above 0, not above 1."
            )
    return sorted((int(place), share) for place, share in points.items())
