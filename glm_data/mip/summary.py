"""What a finished mip stage holds: tallies by template, samples and tokens by data set and language, and leakage.

Leakage is what samples share with evaluation sets: an item counts as found in a sample if its grams of 13 words (or 24
Chinese characters) that stand there cover half of it, as in decontamination; a gram of more than ten items of a
benchmark is boilerplate. Grams that stand in prompts of every row cannot be told from those of items by this, so a high
figure is to be looked at, not believed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data.decontaminate import DecontaminateOptions, build_index, read_evaluation, search
from glm_data.decontaminate.index import Index
from glm_data.errors import UsageError
from glm_data.formats.parquet import read_batches
from glm_data.manifest import Success, read_success
from glm_data.mip.stage import NAME
from glm_data.mip.tally import TemplateTally, merge

_EXAMPLES = 3


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a data set or language."""

    samples: int
    tokens: int
    share: float
    """Of all tokens."""


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """What the samples of a data set share with a benchmark."""

    dataset: str
    benchmark: str
    samples: int
    items: int
    """Different items that were found."""
    examples: tuple[str, ...]
    """Ids of samples, the first ones."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say of a finished stage."""

    records: int
    kept: int
    tokens: int
    datasets: dict[str, Amount]
    languages: dict[str, Amount]
    shots: dict[str, int]
    templates: tuple[TemplateTally, ...]
    blocked: dict[str, dict[str, str]]
    """Data set -> id of a template -> why it was not used."""
    missing: tuple[str, ...]
    leaks: tuple[Leak, ...] | None = None
    """None: nobody asked."""


def summarize(folder: Path, evaluation: Path | None = None) -> Summary:
    """Read a finished mip stage; with ``evaluation``, a manifest of evaluation sets, look for their items too.

    Raises :class:`UsageError` if ``folder`` is no finished mip stage, and as ``read_evaluation``.
    """
    success = read_success(folder)
    if success.stage != NAME:
        raise UsageError(f"'{folder}' is a finished stage '{success.stage}', not '{NAME}'; give the folder of one.")
    tallies = merge(_read_tallies(folder, success))
    tokens = sum(tally.prompt_tokens + tally.target_tokens for tally in tallies)
    facts = success.facts["datasets"]
    return Summary(
        records=success.records,
        kept=success.kept,
        tokens=tokens,
        datasets=_amounts(tallies, "dataset", tokens),
        languages=_amounts(tallies, "lang", tokens),
        shots=dict(sorted(_below(success, "shots/").items(), key=lambda pair: int(pair[0]))),
        templates=tuple(tallies),
        blocked={key: said["blocked"] for key, said in facts.items() if said.get("blocked")},
        missing=tuple(success.facts.get("missing", ())),
        leaks=None if evaluation is None else _leaks(folder, success, evaluation),
    )


def _read_tallies(folder: Path, success: Success) -> list[list[TemplateTally]]:
    names = [item.name for item in success.files if item.name.startswith("report/")]
    return [
        [msgspec.json.decode(line, type=TemplateTally) for line in (folder / name).read_bytes().splitlines()]
        for name in names
    ]


def _amounts(tallies: list[TemplateTally], field: str, tokens: int) -> dict[str, Amount]:
    samples: Counter[str] = Counter()
    amounts: Counter[str] = Counter()
    for tally in tallies:
        samples[getattr(tally, field)] += tally.kept
        amounts[getattr(tally, field)] += tally.prompt_tokens + tally.target_tokens
    return {
        name: Amount(samples=samples[name], tokens=amounts[name], share=amounts[name] / max(1, tokens))
        for name in sorted(samples)
    }


def _below(success: Success, prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in success.counts.items() if name.startswith(prefix)}


# --- leakage ----------------------------------------------------------------------------------------------------------


def _leaks(folder: Path, success: Success, manifest: Path) -> tuple[Leak, ...]:
    options = DecontaminateOptions(evaluation=str(manifest))
    index = build_index(read_evaluation(manifest), options.shape, options.common_items)
    found: dict[tuple[str, str], _Found] = defaultdict(_Found)
    for name in (item.name for item in success.files if item.name.startswith("data/")):
        for batch in read_batches(folder / name, ["id", "dataset", "subset", "prompt", "target"]):
            _search(batch, index, options.containment, found)
    return tuple(
        Leak(
            dataset=dataset,
            benchmark=benchmark,
            samples=len(what.samples),
            items=len(what.items),
            examples=tuple(list(what.samples)[:_EXAMPLES]),
        )
        for (dataset, benchmark), what in sorted(found.items())
    )


class _Found:
    def __init__(self) -> None:
        self.samples: dict[str, None] = {}
        self.items: set[int] = set()


def _search(batch: pa.RecordBatch, index: Index, containment: float, found: dict[tuple[str, str], _Found]) -> None:
    texts = pc.binary_join_element_wise(batch["prompt"], batch["target"], "\n")
    hits, _ = search(texts, index, containment)
    ids, names, subsets = (batch[column].to_pylist() for column in ("id", "dataset", "subset"))
    for text, item in zip(hits.texts[hits.is_hit].tolist(), hits.items[hits.is_hit].tolist(), strict=True):
        dataset = f"{names[text]}/{subsets[text]}" if subsets[text] else names[text]
        benchmark = str(np.asarray(index.benchmarks)[index.benchmark_of[item]])
        what = found[dataset, benchmark]
        what.samples[ids[text]] = None
        what.items.add(item)
