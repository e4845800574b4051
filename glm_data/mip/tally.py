"""What a data set's templates made of its rows: counts, lengths and samples, one tally a template, and their sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import xxhash

from glm_data.mip.arrange import FRAME, Arranged
from glm_data.mip.templates import Template

SAMPLES = 3
_LONGEST_SHOWN = 2000


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample to look at; those with the lowest ``order`` are shown."""

    order: int
    id: str
    prompt: str
    target: str


class TemplateTally(msgspec.Struct, kw_only=True):
    """What one template made of a data set's rows."""

    dataset: str
    """``name/split`` or ``name/subset/split``."""
    id: str
    name: str
    version: str
    task: str
    lang: str
    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = {}
    """Rows by reason."""
    not_in_choices: int = 0
    """Kept samples that answer by choice, but whose target is none of the choices."""
    over_long: int = 0
    """Kept samples longer than their window, whose prompt would lose its end when it is packed (few-shot: refused)."""
    prompt_characters: int = 0
    target_characters: int = 0
    prompt_tokens: int = 0
    target_tokens: int = 0
    shots: dict[str, int] = {}
    """Kept samples by worked examples."""
    options: dict[str, int] = {}
    """Kept samples by the form in which their choices are listed."""
    samples: tuple[Sample, ...] = ()

    def drop(self, reason: str, rows: int = 1) -> None:
        """Count ``rows`` rows that gave no sample."""
        self.rows += rows
        self.dropped[reason] = self.dropped.get(reason, 0) + rows

    def keep(self, id: str, made: Arranged, window: int) -> None:
        """Count one sample; ``window`` is how many tokens its piece of a pack may have."""
        self.rows += 1
        self.kept += 1
        self.prompt_characters += len(made.prompt)
        self.target_characters += len(made.target)
        self.prompt_tokens += made.prompt_tokens
        self.target_tokens += made.target_tokens
        self.over_long += made.prompt_tokens + made.target_tokens + FRAME > window
        self.shots[str(made.shots)] = self.shots.get(str(made.shots), 0) + 1
        if made.options:
            self.options[made.options] = self.options.get(made.options, 0) + 1
        order = xxhash.xxh3_64_intdigest(id.encode("utf-8", "surrogatepass")) >> 12
        if len(self.samples) < SAMPLES or order < self.samples[-1].order:
            sample = Sample(order=order, id=id, prompt=_clip(made.prompt), target=_clip(made.target))
            self.samples = _lowest([*self.samples, sample])


def new_tally(dataset: str, template: Template, lang: str) -> TemplateTally:
    """The tally of a template that has seen no row."""
    said = template.metadata
    return TemplateTally(
        dataset=dataset, id=template.id, name=template.name, version=said.version, task=said.task, lang=lang
    )


def merge(parts: Iterable[Sequence[TemplateTally]]) -> list[TemplateTally]:
    """The tallies of a data set's shards summed, in order of data set and template."""
    found: dict[tuple[str, str], TemplateTally] = {}
    for tally in (tally for part in parts for tally in part):
        key = tally.dataset, tally.id
        found[key] = _sum(found[key], tally) if key in found else tally
    return [found[key] for key in sorted(found)]


def _sum(one: TemplateTally, other: TemplateTally) -> TemplateTally:
    summed: dict[str, Any] = {}
    for name in one.__struct_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, int):
            summed[name] = left + right
        elif isinstance(left, dict):
            summed[name] = {key: left.get(key, 0) + right.get(key, 0) for key in sorted({**left, **right})}
    return msgspec.structs.replace(one, **summed, samples=_lowest([*one.samples, *other.samples]))


def _lowest(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: (sample.order, sample.id))[:SAMPLES])


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
