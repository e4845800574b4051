"""One shard of a mip stage: a stretch of a data set's rows through all its templates, every pair accounted for."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from glm_data import files
from glm_data.config import from_mapping
from glm_data.errors import ConfigError
from glm_data.formats import Unreadable
from glm_data.formats.parquet import ParquetWriter, parquet_writer
from glm_data.formats.rows import Wanted, read_rows
from glm_data.mip.arrange import POOL_ROWS, Arranged, Arranger, Pool, Question
from glm_data.mip.mixture import DataSet, Shots, Source, source_templates
from glm_data.mip.options import MipOptions
from glm_data.mip.render import Refused, Rendered, Renderer
from glm_data.mip.rows import TooDeepError
from glm_data.mip.tally import TemplateTally, new_tally
from glm_data.mip.templates import blocked_templates, usable_templates
from glm_data.mip.tokens import TokenCounter
from glm_data.stage import OutputFile, ShardRecord, ShardTask, output_file

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("template", pa.string(), nullable=False),
        pa.field("template_name", pa.string(), nullable=False),
        pa.field("template_version", pa.string(), nullable=False),
        pa.field("lang", pa.string(), nullable=False),
        pa.field("shots", pa.int32(), nullable=False),
        pa.field("options", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
    ]
)
"""``prompt`` is what is asked, without [MASK]; ``target`` what is to be generated; ``shots`` worked examples in it;
``options`` the form in which its choices were listed, empty if that was left to the template."""

BLOCK_ROWS, BLOCK_CHARACTERS = 4096, 1 << 24
_PAIRS = 1 << 20
_ERRORS_A_TEMPLATE = 5


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The stretch of a data set that a shard renders, and what is known of the whole."""

    start: int
    stop: int | None
    """None: to the end."""
    rows: int
    train_rows: int
    """Rows of the file of worked examples."""
    limit: float = 1.0
    """Pairs of a row and a template whose hash is not below this are left out, for the data set's cap."""

    @property
    def wanted(self) -> Wanted:
        """Row numbers, for :func:`read_rows`."""
        return range(self.start, sys.maxsize if self.stop is None else self.stop)


def render_shard(task: ShardTask) -> ShardRecord:
    """Render one shard. Task options: ``source`` (:class:`Source`), ``part`` (:class:`Part`), ``options``."""
    source = msgspec.convert(task.options["source"], Source)
    part = msgspec.convert(task.options["part"], Part)
    options = from_mapping(task.options["options"], MipOptions, "mip")
    folder, name = Path(task.folder), f"part-{task.shard:05d}"
    shard = _Shard(source, part, options)
    with parquet_writer(folder / f"data/{name}.parquet", SCHEMA) as writer:
        shard.render(writer)
    outputs = [output_file(folder, f"data/{name}.parquet", writer.rows)]
    outputs += _write_lines(folder, f"report/{name}.jsonl", [msgspec.to_builtins(item) for item in shard.tallies])
    outputs += _write_lines(folder, f"refused/{name}.jsonl", shard.errors)
    outputs += _write_lines(folder, f"unreadable/{name}.jsonl", [msgspec.structs.asdict(item) for item in shard.lost])
    return ShardRecord(
        shard=task.shard,
        input=task.input.name,
        records=shard.records,
        kept=writer.rows,
        dropped=shard.dropped(),
        unreadable=dict(shard.unreadable),
        counts=shard.counts(),
        files=tuple(outputs),
    )


def make_renderer(source: Source, options: MipOptions) -> Renderer:
    """The renderer of a data set's templates but the blocked ones; raises :class:`ConfigError` if none is left."""
    dataset, path = source.dataset, Path(source.templates.path)
    file = source_templates(source)
    templates = usable_templates(file, blocked_templates(file, dataset.exclude, path))
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


def _write_lines(folder: Path, name: str, values: Sequence[Mapping[str, Any]]) -> list[OutputFile]:
    if not values:
        return []
    files.write_bytes(folder / name, b"".join(msgspec.json.encode(value, order="sorted") + b"\n" for value in values))
    return [output_file(folder, name, len(values))]


class _Shard:
    """The rendering of a stretch of rows, and what there is to say about it."""

    def __init__(self, source: Source, part: Part, options: MipOptions) -> None:
        self._source, self._part, self._options = source, part, options
        self._dataset: DataSet = source.dataset
        self._key = source.dataset.key
        self._map = source.dataset.row_map()
        self._renderer = make_renderer(source, options)
        self._templates = self._renderer.templates
        self._counter = TokenCounter(options.tokenizer)
        self._chosen = Chosen(source.dataset, options.seed, len(self._templates), part.limit)
        self._seen: set[bytes] = set()
        self._questions: list[Question] = []
        self._characters = 0
        """Of the prompts among them."""
        self._languages = [self._dataset.language or template.language for template in self._templates]
        self.tallies = [new_tally(self._key, *pair) for pair in zip(self._templates, self._languages, strict=True)]
        self.records = 0
        self.unreadable: Counter[str] = Counter()
        self.errors: list[dict[str, Any]] = []
        self.lost: list[Unreadable] = []

    def render(self, writer: ParquetWriter) -> None:
        """Render all rows to ``writer``."""
        arranger = self._arranger()
        for item in read_rows(Path(self._source.rows.path), self._dataset.split, self._dataset.form, self._part.wanted):
            if isinstance(item, Unreadable):
                self._lose(item)
                continue
            self._render_row(*item)
            if len(self._questions) >= BLOCK_ROWS or self._characters >= BLOCK_CHARACTERS:
                self._flush(writer, arranger)
        self._flush(writer, arranger)

    def dropped(self) -> dict[str, int]:
        """Pairs of a row and a template without a sample, by reason."""
        counts: Counter[str] = Counter()
        for tally in self.tallies:
            counts.update(tally.dropped)
        return dict(counts)

    def counts(self) -> dict[str, int]:
        """Counters for the record: samples and tokens by data set, language, template and worked examples."""
        counts: Counter[str] = Counter()
        for tally in self.tallies:
            counts[f"kept/{self._key}"] += tally.kept
            counts[f"lang/{tally.lang}"] += tally.kept
            counts[f"tokens/{self._key}"] += tally.prompt_tokens + tally.target_tokens
            for name, outcome in (("kept", tally.kept), *tally.dropped.items()):
                counts[f"template/{self._key}/{tally.name}/{name}"] += outcome
            for shots, kept in tally.shots.items():
                counts[f"shots/{shots}"] += kept
            if tally.not_in_choices:
                counts[f"not_in_choices/{self._key}/{tally.name}"] += tally.not_in_choices
        return {name: count for name, count in counts.items() if count}

    def _arranger(self) -> Arranger:
        dataset, options = self._dataset, self._options
        shots = dataset.shots or Shots()
        key = f"{options.seed}\0{dataset.name}\0{dataset.subset or ''}"
        pool = None
        if shots.one + shots.few and self._source.train is not None:
            pool = Pool(self._renderer, self._pool_rows(key, self._source.train.path))
        return Arranger(key, shots, dataset.options or 0.0, pool, self._counter, options.few_shot_window)

    def _pool_rows(self, key: str, train: str) -> list[tuple[int, dict[str, Any]]]:
        """The rows of train with the lowest hashes; of another file than the one rendered they are all strangers."""
        hashes = _unit_hashes(xxhash.xxh3_64_intdigest(f"{key}\0pool".encode()), np.arange(self._part.train_rows), 1)
        wanted = frozenset(np.argsort(hashes[:, 0], kind="stable")[:POOL_ROWS].tolist())
        found = read_rows(Path(train), "train", self._dataset.form, wanted)
        rows = []
        for item in found:
            with contextlib.suppress(TooDeepError):
                rows += [] if isinstance(item, Unreadable) else [(item[0], self._map(item[1]))]
        if train == self._source.rows.path and self._dataset.split == "train":
            return rows
        return [(-1 - number, row) for number, row in rows]

    def _lose(self, item: Unreadable) -> None:
        self.records += item.count * len(self._templates)
        self.unreadable[item.reason] += item.count * len(self._templates)
        self.lost.append(item)

    def _render_row(self, number: int, row: Mapping[str, Any]) -> None:
        left_out = self._chosen.reasons(number)
        try:
            prepared = self._map(row) if left_out is None or "" in left_out else {}
        except TooDeepError as error:
            self._lose(Unreadable(number, 0, "too_deep", str(error), ""))
            return
        self.records += len(self._templates)
        for place, tally in enumerate(self.tallies):
            if left_out is not None and left_out[place]:
                tally.drop(left_out[place])
                continue
            outcome = self._renderer.render(place, prepared, number)
            if isinstance(outcome, Rendered):
                self._questions.append(Question(self._templates[place], place, number, outcome))
                self._characters += len(outcome.prompt)
            else:
                self._refuse(tally, number, outcome)

    def _keep(self, made: Arranged, question: Question) -> tuple[Any, ...] | None:
        """The sample as a row of :data:`SCHEMA`; None if there was one like it."""
        template, tally = question.template, self.tallies[question.place]
        digest = xxhash.xxh3_128_digest(f"{made.prompt}\0{made.target}".encode())
        if digest in self._seen:
            tally.drop("duplicate")
            return None
        self._seen.add(digest)
        sample, dataset = question.sample, self._dataset
        if template.answers_by_choice and sample.target not in (sample.choices or ()):
            tally.not_in_choices += 1
        id = f"{self._key}#{question.number}/{template.id}"
        window = self._options.few_shot_window if made.shots else self._options.window
        tally.keep(id, made, window)
        about = (template.id, template.name, template.metadata.version, self._languages[question.place])
        return (id, dataset.name, dataset.subset or "", dataset.split, question.number, *about,
                made.shots, made.options, made.prompt, made.target)  # fmt: skip

    def _refuse(self, tally: TemplateTally, number: int, outcome: Refused) -> None:
        tally.drop(outcome.reason)
        if outcome.detail and tally.dropped[outcome.reason] <= _ERRORS_A_TEMPLATE:
            self.errors.append({"row": number, "template": tally.name, "reason": outcome.detail})

    def _flush(self, writer: ParquetWriter, arranger: Arranger) -> None:
        made = zip(arranger.arrange(self._questions), self._questions, strict=True)
        rows = [row for pair in made if (row := self._keep(*pair)) is not None]
        self._questions.clear()
        self._characters = 0
        if rows:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            writer.write(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))


class Chosen:
    """Which row x template pairs of a data set are rendered: those whose hash is below its weight and below ``limit``,
    which :func:`cap_limit` has found. The choice depends on seed, data set, row and place alone, and a smaller cap
    takes a subset of a larger."""

    def __init__(self, dataset: DataSet, seed: int, templates: int, limit: float) -> None:
        self._weight, self._limit = dataset.weight, limit
        self._salt, self._templates = _salt(dataset, seed), templates
        self._first = 0
        self._block: list[list[float]] = []
        """Hashes of the rows from ``_first`` on: rows come in order, and NumPy is slow for one."""

    def reasons(self, number: int) -> list[str] | None:
        """For each template why the pair is left out, or empty; None if every pair is taken."""
        if self._weight == 1 and self._limit == 1:
            return None
        if not self._first <= number < self._first + len(self._block):
            self._first = number
            self._block = _unit_hashes(self._salt, np.arange(number, number + BLOCK_ROWS), self._templates).tolist()
        hashes = self._block[number - self._first]
        return ["weight" if value >= self._weight else "cap" if value >= self._limit else "" for value in hashes]


def cap_limit(dataset: DataSet, seed: int, templates: int, rows: int, block: int = _PAIRS) -> float:
    """The hash that the ``cap`` lowest of all ``rows`` x ``templates`` pairs lie below; 1 where none is left out.

    Its memory grows with the cap and ``block``, the pairs looked at together, not with the rows.
    """
    cap = dataset.cap
    if cap is None or rows * templates <= cap:
        return 1.0
    lowest, step = np.empty(0), max(1, block // templates)
    for first in range(0, rows, step):
        hashes = _unit_hashes(_salt(dataset, seed), np.arange(first, min(rows, first + step)), templates)
        lowest = np.concatenate([lowest, hashes[hashes < lowest[cap]] if len(lowest) > cap else hashes.reshape(-1)])
        if len(lowest) > cap:
            lowest = np.partition(lowest, cap)[: cap + 1]
    return float(lowest[cap])


def _salt(dataset: DataSet, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{seed}\0{dataset.key}".encode())


def _unit_hashes(salt: int, numbers: npt.NDArray[np.int64], templates: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for every pair: float64[rows, templates] (SplitMix64's finalizer)."""
    columns = np.arange(templates, dtype=np.uint64)
    place = numbers.astype(np.uint64)[:, None] * np.uint64(templates) + columns
    z: npt.NDArray[np.uint64] = (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit: npt.NDArray[np.float64] = ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) / (1 << 53)
    return unit
