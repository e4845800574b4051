"""The mip stage: a mixture's data sets rendered through their templates, one shard a data set.

::

    data/part-00000.parquet          SCHEMA, a block of a few thousand samples a row group
    refused/part-00000.jsonl         the first errors of every template, with row and message
    unreadable/part-00000.jsonl      rows that could not be read

Every row x template is one record: kept, or dropped with a reason (``not_applicable``, ``empty_prompt``,
``empty_target``, ``hidden_label``, ``over_limit``, ``error``, ``duplicate``, ``weight``, ``cap``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from glm_data import files
from glm_data.bans import DEFAULT, Bans, BansOption, check_bans, find_banned, load_bans
from glm_data.config import Config, Doc, from_mapping, to_mapping
from glm_data.errors import ConfigError
from glm_data.formats import Unreadable
from glm_data.formats.parquet import ParquetWriter, parquet_writer
from glm_data.formats.rows import read_rows
from glm_data.mip.mixture import DataSet, Source, read_mixture, source_templates
from glm_data.mip.render import Refused, Rendered, Renderer, prepare_row
from glm_data.mip.sandbox import DEFAULT_LONGEST_OUTPUT, DEFAULT_MOST_STEPS
from glm_data.mip.templates import SEPARATOR, Template, without
from glm_data.stage import (
    Check,
    InputFile,
    OutputFile,
    ShardRecord,
    ShardTask,
    Stage,
    Success,
    finished,
    open_stage,
    output_file,
)

NAME = "mip"

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("template", pa.string(), nullable=False),
        pa.field("template_name", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("shots", pa.int32(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
    ]
)
"""``prompt`` is what is asked, without [MASK]; ``target`` what is to be generated; ``shots`` worked examples in it."""

BLOCK_ROWS = 4096
_ERRORS_A_TEMPLATE = 5

RunTasks = Callable[[Stage, Callable[[ShardTask], ShardRecord], Sequence[ShardTask]], None]


class MipOptions(Config, frozen=True, kw_only=True):
    """How a mixture is rendered."""

    seed: Annotated[int, Doc("seed of random choices in templates, of caps and of weights")] = 0
    most_steps: Annotated[int, Doc("steps that one render may take; a few microseconds each")] = DEFAULT_MOST_STEPS
    longest_output: Annotated[int, Doc("characters that one render may give")] = DEFAULT_LONGEST_OUTPUT
    bans: BansOption = DEFAULT
    max_error_fraction: Annotated[float, Doc("share of failed renders from which the exit code is 3")] = 0.01
    max_bad_fraction: Annotated[float, Doc("share of unreadable rows from which the exit code is 3", 0, 1)] = 0.01


def render_stage(
    manifest: Path, out: Path, options: MipOptions, run_tasks: RunTasks, *, overwrite: bool = False
) -> Success:
    """Render all data sets of a mixture manifest; ``run_tasks`` runs the shards. All templates are checked first.

    Raises :class:`ConfigError` for a manifest or template file that does not fit, :class:`TemplateError` for a template
    that is refused, :class:`UsageError` for a data set that is banned and not allowed by its entry.
    """
    sources, bans = read_mixture(manifest), load_bans(options.bans)
    check_bans(_names(sources), bans, _allowed(sources), where=f"'{manifest}'")
    for source in sources:
        _renderer(source, options)
    settings = {**to_mapping(options), "bans": bans.digest}
    plan = (NAME, {**settings, "datasets": [source.plan() for source in sources]}, _inputs(sources))
    if not overwrite and (done := finished(out, *plan)):
        return done
    tasks = [_task(number, source, out, options) for number, source in enumerate(sources)]
    with open_stage(out, *plan, overwrite=overwrite) as stage:
        run_tasks(stage, render_shard, tasks)
        records = stage.records()
        return stage.succeed(len(tasks), _checks(list(records.values()), options), _facts(sources, records, bans))


def _names(sources: Sequence[Source]) -> list[str]:
    """The data sets' names as lists of bans have them."""
    return [source.dataset.whole_name for source in sources]


def _allowed(sources: Sequence[Source]) -> dict[str, str]:
    """The data sets that the mixture lets in whatever is banned, with the reasons given."""
    return {item.dataset.whole_name: item.dataset.allowed for item in sources if item.dataset.allowed.strip()}


def _inputs(sources: Sequence[Source]) -> list[InputFile]:
    return [item for source in sources for item in (source.rows, source.templates)]


def _task(number: int, source: Source, out: Path, options: MipOptions) -> ShardTask:
    values = {"source": msgspec.to_builtins(source), "options": to_mapping(options)}
    return ShardTask(shard=number, folder=str(out), input=source.rows, options=values)


def _renderer(source: Source, options: MipOptions) -> Renderer:
    dataset, path = source.dataset, Path(source.templates.path)
    templates = without(source_templates(source), dataset.exclude, path)
    if not templates:
        raise ConfigError(f"'{path}' leaves no template for data set '{dataset.key}'; exclude fewer, or the data set.")
    return Renderer(
        templates,
        dataset=dataset.name,
        subset=dataset.subset,
        seed=options.seed,
        label=dataset.label,
        most_steps=options.most_steps,
        longest_output=options.longest_output,
        where=f"'{path}'",
    )


def _checks(records: Sequence[ShardRecord], options: MipOptions) -> list[Check]:
    total = sum(record.records for record in records)
    failed = sum(record.dropped.get(reason, 0) for record in records for reason in ("error", "over_limit"))
    lost = sum(sum(record.unreadable.values()) for record in records)
    return [
        _check("template_errors", failed, total, options.max_error_fraction, "renders failed; see refused/"),
        _check("unreadable", lost, total, options.max_bad_fraction, "records could not be read; see unreadable/"),
    ]


def _check(name: str, bad: int, total: int, most: float, what: str) -> Check:
    share = bad / total if total else 0.0
    sentence = f"{bad:,} of {total:,} ({share:.2%}) {what}; {most:.2%} are allowed."
    return Check(name=name, ok=share <= most, sentence=sentence)


def _facts(sources: Sequence[Source], records: Mapping[int, ShardRecord], bans: Bans) -> dict[str, Any]:
    """Samples by data set, with what the manifest says of it; banned data sets that are in, with the reason given."""
    described = {
        source.dataset.key: {
            "records": records[shard].records,
            "kept": records[shard].kept,
            "weight": source.dataset.weight,
            "cap": source.dataset.cap,
        }
        for shard, source in enumerate(sources)
    }
    reasons = _allowed(sources)
    banned = find_banned(_names(sources), bans)
    return {"datasets": described, "allowed": {item.dataset: reasons[item.dataset] for item in banned}}


def render_shard(task: ShardTask) -> ShardRecord:
    """Render one data set. Task options: ``source`` (:class:`Source`) and ``options`` (:class:`MipOptions`)."""
    source = msgspec.convert(task.options["source"], Source)
    options = from_mapping(task.options["options"], MipOptions, "mip")
    folder, name = Path(task.folder), f"part-{task.shard:05d}"
    shard = _Shard(source, _renderer(source, options), options.seed)
    with parquet_writer(folder / f"data/{name}.parquet", SCHEMA) as writer:
        shard.render(writer)
    outputs = [output_file(folder, f"data/{name}.parquet", writer.rows)]
    outputs += _write_lines(folder, f"refused/{name}.jsonl", shard.errors)
    outputs += _write_lines(folder, f"unreadable/{name}.jsonl", [msgspec.structs.asdict(item) for item in shard.lost])
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=shard.records,
        kept=writer.rows,
        dropped=dict(shard.dropped),
        unreadable=dict(shard.unreadable),
        counts=dict(shard.counts),
        files=tuple(outputs),
    )


def _write_lines(folder: Path, name: str, values: Sequence[Mapping[str, Any]]) -> list[OutputFile]:
    if not values:
        return []
    files.write_bytes(folder / name, b"".join(msgspec.json.encode(value) + b"\n" for value in values))
    return [output_file(folder, name, len(values))]


class _Shard:
    """The rendering of one data set, and what there is to say about it."""

    def __init__(self, source: Source, renderer: Renderer, seed: int) -> None:
        self._dataset: DataSet = source.dataset
        self._key = source.dataset.key
        self._path = Path(source.rows.path)
        self._renderer, self._templates = renderer, renderer.templates
        self._chosen = Chosen(source.dataset, seed, len(self._templates))
        self._seen: set[bytes] = set()
        self._block: list[tuple[Any, ...]] = []
        self.records = 0
        self.dropped: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self.errors: list[dict[str, Any]] = []
        self.lost: list[Unreadable] = []

    def render(self, writer: ParquetWriter) -> None:
        """Render all rows to ``writer``."""
        if self._dataset.cap is not None:
            self._chosen.apply_cap(
                self._dataset.cap, (row[0] for row in self._rows() if not isinstance(row, Unreadable))
            )
        for row in self._rows():
            if isinstance(row, Unreadable):
                self._lose(row)
                continue
            self._render_row(*row)
            if len(self._block) >= BLOCK_ROWS:
                self._flush(writer)
        self._flush(writer)
        for (name, outcome), count in self._outcomes.items():
            self.counts[f"template/{self._key}/{name}/{outcome}"] = count

    def _rows(self) -> Iterator[tuple[int, Mapping[str, Any]] | Unreadable]:
        return read_rows(self._path, self._dataset.split)

    def _lose(self, item: Unreadable) -> None:
        lost = item.count * len(self._templates)
        self.records += lost
        self.unreadable[item.reason] += lost
        self.lost.append(item)

    def _render_row(self, number: int, row: Mapping[str, Any]) -> None:
        prepared = prepare_row(row, self._dataset.columns)
        refused = self._chosen.reasons(number)
        self.records += len(self._templates)
        for place, template in enumerate(self._templates):
            if refused is not None and refused[place]:
                self._drop(template, refused[place])
                continue
            outcome = self._renderer.render(place, prepared, number)
            if isinstance(outcome, Rendered):
                self._keep(template, number, outcome)
            else:
                self._refuse(template, number, outcome)

    def _keep(self, template: Template, number: int, sample: Rendered) -> None:
        digest = xxhash.xxh3_128_digest(f"{sample.prompt}\0{sample.target}".encode("utf-8", "surrogatepass"))
        if digest in self._seen:
            self._drop(template, "duplicate")
            return
        self._seen.add(digest)
        lang = self._dataset.language or next(iter(template.metadata.languages), "")
        if _answers_by_choice(template) and sample.target not in (sample.choices or ()):
            self.counts[f"not_in_choices/{self._key}/{template.name}"] += 1
        self.counts[f"kept/{self._key}"] += 1
        self._outcomes[template.name, "kept"] += 1
        self.counts[f"lang/{lang}"] += 1
        id = f"{self._key}#{number}/{template.id}"
        at = (self._dataset.name, self._dataset.subset or "", self._dataset.split, number)
        self._block.append((id, *at, template.id, template.name, lang, 0, sample.prompt, sample.target))

    def _refuse(self, template: Template, number: int, outcome: Refused) -> None:
        self._drop(template, outcome.reason)
        known = self._outcomes[template.name, outcome.reason]
        if outcome.detail and known <= _ERRORS_A_TEMPLATE:
            self.errors.append({"row": number, "template": template.name, "reason": outcome.detail})

    def _drop(self, template: Template, reason: str) -> None:
        self.dropped[reason] += 1
        self._outcomes[template.name, reason] += 1

    def _flush(self, writer: ParquetWriter) -> None:
        if self._block:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._block, strict=True), SCHEMA, strict=True)
            ]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
            self._block.clear()


def _answers_by_choice(template: Template) -> bool:
    """Whether the target is made of the answer choices (some templates only mention them in the prompt)."""
    return "answer_choices" in template.jinja.partition(SEPARATOR)[2]


class Chosen:
    """Which row x template pairs of a data set are rendered: those whose hash is below the weight, then the ``cap``
    lowest. The choice depends on seed, data set, row and place alone, and a smaller cap takes a subset of a larger."""

    def __init__(self, dataset: DataSet, seed: int, templates: int) -> None:
        self._weight = dataset.weight
        self._salt = xxhash.xxh3_64_intdigest(f"{seed}\0{dataset.key}".encode())
        self._templates = templates
        self._limit = 1.0

    def apply_cap(self, cap: int, rows: Iterator[int]) -> None:
        """Find the limit that leaves ``cap`` pairs of all ``rows``."""
        numbers = np.fromiter(rows, np.int64)
        if numbers.size * self._templates > cap:
            hashes = np.sort(self._hashes(numbers).reshape(-1))
            self._limit = float(hashes[cap])

    def reasons(self, number: int) -> list[str] | None:
        """For each template why the pair is left out, or empty; None if every pair is taken."""
        if self._weight == 1 and self._limit == 1:
            return None
        hashes = self._hashes(np.array([number], np.int64))[0]
        return ["weight" if value >= self._weight else "cap" if value >= self._limit else "" for value in hashes]

    def _hashes(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """A number in [0, 1) for every pair: float64[rows, templates] (SplitMix64's finalizer)."""
        columns = np.arange(self._templates, dtype=np.uint64)
        place = numbers.astype(np.uint64)[:, None] * np.uint64(self._templates) + columns
        z: npt.NDArray[np.uint64] = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self._salt)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        unit: npt.NDArray[np.float64] = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / (1 << 53)
        return unit
