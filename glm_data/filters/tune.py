"""Other thresholds applied to the signals that a finished filter stage kept: no text is read but that of samples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from glm_data.config import from_mapping
from glm_data.errors import ConfigError, InputError, UsageError, did_you_mean
from glm_data.files import read_json
from glm_data.filters.border import excerpt, near
from glm_data.filters.language import LANGUAGES
from glm_data.filters.rules import Profile, Rule, check_profile, find_bound, judge
from glm_data.filters.shard import FilterTask
from glm_data.filters.signals import SIGNALS, Signals
from glm_data.filters.urls import is_refused_source
from glm_data.formats.read import read_blocks
from glm_data.manifest import PLAN, InputFile, read_success

SAMPLES = 20
"""Documents around the border that are shown."""

BINS = 20


class Kept(NamedTuple):
    """The signals of a finished stage, all shards one after the other."""

    folder: Path
    profile: Profile
    parts: list[str]
    """The file's name of each shard."""
    shards: NDArray[np.int64]
    """``int64[documents]``: which of ``parts`` a document is of."""
    kept: NDArray[np.bool_]
    sources: NDArray[Any]
    languages: NDArray[np.int8]
    signals: Signals


class Histogram(NamedTuple):
    """Documents that a rule holds for, by the value of its signal."""

    edges: list[float]
    """Bounds of the bins: one more than these."""
    documents: list[int]


class RuleTold(msgspec.Struct, kw_only=True):
    """A rule before and after, and the signal it bounds."""

    rule: Rule
    dropped_before: int
    """Documents for which it was the first reason."""
    dropped: int
    broken: int
    """All documents that break it, whatever else they break."""
    histogram: Histogram


class Sample(msgspec.Struct, kw_only=True):
    """A document near the border of a rule."""

    id: str
    kept: bool
    value: float
    excerpt: str


def read_kept(folder: Path) -> Kept:
    """Read the signals of a finished filter stage; raises :class:`UsageError` if it kept none."""
    success = read_success(folder)
    if success.stage != "filter":
        raise UsageError(f"'{folder}' is a stage '{success.stage}'; give the folder of a finished filter stage.")
    task = msgspec.convert(read_json(folder / PLAN)["options"], FilterTask)
    parts = [item.name for item in success.files if item.name.startswith("signals/")]
    if not parts:
        raise UsageError(f"'{folder}' has no signals; run its filter with --keep-signals.")
    try:
        tables = [pq.read_table(folder / part, use_threads=False) for part in parts]
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise InputError(f"the signals in '{folder}' cannot be read ({said}); run its filter again.") from None
    table = pa.concat_tables(tables)
    missing = [name for name in SIGNALS if name not in table.column_names]
    if missing:
        raise UsageError(f"'{folder}' was filtered without the signal '{missing[0]}'; run its filter again.")
    number = {language: place for place, language in enumerate(LANGUAGES)}
    return Kept(
        folder=folder,
        profile=task.profile,
        parts=parts,
        shards=np.repeat(np.arange(len(parts)), [part.num_rows for part in tables]),
        kept=table.column("kept").to_numpy(),
        sources=np.array(table.column("source").to_pylist(), object),
        languages=np.array([number[name] for name in table.column("lang").to_pylist()], np.int8),
        signals={name: table.column(name).to_numpy().astype(np.float64) for name in SIGNALS},
    )


def change_profile(profile: Profile, changes: Sequence[str]) -> Profile:
    """The profile with changes such as ``digits.max=0.4``, ``digits=off`` and, for new rules, ``name:signal.min=2``.

    Raises :class:`ConfigError` for one that cannot be meant.
    """
    rules = {rule.name: msgspec.to_builtins(rule) for rule in profile.rules}
    for change in changes:
        found = re.fullmatch(r"([\w-]+)(?::(\w+))?(?:\.(min|max)=([-+0-9.eE]+)|=off)", change)
        if not found:
            raise ConfigError(f"'{change}' is no change; write RULE.max=NUMBER, RULE.min=NUMBER or RULE=off.")
        name, signal, side, number = found.groups()
        if signal:
            rules.setdefault(name, {"name": name, "signal": signal})
        if name not in rules:
            hint = did_you_mean(name, rules) or f" Rules: {', '.join(rules)}."
            raise ConfigError(f"the profile has no rule '{name}'.{hint}")
        if side is None:
            del rules[name]
            continue
        try:
            rules[name][side] = float(number)
        except ValueError:
            raise ConfigError(f"'{change}': '{number}' is no number.") from None
    changed = from_mapping({**msgspec.to_builtins(profile), "rules": list(rules.values())}, Profile, "profile")
    check_profile(changed, "profile")
    return changed


def reasons_of(kept: Kept, profile: Profile) -> NDArray[Any]:
    """The first reason against every document under ``profile``, or an empty string: ``object[documents]``."""
    refused = {source: is_refused_source(source, profile.drop_sources) for source in set(kept.sources.tolist())}
    by_source = np.array([refused[source] for source in kept.sources], np.float64)
    signals = {**kept.signals, "refused_source": np.fmax(kept.signals["refused_source"], by_source)}
    return judge(profile, signals, kept.languages).reasons


def tell_rules(
    kept: Kept, profile: Profile, before: NDArray[Any], after: NDArray[Any], names: Sequence[str] = ()
) -> Iterator[RuleTold]:
    """Every rule of ``profile`` (or those named): what it dropped and drops, and its signal's histogram."""
    dropped_before, dropped = Counter(before.tolist()), Counter(after.tolist())
    for rule in profile.rules:
        if names and rule.name not in names:
            continue
        bound = find_bound(rule, kept.signals, kept.languages)
        values = kept.signals[rule.signal][bound]
        low = -np.inf if rule.min is None else rule.min
        high = np.inf if rule.max is None else rule.max
        rounded = values.astype(np.float32)
        yield RuleTold(
            rule=rule,
            dropped_before=dropped_before[rule.name],
            dropped=dropped[rule.name],
            broken=int(np.sum((rounded < np.float32(low)) | (rounded > np.float32(high)))),
            histogram=histogram(values, [edge for edge in (rule.min, rule.max) if edge is not None]),
        )


def histogram(values: NDArray[np.float64], bounds: Sequence[float]) -> Histogram:
    """Counts of ``values`` in about :data:`BINS` bins from the 1st to the 99th percentile; each bound is an edge."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Histogram([], [])
    low, high = np.quantile(values, (0.01, 0.99)).tolist()
    low, high = min([low, *bounds]), max([high, *bounds])
    edges = sorted({*np.linspace(low, high, BINS + 1).tolist(), *bounds})
    inner = [float(min(values.min(), edges[0])), *edges, float(max(values.max(), edges[-1]))]
    inner = sorted(set(inner))
    if len(inner) == 1:
        return Histogram([inner[0], inner[0]], [len(values)])
    return Histogram(inner, np.histogram(values, inner)[0].tolist())


def sample_border(kept: Kept, rule: Rule, after: NDArray[Any], count: int = SAMPLES) -> list[Sample]:
    """The ``count`` documents nearest to the rule's bound, half of each side as far as there are, by value.

    Only documents that no other rule drops count as kept or dropped by this one; only these texts are read.
    """
    values = kept.signals[rule.signal]
    distances = near(rule, values).distances
    bound = find_bound(rule, kept.signals, kept.languages) & np.isfinite(values)
    rows: list[int] = []
    for side in (after == rule.name, bound & (after == "")):
        candidates = np.flatnonzero(side & np.isfinite(values))
        rows += candidates[np.argsort(distances[candidates], kind="stable")][: count - count // 2].tolist()
    rows = sorted(rows[:count] if len(rows) > count else rows, key=lambda row: (values[row], row))
    texts = _read_texts(kept, rows)
    return [
        Sample(id=texts[row][0], kept=not after[row], value=float(values[row]), excerpt=texts[row][1]) for row in rows
    ]


def _read_texts(kept: Kept, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Id and excerpt of documents by their number: only the row groups that hold them are read."""
    wanted: dict[tuple[str, int], int] = {}
    for row in rows:
        shard = kept.shards[row]
        first = int(np.searchsorted(kept.shards, shard))
        place = int(np.sum(kept.kept[first:row] == kept.kept[row]))
        wanted[(_file_of(kept, int(shard), bool(kept.kept[row])), place)] = row
    found = {}
    for name in sorted({name for name, _ in wanted}):
        places = sorted(place for file, place in wanted if file == name)
        for place, id, text in _rows_of(kept.folder / name, places):
            found[wanted[name, place]] = (id, text)
    return found


def _file_of(kept: Kept, shard: int, is_kept: bool) -> str:
    part = kept.parts[shard].removeprefix("signals/").removesuffix(".parquet")
    if not is_kept:
        return f"dropped/{part}.parquet"
    name = f"data/{part}.parquet"
    return name if (kept.folder / name).exists() else f"data/{part}.jsonl.zst"


def _rows_of(path: Path, places: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    first = 0
    left = list(places)
    for block in _blocks_of(path, left):
        size = block if isinstance(block, int) else block.num_rows
        if not isinstance(block, int):
            for place in left:
                if first <= place < first + size:
                    id, text = block.column("id")[place - first], block.column("text")[place - first]
                    yield place, id.as_py(), excerpt(text.as_buffer())
        first += size


def _blocks_of(path: Path, places: Sequence[int]) -> Iterator[pa.RecordBatch | int]:
    """The row groups of a file, those without any of ``places`` only as their number of rows."""
    if path.suffix != ".parquet":
        item = InputFile(name=path.name, path=str(path), bytes=0, digest="")
        yield from (block.documents for block in read_blocks(item, "jsonl"))
        return
    first = 0
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            size = file.metadata.row_group(number).num_rows
            if any(first <= place < first + size for place in places):
                yield file.read_row_group(number, ["id", "text"], use_threads=False).combine_chunks().to_batches()[0]
            else:
                yield size
            first += size
