"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, warmup: int, highest: float, min_ratio: float) -> float:
    """The learning rate of ``step`` (from 0) of ``steps``: linear warm-up, then half a cosine.

    It reaches ``highest`` at step ``warmup`` and ``highest * min_ratio`` at the last step. A warm-up longer than the
    run is cut to the run.
    """
    warmup = min(warmup, steps - 1)
    if step < warmup:
        return highest * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return highest * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
