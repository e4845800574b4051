"""The steps of de-duplication, run one after the other on a Beam runner (see :mod:`pipelines.dedupe`).

Every step (see :mod:`glm_data.dedupe`) is a stage folder of its own below ``DIR/_work``, so a run that was stopped goes
on where it was. Between the steps this process sums up what is small: counts, edges, components.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glm_data.config import to_mapping
from glm_data.dedupe import DedupeOptions
from glm_data.dedupe.candidates import (
    GIANT_BUCKET,
    bands_shard,
    components,
    exact_shard,
    merge_distinct,
    pack_ranges,
    read_giants,
    shuffled_bands_shard,
)
from glm_data.dedupe.lines import cuts_shard, lines_shard
from glm_data.dedupe.output import DUPLICATES_NAME, output_shard, read_ids
from glm_data.dedupe.select import select_shard
from glm_data.dedupe.sets import pack_units, sets_shard
from glm_data.dedupe.sign import sign_shard
from glm_data.dedupe.spool import remove_bulk
from glm_data.dedupe.verdicts import multiplicities, read_copies, read_selected, read_weights, settle
from glm_data.dedupe.work import WORK, Array, Layout, input_folder, load, lsh_of, make_task, save, write_layout
from glm_data.manifest import unreadable_check
from glm_data.stage import Check, InputFile, ShardRecord, ShardTask, Stage, Success, open_stage
from pipelines.runner import Feed, RunnerOptions, run_and_record, run_tasks

KEYS_IN_PARTITION = 1 << 22
"""Band keys that one task sorts in memory (about 200 MB with what sorting needs)."""
SMALL_STEP_BYTES = 16_000_000
"""Keys or shingles up to which a step between two passes over the text is done in this process."""
SMALLEST_SOURCE = 100
"""Documents from which a source can trip the guard rail on removals."""
SHOWN_GIANTS = 5


class Steps:
    """One run over one output folder."""

    def __init__(
        self,
        stage: Stage,
        inputs: Sequence[InputFile],
        earlier: Sequence[InputFile],
        options: DedupeOptions,
        runner: RunnerOptions,
    ) -> None:
        self._stage, self._inputs, self._earlier = stage, tuple(inputs), tuple(earlier)
        self._options, self._runner = options, runner
        self._work = stage.folder / WORK

    def perform(self, against: Sequence[str]) -> Success:
        """Do every step that is not done yet."""
        texts = (*self._inputs, *self._earlier)
        self._step("sign", sign_shard, texts)
        layout = Layout(texts, tuple(record.kept for record in self._records("sign", len(texts))), len(self._earlier))
        write_layout(self._work, layout)
        parts = self._options.partitions or 1 + layout.documents * lsh_of(self._options).bands // KEYS_IN_PARTITION
        self._step("exact", exact_shard, _parts("keys", parts, layout.documents * 24), parts=parts)
        copies = read_copies(self._work, parts)
        save(self._work / "copies.npy", copies)
        searched = self._search(layout, parts)
        self._write_candidates(parts)
        gathered = self._step("sets", sets_shard, texts)
        units = self._write_units(layout)
        selected = self._step("select", select_shard, units)
        removals = settle(copies, read_selected(self._work, len(units)))
        save(self._work / "removals.npy", removals)
        save(self._work / "copies_of.npy", multiplicities(removals, read_weights(self._work, layout)))
        if self._options.lines != "off":
            self._find_lines(layout)
        facts = {**searched.counts, **gathered.counts, **selected.counts, "against": against}
        return self._finish(layout, removals, read_giants(self._work, parts), facts)

    def _search(self, layout: Layout, parts: int) -> Success:
        ranges = _parts("bands", parts, layout.documents * 168)
        if self._options.shuffle == "files":
            return self._step("bands", bands_shard, ranges, parts=parts)
        feed = Feed(range(len(layout.inputs)), functools.partial(pack_ranges, self._work, parts))
        return self._step("bands", shuffled_bands_shard, ranges, feed, parts=parts)

    def _find_lines(self, layout: Layout) -> None:
        counted = self._step("lines", lines_shard, self._inputs)
        parts = 1 + counted.counts["lines"] // KEYS_IN_PARTITION
        self._step("cuts", cuts_shard, _parts("lines", parts, counted.counts["lines"] * 32), parts=parts)

    def _step(
        self,
        name: str,
        function: Callable[..., ShardRecord],
        inputs: Sequence[InputFile],
        feed: Feed | None = None,
        **extra: Any,
    ) -> Success:
        folder = self._work / name
        mapping = {**to_mapping(self._options), "against": [], "run": self._stage.key, **extra}
        with open_stage(folder, f"{self._stage.plan['stage']}/{name}", mapping, inputs, overwrite=True) as stage:
            tasks = []
            for shard, source in enumerate(inputs):
                given = {**extra, "earlier": True} if source in self._earlier else extra
                tasks.append(make_task(shard, folder, self._work, source, self._options, given))
            self._run_tasks(stage, function, tasks, feed)
            return stage.succeed(len(tasks))

    def _run_tasks(
        self, stage: Stage, function: Callable[..., ShardRecord], tasks: Sequence[ShardTask], feed: Feed | None
    ) -> None:
        """Run on the runner, or here if it is about files of our own that are smaller than a pipeline's start."""
        here = not any(task.input.path for task in tasks) and sum(task.input.bytes for task in tasks) < SMALL_STEP_BYTES
        if feed is not None:
            run_tasks(stage, function, tasks, self._runner, feed=feed)
            return
        if not here:
            run_tasks(stage, function, tasks, self._runner)
            return
        pending = stage.pending(len(tasks))
        for shard in pending:
            run_and_record(function, tasks[shard])

    def _records(self, name: str, shards: int) -> list[Any]:
        records = Stage(self._work / name, {"key": ""}).records()
        return [records[shard] for shard in range(shards)]

    def _write_candidates(self, parts: int) -> None:
        candidates, labels = components(merge_distinct(self._work, "bands", parts))
        save(self._work / "candidates.npy", candidates)
        save(self._work / "labels.npy", labels)

    def _write_units(self, layout: Layout) -> list[InputFile]:
        folders = [input_folder(self._work, "sets", shard) for shard in range(len(layout.rows))]
        sizes_of = np.concatenate([np.diff(load(folder / "offsets.npy")) for folder in folders])
        order, offsets = pack_units(load(self._work / "labels.npy"), sizes_of)
        save(self._work / "units.npy", load(self._work / "candidates.npy")[order])
        save(self._work / "unit_offsets.npy", offsets)
        weight = np.add.reduceat(sizes_of[order], offsets[:-1]) * 8 if order.size else np.empty(0, np.int64)
        return [_virtual(f"unit-{unit:05d}", int(size)) for unit, size in enumerate(weight)]

    def _finish(self, layout: Layout, removals: Array, giants: Array, facts: dict[str, Any]) -> Success:
        inputs = [*self._inputs, _virtual(DUPLICATES_NAME, int(removals.nbytes))]
        tasks = [
            make_task(shard, self._stage.folder, self._work, source, self._options)
            for shard, source in enumerate(inputs)
        ]
        run_tasks(self._stage, output_shard, tasks, self._runner)
        records = self._stage.records()
        totals: dict[str, int] = {}
        for record in records.values():
            for name, count in record.counts.items():
                totals[name] = totals.get(name, 0) + count
        unreadable = unreadable_check(records.values(), self._options.max_bad_fraction)
        checks = [source_check(totals, self._options), unreadable]
        named = name_giants(self._work, layout, giants)
        checks += [giant_check(giants.size, named, self._options)] if named else []
        lsh = lsh_of(self._options)
        facts |= {"bands": lsh.bands, "rows": lsh.rows, "largest_cluster": largest_cluster(removals)}
        success = self._stage.succeed(len(tasks), checks, {**facts, "giants": named})
        remove_bulk(self._work)
        return success


def _virtual(name: str, size: int) -> InputFile:
    """What a task works on if that is no file of the user's."""
    return InputFile(name=name, path="", bytes=size, digest="")


def _parts(name: str, parts: int, size: int) -> list[InputFile]:
    return [_virtual(f"{name}-{part:05d}", size // parts) for part in range(parts)]


def largest_cluster(removals: Array) -> int:
    """Documents in the largest group that one kept document stands for, itself included."""
    if not removals.size:
        return 1
    return int(np.unique(removals["kept"], return_counts=True)[1].max()) + 1


def name_giants(work: Path, layout: Layout, giants: Array) -> list[dict[str, Any]]:
    """The largest buckets of boilerplate: how many documents share a band key, and the id of the first of them."""
    shown = np.sort(giants[:SHOWN_GIANTS], order="first")
    ids = read_ids(work, layout, shown["first"]).to_pylist()
    named = [{"id": key, "documents": int(size)} for key, size in zip(ids, shown["size"], strict=True)]
    return sorted(named, key=lambda item: -item["documents"])


def giant_check(count: int, named: Sequence[dict[str, Any]], options: DedupeOptions) -> Check:
    """Says what boilerplate was met; never trips."""
    sentence = (
        f"{count:,} documents begin buckets of {GIANT_BUCKET:,} or more (boilerplate; {named[0]['documents']:,} look "
        f"like '{named[0]['id']}'); each of their documents met at most {options.bucket_limit:,} kept ones a bucket."
    )
    return Check(name="boilerplate", ok=True, sentence=sentence)


def source_check(counts: dict[str, int], options: DedupeOptions) -> Check:
    """Guard rail: no source of some size loses more than the allowed share of its documents."""
    losses = [
        (1 - counts.get(f"kept/{name[3:]}", 0) / before, name[3:])
        for name, before in counts.items()
        if name.startswith("in/") and before >= SMALLEST_SOURCE
    ]
    worst, source = max(losses, default=(0.0, ""))
    what = f"source '{source}' loses {worst:.1%} of its documents" if source else "no source is large enough to judge"
    limit = options.max_source_loss
    return Check(name="source-loss", ok=worst <= limit, sentence=f"{what} (limit {limit:.1%}).")
