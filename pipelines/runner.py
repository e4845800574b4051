"""Runs a stage's shard tasks on a Beam runner: one graph, one leaf, no text in PCollections."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from glm_data.config import Config, Doc
from glm_data.stage import ShardRecord, ShardTask, Stage, write_shard_record

ShardFunction = Callable[[ShardTask], ShardRecord]


class RunnerOptions(Config):
    """Where and how wide a stage runs."""

    runner: Annotated[str, Doc("Beam runner: local (FnApiRunner), portable, dask, flink, spark, dataflow, or a class")] = "local"
    workers: Annotated[int, Doc("worker processes; 0 means one a core when the input is large enough to pay")] = 0
    beam_args: tuple[str, ...] = ()


def run_and_record(function: ShardFunction, task: ShardTask) -> int:
    """Run one shard and commit its record; returns the shard's number. This is all that a worker executes."""
    started = time.perf_counter()
    write_shard_record(Path(task.folder), function(task), started)
    return task.shard


def run_tasks(stage: Stage, function: ShardFunction, tasks: Sequence[ShardTask], options: RunnerOptions) -> None:
    """Run those of ``tasks`` that the stage has not finished yet, on the runner of ``options``."""
    pending = set(stage.pending(len(tasks)))
    for task in tasks:
        if task.shard in pending:
            run_and_record(function, task)
