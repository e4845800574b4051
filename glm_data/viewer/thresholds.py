"""Rules of a filter stage with thresholds that move: how many documents would go, and which stand at the border.

Every rule is applied to all documents once; what is asked for one rule afterwards reads its own signal alone. A
document goes *by* a rule if no other rule drops it, so these counts say what a changed threshold would change.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from glm_data.errors import UsageError, did_you_mean
from glm_data.filters.rules import Rule, find_bound, find_broken
from glm_data.filters.signals import SIGNALS
from glm_data.filters.tune import Kept, Sample, reasons_of, sample_border
from glm_data.report.chinese import NAMES
from glm_data.viewer import chinese
from glm_data.viewer.styled import Span, reveal

BINS = 64


class RuleLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rule in the list of all."""

    rule: Rule
    meaning: str
    """Of its signal."""
    chinese: tuple[str, str]
    """Its name, empty for one that we have no word for, and the meaning of its signal."""
    broken: int
    """Documents that break it."""
    alone: int
    """Of these, those that no other rule drops."""


class FilterView(msgspec.Struct, frozen=True, kw_only=True):
    """A filter stage and its rules."""

    documents: int
    kept: int
    rules: list[RuleLine]


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram of the documents that a rule holds for."""

    edges: list[float]
    documents: list[int]
    alone: list[int]
    """Of these, those that no other rule drops."""


class Border(msgspec.Struct, frozen=True, kw_only=True):
    """A document near a threshold."""

    id: str
    kept: bool
    value: float
    excerpt: list[Span]


class MovedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule does with other thresholds."""

    gone: int
    """Documents that go by it."""
    before: int
    """Documents that went by it with the profile's thresholds."""
    kept: int
    """Documents that are kept altogether."""
    samples: list[Border]


class Thresholds:
    """The signals of a finished filter stage under its own profile."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self._rules = {rule.name: rule for rule in kept.profile.rules}
        self._broken = {name: self._find_broken(rule) for name, rule in self._rules.items()}
        refused = reasons_of(kept, msgspec.structs.replace(kept.profile, rules=())) != ""
        self._reasons = refused.astype(np.int32) + sum(self._broken.values())
        """``int32[documents]``: how many reasons there are against each."""

    @cached_property
    def overview(self) -> FilterView:
        """All rules in the order of the profile."""
        return FilterView(
            documents=len(self._reasons),
            kept=int((self._reasons == 0).sum()),
            rules=[
                RuleLine(
                    rule=rule,
                    meaning=SIGNALS[rule.signal],
                    chinese=(NAMES.get(name, ""), chinese.SIGNALS[rule.signal]),
                    broken=int(self._broken[name].sum()),
                    alone=int((self._broken[name] & self._open(name)).sum()),
                )
                for name, rule in self._rules.items()
            ],
        )

    def bars(self, name: str) -> Bars:
        """The histogram of a rule's signal; thresholds of the profile lie within it."""
        rule = self._rule(name)
        values = self.kept.signals[rule.signal]
        measured = find_bound(rule, self.kept.signals, self.kept.languages) & np.isfinite(values)
        edges = _edges(values[measured], [bound for bound in (rule.min, rule.max) if bound is not None])
        clipped = np.clip(values, edges[0], edges[-1])
        documents, alone = (
            np.histogram(clipped[rows], edges)[0].tolist() for rows in (measured, measured & self._open(name))
        )
        return Bars(edges=edges.tolist(), documents=documents, alone=alone)

    def move(self, name: str, low: float | None, high: float | None, samples: int = 0) -> MovedView:
        """A rule with other thresholds (None: none), with ``samples`` documents around them."""
        rule = msgspec.structs.replace(self._rule(name), min=low, max=high)
        is_open, broken = self._open(name), self._find_broken(rule)
        gone = is_open & broken
        border = self._border(rule, gone, is_open & ~broken, samples) if samples and (low, high) != (None, None) else []
        return MovedView(
            gone=int(gone.sum()),
            before=int((self._broken[name] & is_open).sum()),
            kept=int((is_open & ~broken).sum()),
            samples=border,
        )

    def _border(self, rule: Rule, gone: NDArray[np.bool_], stays: NDArray[np.bool_], count: int) -> list[Border]:
        reasons = np.full(len(gone), "another rule", object)
        reasons[gone], reasons[stays] = rule.name, ""
        return [_border(sample) for sample in sample_border(self.kept, rule, reasons, count)]

    def _find_broken(self, rule: Rule) -> NDArray[np.bool_]:
        return find_broken(rule, self.kept.signals, self.kept.languages)

    def _open(self, name: str) -> NDArray[np.bool_]:
        """Documents that no other rule drops."""
        is_open: NDArray[np.bool_] = self._reasons == self._broken[name]
        return is_open

    def _rule(self, name: str) -> Rule:
        if name not in self._rules:
            raise UsageError(f"the profile has no rule '{name}'.{did_you_mean(name, self._rules)}")
        return self._rules[name]


def _border(sample: Sample) -> Border:
    return Border(id=sample.id, kept=sample.kept, value=sample.value, excerpt=reveal(sample.excerpt))


def _edges(values: NDArray[np.float64], bounds: Sequence[float]) -> NDArray[np.float64]:
    """``float64[BINS + 1]``: from the 0.5th to the 99.5th percentile, widened to hold ``bounds``."""
    low, high = np.quantile(values, (0.005, 0.995)).tolist() if len(values) else (0.0, 1.0)
    low, high = min([low, *bounds]), max([high, *bounds])
    room = 0.04 * (high - low) or abs(high) or 1.0
    low, high = (low - room if low in bounds and low > 0 else low), (high + room if high in bounds else high)
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)
