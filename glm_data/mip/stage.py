"""The mip stage: a mixture's data sets rendered through their templates, a shard or more for each data set.

::

    data/part-00000.parquet          SCHEMA, a block of a few thousand samples a row group
    report/part-00000.jsonl          a tally of every template: counts, lengths, three samples
    refused/part-00000.jsonl         the first errors of every template, with row and message
    unreadable/part-00000.jsonl      rows that could not be read

Every row x template is one record: kept, or dropped with a reason (``not_applicable``, ``empty_prompt``,
``empty_target``, ``hidden_label``, ``over_limit``, ``error``, ``duplicate``, ``weight``, ``cap``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data.bans import Bans, check_bans, find_banned, load_bans
from glm_data.config import to_mapping
from glm_data.formats.rows import count_rows
from glm_data.manifest import unreadable_check
from glm_data.mip.mixture import Found, Source, read_mixture, source_templates
from glm_data.mip.options import MipOptions
from glm_data.mip.shard import Part, cap_limit, make_renderer, render_shard
from glm_data.mip.templates import blocked_templates
from glm_data.mip.tokens import TokenCounter
from glm_data.stage import Check, InputFile, ShardRecord, ShardTask, Stage, Success, finished, open_stage

NAME = "mip"
_NOT_PLANNED = ("rows", "templates", "missing", "tokenizer")
"""Options that say where things lie; the plan has the files' digests and the tokenizer's fingerprint instead."""

RunTasks = Callable[[Stage, Callable[[ShardTask], ShardRecord], Sequence[ShardTask]], None]


def render_stage(
    manifest: Path, out: Path, options: MipOptions, run_tasks: RunTasks, *, overwrite: bool = False
) -> Success:
    """Render all data sets of a mixture manifest; ``run_tasks`` runs the shards. All templates are checked first.

    Raises :class:`ConfigError` for a manifest or template file that does not fit, :class:`TemplateError` for a template
    that is refused, :class:`UsageError` for a data set that is banned and not allowed by its entry.
    """
    found = read_mixture(manifest, options.rows, options.templates, skip_missing=options.missing == "skip")
    sources, bans = found.sources, load_bans(options.bans)
    check_bans(_names(sources), bans, _allowed(sources), where=f"'{manifest}'")
    templates = [len(make_renderer(source, options).templates) for source in sources]
    said = {name: value for name, value in to_mapping(options).items() if name not in _NOT_PLANNED}
    settings = {**said, "bans": bans.digest, "tokenizer": TokenCounter(options.tokenizer).fingerprint}
    plan = (NAME, {**settings, "datasets": [source.plan() for source in sources]}, _inputs(sources))
    if not overwrite and (done := finished(out, *plan)):
        return done
    tasks = _tasks(sources, templates, out, options)
    with open_stage(out, *plan, overwrite=overwrite) as stage:
        run_tasks(stage, render_shard, tasks)
        records = list(stage.records().values())
        return stage.succeed(len(tasks), _checks(records, options), _facts(found, records, bans))


def _names(sources: Sequence[Source]) -> list[str]:
    """The data sets' names as lists of bans have them."""
    return [source.dataset.whole_name for source in sources]


def _allowed(sources: Sequence[Source]) -> dict[str, str]:
    """The data sets that the mixture lets in whatever is banned, with the reasons given."""
    return {item.dataset.whole_name: item.dataset.allowed for item in sources if item.dataset.allowed.strip()}


def _inputs(sources: Sequence[Source]) -> list[InputFile]:
    found = [item for source in sources for item in (source.rows, source.templates)]
    return found + [item.train for item in sources if item.train is not None and item.train.path != item.rows.path]


def _tasks(sources: Sequence[Source], templates: Sequence[int], out: Path, options: MipOptions) -> list[ShardTask]:
    """The shards: stretches of ``part_rows`` rows, the last of a data set open at its end."""
    tasks: list[ShardTask] = []
    for source, count in zip(sources, templates, strict=True):
        for part in _parts(source, count, options):
            values = {"source": source, "part": part, "options": options}
            plain = {name: msgspec.to_builtins(value) for name, value in values.items()}
            tasks.append(ShardTask(shard=len(tasks), folder=str(out), input=source.rows, options=plain))
    return tasks


def _parts(source: Source, templates: int, options: MipOptions) -> list[Part]:
    dataset, train = source.dataset, source.train
    rows = count_rows(Path(source.rows.path), dataset.split, dataset.form)
    train_rows = 0
    if train is not None and dataset.shots is not None and dataset.shots.one + dataset.shots.few > 0:
        train_rows = rows if train.path == source.rows.path and dataset.split == "train" else count_rows(
            Path(train.path), "train", dataset.form
        )  # fmt: skip
    limit = cap_limit(dataset, options.seed, templates, rows)
    starts = range(0, max(1, rows), options.part_rows)
    stops: list[int | None] = [*starts[1:], None]
    return [
        Part(start=start, stop=stop, rows=rows, train_rows=train_rows, limit=limit)
        for start, stop in zip(starts, stops, strict=True)
    ]


def _checks(records: Sequence[ShardRecord], options: MipOptions) -> list[Check]:
    total = sum(record.records for record in records)
    failed = sum(record.dropped.get(reason, 0) for record in records for reason in ("error", "over_limit"))
    share, most = failed / total if total else 0.0, options.max_error_fraction
    said = f"{failed:,} of {total:,} ({share:.2%}) renders failed; see refused/; {most:.2%} are allowed."
    errors = Check(name="template_errors", ok=share <= most, sentence=said)
    return [errors, unreadable_check(records, options.max_bad_fraction)]


def _facts(found: Found, records: Sequence[ShardRecord], bans: Bans) -> dict[str, Any]:
    """Samples by data set, with what the manifest says of it; what was blocked, missing, or banned and yet let in."""
    sums: Counter[str] = Counter()
    rendered: Counter[str] = Counter()
    for record in records:
        sums.update(record.counts)
        rendered[record.input] += record.records
    described = {source.dataset.key: _described(source, sums, rendered) for source in found.sources}
    reasons = _allowed(found.sources)
    banned = find_banned(_names(found.sources), bans)
    allowed = {item.dataset: reasons[item.dataset] for item in banned}
    return {"version": found.version, "datasets": described, "missing": sorted(found.missing), "allowed": allowed}


def _described(source: Source, sums: Mapping[str, int], rendered: Mapping[str, int]) -> dict[str, Any]:
    dataset, file = source.dataset, source_templates(source)
    return {
        "records": rendered[source.rows.name],
        "kept": sums[f"kept/{dataset.key}"],
        "tokens": sums[f"tokens/{dataset.key}"],
        "weight": dataset.weight,
        "cap": dataset.cap,
        "blocked": blocked_templates(file, dataset.exclude, Path(source.templates.path)),
    }
