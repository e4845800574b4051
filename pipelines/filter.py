"""The filter stage: raw shards of any format to clean, judged documents.

``beam run pipelines/filter.py pile/*.jsonl.zst wudao/*.json --output filtered``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from glm_data import stage
from glm_data.filters import FilterOptions, FilterTask, check_shards, digest_files, filter_shard, load_profile
from glm_data.stage import ShardTask, Success
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_tasks

NAME = "filter"
DESCRIPTION = "Clean documents, name their language, and keep those that hold against a profile of rules."


def run(
    inputs: Sequence[str | Path],
    out: Path,
    options: FilterOptions,
    runner: RunnerOptions,
    overwrite: bool = False,
) -> Success:
    """Filter ``inputs`` into the stage folder ``out``; what is finished there already is not done again.

    Raises :class:`glm_data.errors.UsageError` for inputs, options and folders that cannot be meant.
    """
    task = FilterTask(options=options, profile=load_profile(options.profile), digests=digest_files(options))
    settings = msgspec.to_builtins(task)
    found = stage.find_inputs(inputs)
    done = stage.finished(out, NAME, settings, found)
    if done is not None and not overwrite:
        return done
    with stage.open_stage(out, NAME, settings, found, overwrite=overwrite) as opened:
        tasks = [
            ShardTask(shard=shard, folder=str(out), input=item, options=settings) for shard, item in enumerate(found)
        ]
        run_tasks(opened, filter_shard, tasks, runner)
        records = [record for _, record in sorted(opened.records().items())]
        return opened.succeed(len(tasks), check_shards(records, options))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from its command line; returns the exit code."""
    return stage_main(argv, NAME, DESCRIPTION, FilterOptions, run)


if __name__ == "__main__":
    sys.exit(main())
