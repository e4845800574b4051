"""Mip stage: a mixture of data sets rendered through prompt templates, one output shard or more a data set.

``python pipelines/render_mip.py MIXTURE.yaml --output DIR``
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from glm_data.errors import UsageError
from glm_data.mip.mixture import find_mixture
from glm_data.mip.options import MipOptions
from glm_data.mip.stage import NAME, render_stage
from glm_data.stage import ShardRecord, ShardTask, Stage, Success
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_tasks


def run(
    manifest: Path,
    out: Path,
    options: MipOptions | None = None,
    runner: RunnerOptions | None = None,
    overwrite: bool = False,
) -> Success:
    """Render the mixture ``manifest``; ``out`` becomes a stage folder."""

    def perform(stage: Stage, function: Callable[[ShardTask], ShardRecord], tasks: Sequence[ShardTask]) -> None:
        run_tasks(stage, function, tasks, runner or RunnerOptions())

    return render_stage(Path(manifest), out, options or MipOptions(), perform, overwrite=overwrite)


def main(argv: Sequence[str] | None = None) -> int:
    """The stage's command line; returns the exit code."""
    return stage_main(argv, NAME, __doc__ or "", MipOptions, _run_arguments)


def _run_arguments(
    inputs: Sequence[str | Path], out: Path, options: MipOptions, runner: RunnerOptions, overwrite: bool
) -> Success:
    if len(inputs) != 1:
        raise UsageError(f"{len(inputs)} inputs; give one mixture manifest, which lists the data sets.")
    return run(find_mixture(str(inputs[0])), out, options, runner, overwrite)


if __name__ == "__main__":
    sys.exit(main())
