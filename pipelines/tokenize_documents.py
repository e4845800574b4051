"""Tokenize stage: document files to flat ids and a table of documents, one output shard an input file.

``python pipelines/tokenize_documents.py INPUT... --tokenizer DIR --output DIR``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from glm_data.config import Doc, from_flags, to_mapping
from glm_data.manifest import unreadable_check
from glm_data.packing.tokenized import TokenizeOptions, tokenize_shard, tokenize_stage_plan
from glm_data.stage import ShardTask, Success, find_inputs, finished, open_stage
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_tasks

NAME = "tokenize"


def run(
    inputs: Sequence[str | Path],
    tokenizer_folder: Path,
    out: Path,
    options: TokenizeOptions | None = None,
    runner: RunnerOptions | None = None,
    overwrite: bool = False,
) -> Success:
    """Encode every document of ``inputs`` with the tokenizer in a folder; ``out`` becomes a stage folder."""
    options = options or TokenizeOptions()
    plan_options, task_options, facts = tokenize_stage_plan(Path(tokenizer_folder), options)
    found = find_inputs(inputs)
    plan = (NAME, plan_options, found)
    if not overwrite and (done := finished(out, *plan)):
        return done
    tasks = [ShardTask(shard=i, folder=str(out), input=item, options=task_options) for i, item in enumerate(found)]
    with open_stage(out, *plan, overwrite=overwrite) as stage:
        run_tasks(stage, tokenize_shard, tasks, runner or RunnerOptions())
        check = unreadable_check(stage.records().values(), options.max_bad_fraction)
        return stage.succeed(len(tasks), [check], facts)


class _Arguments(TokenizeOptions, frozen=True, kw_only=True):
    tokenizer: Annotated[str, Doc("folder of the trained tokenizer")]


def main(argv: Sequence[str] | None = None) -> int:
    """The stage's command line; returns the exit code."""
    return stage_main(argv, "tokenize_documents", __doc__ or "", _Arguments, _run_arguments)


def _run_arguments(
    inputs: Sequence[str | Path], out: Path, options: _Arguments, runner: RunnerOptions, overwrite: bool
) -> Success:
    values = to_mapping(options)
    folder = Path(values.pop("tokenizer"))
    return run(inputs, folder, out, from_flags(values, TokenizeOptions), runner, overwrite)


if __name__ == "__main__":
    sys.exit(main())
