"""Steps that would harm are not made: not finite, or six standard deviations above what was usual.

The rule is that of OLMo's optimiser: loss and gradient norm are compared with their mean over the last ``window`` steps
made, plus ``sigma`` standard deviations. A step that fails is left out, the weights stay, and its rows are written to
``spikes.jsonl``; ``glm-data rewind`` says which documents they are.
"""

from __future__ import annotations

import math
import statistics

import msgspec

from glm_data.errors import GlmDataError

LEAST = 20
"""Steps before a deviation means anything."""


class Guard(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What was usual so far; kept in checkpoints."""

    losses: list[float] = []
    norms: list[float] = []
    in_a_row: int = 0
    """Steps left out since the last one that was made."""

    def verdict(self, loss: float, norm: float, sigma: float) -> str:
        """Why a step of this loss and gradient norm must not be made; empty if it may."""
        if not math.isfinite(loss) or not math.isfinite(norm):
            return "not finite"
        for name, value, usual in (("loss", loss, self.losses), ("gradient norm", norm, self.norms)):
            if sigma and len(usual) >= LEAST and value > (limit := self._limit(usual, sigma)):
                return f"{name} {value:.4g} above {limit:.4g}"
        return ""

    def note(self, loss: float, norm: float, made: bool, window: int, patience: int) -> None:
        """Take note of a step; raises :class:`GlmDataError` when ``patience`` in a row were left out."""
        self.in_a_row = 0 if made else self.in_a_row + 1
        if made:
            self.losses, self.norms = [*self.losses, loss][-window:], [*self.norms, norm][-window:]
        elif self.in_a_row >= patience:
            raise GlmDataError(
                f"{patience} steps in a row were left out (spikes.jsonl says why and names their rows); lower lr or "
                "lengthen warmup_samples, or go back to an older checkpoint and list the rows in skip.txt."
            )

    @staticmethod
    def _limit(usual: list[float], sigma: float) -> float:
        return statistics.fmean(usual) + sigma * statistics.pstdev(usual)
