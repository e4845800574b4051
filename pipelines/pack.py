"""The pack stage: tokenised documents, and MIP samples if given, to packed rows, one task a shard.

``beam run pipelines/pack.py TOKENIZED --tokenizer DIR --mip DIR --output DIR``
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from glm_data.config import Doc, from_flags, to_mapping
from glm_data.errors import UsageError
from glm_data.packing.options import PackOptions
from glm_data.packing.stage import NAME, pack_stage
from glm_data.stage import ShardRecord, ShardTask, Stage, Success
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_tasks


def run(
    tokenized: Path,
    out: Path,
    options: PackOptions,
    runner: RunnerOptions,
    *,
    tokenizer: Path,
    mip: Path | None = None,
    overwrite: bool = False,
) -> Success:
    """Pack a finished tokenize stage; ``out`` becomes a stage folder. The plan is made here, shards are filled by
    workers."""

    def perform(stage: Stage, function: Callable[[ShardTask], ShardRecord], tasks: Sequence[ShardTask]) -> None:
        run_tasks(stage, function, tasks, runner)

    return pack_stage(tokenized, out, options, tokenizer=tokenizer, mip=mip, perform=perform, overwrite=overwrite)


class _Arguments(PackOptions, frozen=True, kw_only=True):
    tokenizer: Annotated[str, Doc("folder of the tokenizer that made the ids")]
    mip: Annotated[str | None, Doc("folder of a finished mip stage to mix in")] = None


def main(argv: Sequence[str] | None = None) -> int:
    """The stage's command line; returns the exit code."""
    return stage_main(argv, NAME, __doc__ or "", _Arguments, _run_arguments)


def _run_arguments(
    inputs: Sequence[str | Path], out: Path, options: _Arguments, runner: RunnerOptions, overwrite: bool
) -> Success:
    if len(inputs) != 1:
        raise UsageError(f"{len(inputs)} inputs; give one folder of a finished tokenize stage.")
    values = to_mapping(options)
    tokenizer, mip = Path(values.pop("tokenizer")), values.pop("mip")
    given = from_flags(values, PackOptions)
    folder = Path(mip) if mip else None
    return run(Path(inputs[0]), out, given, runner, tokenizer=tokenizer, mip=folder, overwrite=overwrite)


if __name__ == "__main__":
    sys.exit(main())
