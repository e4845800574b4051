"""The squared errors of many scales for a group of weights, one pass over the weights for all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_data.kernels import compiled

MOST_CANDIDATES = 64
"""Scales of a group that can be tried: the lanes of the innermost loop, four registers of AVX-512."""
_COLUMNS = 64
_ROUNDING = np.float32(1.5 * 2**23)
"""Added to a small number and taken off again, it rounds to the nearest whole number, ties to even."""


@compiled
def least_error(
    weights_NC: NDArray[np.float32],
    importance_GC: NDArray[np.float32],
    scales_NS: NDArray[np.float32],
    most: Any,
    chosen_N: NDArray[np.int64],
) -> None:
    """Which of its S scales has the least squared error for each group of C weights; the first wins a tie.

    Group n's columns weigh ``importance_GC[n % G]``; ``most`` is the largest level as a float32. Lanes are scales, so
    the columns of each are summed in their order and the result is the same for registers of any width: 64 columns in
    float32, those sums in float64. A weight times 1 / s may round otherwise than its quotient by s only where it is as
    far from both levels.
    """
    scales = np.zeros(MOST_CANDIDATES, np.float32)
    inverses = np.zeros(MOST_CANDIDATES, np.float32)
    errors = np.zeros(MOST_CANDIDATES, np.float32)
    totals = np.zeros(MOST_CANDIDATES, np.float64)
    candidates, columns = scales_NS.shape[1], weights_NC.shape[1]
    for n in range(len(weights_NC)):
        importance = importance_GC[n % len(importance_GC)]
        for lane in range(candidates):
            scales[lane] = scales_NS[n, lane]
            inverses[lane] = np.float32(1) / scales[lane] if scales[lane] > 0 else np.float32(0)
        totals[:] = 0
        for first in range(0, columns, _COLUMNS):
            errors[:] = 0
            for k in range(first, min(first + _COLUMNS, columns)):
                weight, factor = abs(weights_NC[n, k]), importance[k]
                for lane in range(MOST_CANDIDATES):
                    quotient = weight * inverses[lane]
                    level = ((quotient if quotient < most else most) + _ROUNDING) - _ROUNDING
                    off = level * scales[lane] - weight
                    errors[lane] += off * off * factor
            for lane in range(MOST_CANDIDATES):
                totals[lane] += errors[lane]
        best = 0
        for lane in range(1, candidates):
            if totals[lane] < totals[best]:
                best = lane
        chosen_N[n] = best
