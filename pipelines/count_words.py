"""Counts the words of a corpus by language and source, for tokenizers of any size and weights.

``python pipelines/count_words.py INPUT... --output DIR``
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glm_data import files
from glm_data.config import to_mapping
from glm_data.formats.parquet import parquet_writer
from glm_data.manifest import unreadable_check
from glm_data.stage import (
    InputFile,
    ShardRecord,
    ShardTask,
    Stage,
    Success,
    find_inputs,
    finished,
    open_stage,
    output_file,
    write_shard_record,
)
from glm_data.vocabulary import CountOptions
from glm_data.vocabulary.count import (
    CHARACTERS_SCHEMA,
    JOINED,
    merge_shard,
    sum_characters,
    sum_pairs,
    survey_shard,
    words_shard,
)
from glm_data.vocabulary.words import CHARACTERS
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_and_record, run_tasks
from tokenizer.train import joined_pairs, rare_below

NAME = "count_words"
TEXT_IN_PARTITION = 200_000_000
"""Bytes of text whose words are merged at a time; their different words take half a gigabyte at most."""
SMALL_STEP_BYTES = 100_000_000
"""Text up to which words are merged in this process: sooner done than a pipeline started."""


def run(
    inputs: Sequence[str | Path],
    out: Path,
    options: CountOptions | None = None,
    runner: RunnerOptions | None = None,
    overwrite: bool = False,
) -> Success:
    """Count the words of ``inputs`` (two passes and a merge); ``out`` becomes a stage folder."""
    options = options or CountOptions()
    found = find_inputs(inputs)
    plan = (NAME, to_mapping(options), found)
    if not overwrite and (done := finished(out, *plan)):
        return done
    with open_stage(out, *plan, overwrite=overwrite) as stage:
        counting = _Counting(out / "_work", stage.key, found, options, runner or RunnerOptions())
        return counting.perform(stage)


class _Counting:
    """One run over one output folder."""

    def __init__(
        self, work: Path, key: str, inputs: Sequence[InputFile], options: CountOptions, runner: RunnerOptions
    ) -> None:
        self._work, self._key, self._inputs = work, key, inputs
        self._options, self._runner = options, runner

    def perform(self, stage: Stage) -> Success:
        """Do every step that is not done yet."""
        surveyed = self._step("survey", survey_shard)
        bound = self._settle_pairs()
        size = sum(count for name, count in surveyed.counts.items() if name.startswith("bytes/"))
        parts = 1 + size // TEXT_IN_PARTITION
        self._step("words", words_shard, parts=parts, survey=str(self._work / "survey"))
        self._merge(stage, parts, size, surveyed)
        lost = unreadable_check([surveyed], self._options.max_bad_fraction)
        facts = {"rare_below": bound, "groups": _groups(surveyed.counts), "documents": surveyed.kept}
        success = stage.succeed(parts + 1, [lost], facts)
        shutil.rmtree(self._work / "words", ignore_errors=True)
        return success

    def _step(self, name: str, function: Callable[[ShardTask], ShardRecord], **extra: Any) -> Success:
        folder, settings = self._work / name, {"format": self._options.format, **extra}
        mapping = {"format": self._options.format, "run": self._key, "parts": extra.get("parts", 0)}
        with open_stage(folder, f"{NAME}/{name}", mapping, self._inputs, overwrite=True) as stage:
            tasks = [
                ShardTask(shard=shard, folder=str(folder), input=item, options=settings)
                for shard, item in enumerate(self._inputs)
            ]
            run_tasks(stage, function, tasks, self._runner)
            return stage.succeed(len(tasks))

    def _settle_pairs(self) -> int:
        """Write which Han neighbours stay together; returns how often they must have met."""
        folder = self._work / "survey"
        pairs, counts = sum_pairs(sorted((folder / "data").glob("*.pairs.parquet")))
        joined = joined_pairs(pairs, counts)
        if joined is not None:
            with files.atomic_path(folder / JOINED) as temporary, temporary.open("wb") as handle:
                np.save(handle, joined, allow_pickle=False)
        return rare_below(counts)

    def _merge(self, stage: Stage, parts: int, size: int, surveyed: Success) -> None:
        """Words by partition, on the runner or, if there are few, here; and, as a last shard, the characters.

        Records are documents, and the last shard's: a word is none.
        """
        settings = {"words": str(self._work / "words"), "parts": parts}
        tasks = [
            ShardTask(
                shard=part,
                folder=str(stage.folder),
                input=InputFile(name=f"words-{part:05d}", path="", bytes=size // parts, digest=""),
                options=settings,
            )
            for part in range(parts)
        ]
        pending = stage.pending(parts + 1)
        if size >= SMALL_STEP_BYTES:
            run_tasks(stage, merge_shard, tasks, self._runner)
        else:
            for part in (part for part in pending if part < parts):
                run_and_record(merge_shard, tasks[part])
        if parts in pending:
            started = time.perf_counter()
            survey = self._work / "survey" / "data"
            with parquet_writer(stage.folder / CHARACTERS, CHARACTERS_SCHEMA) as writer:
                table = sum_characters(sorted(survey.glob("*.characters.parquet"))).combine_chunks()
                for batch in table.to_batches():
                    writer.write(batch)
            done = output_file(stage.folder, CHARACTERS, table.num_rows)
            record = ShardRecord(
                shard=parts,
                input=CHARACTERS,
                records=surveyed.records,
                kept=surveyed.kept,
                unreadable=surveyed.unreadable,
                files=(done,),
            )
            write_shard_record(stage.folder, record, started)


def _groups(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Documents and bytes by ``language/source``."""
    names = sorted(name.partition("/")[2] for name in counts if name.startswith("bytes/"))
    return {name: {kind: counts[f"{kind}/{name}"] for kind in ("documents", "bytes")} for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """The stage's command line; returns the exit code."""
    return stage_main(argv, NAME, __doc__ or "", CountOptions, run)


if __name__ == "__main__":
    sys.exit(main())
