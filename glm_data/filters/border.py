"""Documents near the border: of every rule, those that it nearly dropped and those that it only just did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.filters.rules import Profile, Rule, Verdicts, find_bound
from glm_data.filters.signals import Signals

EXAMPLES = 3
"""Documents of each side of each rule that a shard keeps."""

EXCERPT = 160
"""Characters of a document that are shown."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A document near the bound of a rule."""

    rule: str
    kept: bool
    """Kept, and the rule nearly broken; or dropped for this rule, nearly kept."""
    value: float
    bound: float
    distance: float
    """Between value and bound, as a part of the bound."""
    id: str
    excerpt: str


class Near(NamedTuple):
    """Where a document stands to a rule's nearest bound: ``float64[documents]`` each."""

    distances: NDArray[np.float64]
    bounds: NDArray[np.float64]


def near(rule: Rule, values: NDArray[np.float64]) -> Near:
    """How far ``values`` are from the rule's nearest bound, as a part of it."""
    bounds = np.array([bound for bound in (rule.min, rule.max) if bound is not None])
    apart = np.abs(values[:, None] - bounds) / np.maximum(np.abs(bounds), 1e-9)
    nearest = np.where(np.isnan(values), 0, np.argmin(apart, axis=1))
    return Near(apart[np.arange(len(values)), nearest], bounds[nearest])


Limits = Mapping[tuple[str, bool], float]
"""By rule and side the distance beyond which no example is wanted."""


def find_examples(
    block: pa.RecordBatch,
    profile: Profile,
    signals: Signals,
    languages: NDArray[np.int8],
    verdicts: Verdicts,
    limits: Limits | None = None,
) -> Iterator[Example]:
    """The examples of one block, those beyond ``limits`` left out."""
    limits = limits or {}
    ids, texts = block.column("id"), block.column("text")
    is_kept = verdicts.reasons == ""
    for rule in profile.rules:
        values = signals[rule.signal]
        bound = find_bound(rule, signals, languages) & is_kept
        for kept, side in ((True, bound), (False, verdicts.reasons == rule.name)):
            sound = np.flatnonzero(side & np.isfinite(values))
            if not sound.size:
                continue
            found = near(rule, values[sound])
            close = np.flatnonzero(found.distances <= limits.get((rule.name, kept), np.inf))
            # Ties go to the first document, whatever the sort does with them.
            for place in close[np.argsort(found.distances[close], kind="stable")][:EXAMPLES].tolist():
                row = int(sound[place])
                yield Example(
                    rule=rule.name,
                    kept=kept,
                    value=float(values[row]),
                    bound=float(found.bounds[place]),
                    distance=float(found.distances[place]),
                    id=ids[row].as_py(),
                    excerpt=excerpt(texts[row].as_buffer()),
                )


def excerpt(text: pa.Buffer) -> str:
    """The beginning of a text in UTF-8, on one line."""
    return " ".join(bytes(text[: 4 * EXCERPT]).decode("utf-8", "ignore")[:EXCERPT].split())


def nearest(examples: Iterable[Example]) -> list[Example]:
    """The :data:`EXAMPLES` nearest of each side of each rule, in order of rule, side and distance."""
    sides: dict[tuple[str, bool], list[Example]] = {}
    for example in examples:
        sides.setdefault((example.rule, example.kept), []).append(example)
    return [example for side in sorted(sides) for example in nsmallest(EXAMPLES, sides[side], key=_order)]


def limits_of(examples: Sequence[Example]) -> dict[tuple[str, bool], float]:
    """The distances beyond which nothing would be among the :func:`nearest` any more, of sides that are full."""
    counts = Counter((example.rule, example.kept) for example in examples)
    return {
        (example.rule, example.kept): example.distance
        for example in examples
        if counts[example.rule, example.kept] == EXAMPLES
    }


def _order(example: Example) -> tuple[float, str]:
    return example.distance, example.id
