"""De-duplication as a Beam pipeline: ``python pipelines/dedupe.py INPUT... --output DIR [options] [Beam options]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from glm_data.config import to_mapping
from glm_data.dedupe import DedupeOptions
from glm_data.stage import Success, find_inputs, finished, open_stage
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions

STAGE = "dedupe"


def run(
    inputs: Sequence[str | Path], out: Path, options: DedupeOptions, runner: RunnerOptions, overwrite: bool = False
) -> Success:
    """De-duplicate ``inputs`` into the stage folder ``out``; resumes, and does nothing if it is finished already."""
    from glm_data.dedupe.index import find_indexes
    from pipelines.dedupe_steps import Steps  # the kernels, which --help does without

    found = find_inputs(inputs)
    earlier, keys = find_indexes(options.against, options)
    mapping = {**to_mapping(options), "against": keys}  # wherever those runs lie
    done = finished(out, STAGE, mapping, (*found, *earlier))
    if done is not None and not overwrite:
        return done
    with open_stage(out, STAGE, mapping, (*found, *earlier), overwrite=overwrite) as stage:
        return Steps(stage, found, earlier, options, runner).perform(keys)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of the stage; returns its exit code."""
    return stage_main(argv, STAGE, "Remove exact and near duplicates, each one verified.", DedupeOptions, run)


if __name__ == "__main__":
    sys.exit(main())
