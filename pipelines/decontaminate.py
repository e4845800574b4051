"""Decontamination as a Beam pipeline: evaluation items are cut out of the documents that hold them.

``beam run pipelines/decontaminate.py run/dedupe --evaluation evaluation.yaml --output run/decontaminate``
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glm_data.config import to_mapping
from glm_data.decontaminate import DecontaminateOptions, build_index, read_evaluation
from glm_data.decontaminate.findings import checks, describe, read_ledger
from glm_data.decontaminate.index import Index, save_index
from glm_data.decontaminate.items import Evaluation
from glm_data.decontaminate.shard import COMMON, FIND, INDEX, WORK, common_grams, find_shard, output_shard, save
from glm_data.stage import InputFile, ShardTask, Stage, Success, find_inputs, finished, open_stage
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions, run_tasks

STAGE = "decontaminate"


def run(
    inputs: Sequence[str | Path],
    out: Path,
    options: DecontaminateOptions,
    runner: RunnerOptions,
    overwrite: bool = False,
) -> Success:
    """Decontaminate ``inputs`` into the stage folder ``out``; resumes, and does nothing if it is finished already.

    Raises :class:`glm_data.errors.UsageError` for inputs, options, manifests and folders that cannot be meant.
    """
    evaluation = read_evaluation(Path(options.evaluation))
    found, settings = find_inputs(inputs), {**to_mapping(options), "evaluation": evaluation.plan()}
    done = finished(out, STAGE, settings, found)
    if done is not None and not overwrite:
        return done
    with open_stage(out, STAGE, settings, found, overwrite=overwrite) as stage:
        return _perform(stage, found, evaluation, options, runner)


def _perform(
    stage: Stage,
    inputs: Sequence[InputFile],
    evaluation: Evaluation,
    options: DecontaminateOptions,
    runner: RunnerOptions,
) -> Success:
    work = stage.folder / WORK
    index = build_index(evaluation, options.shape, options.common_items)
    save_index(work / INDEX, index)
    settings = {"decontaminate": to_mapping(options), "work": str(work), "run": stage.key}
    with open_stage(work / FIND, f"{STAGE}/{FIND}", {"run": stage.key}, inputs, overwrite=True) as first:
        run_tasks(first, find_shard, _tasks(inputs, first.folder, settings), runner)
        first.succeed(len(inputs))
    save(work / COMMON, common_grams(work, len(inputs), index.hashes.size, options.common_documents))
    run_tasks(stage, output_shard, _tasks(inputs, stage.folder, settings), runner)
    return _finish(stage, index, options)


def _tasks(inputs: Sequence[InputFile], folder: Path, settings: dict[str, Any]) -> list[ShardTask]:
    return [
        ShardTask(shard=shard, folder=str(folder), input=item, options=settings) for shard, item in enumerate(inputs)
    ]


def _finish(stage: Stage, index: Index, options: DecontaminateOptions) -> Success:
    records = [record for _, record in sorted(stage.records().items())]
    counts = Counter[str]()
    for record in records:
        counts.update(record.counts)
    facts = {"benchmarks": describe(index, read_ledger(stage.folder, records), counts)}
    return stage.succeed(len(records), checks(counts, records, options), facts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from its command line; returns the exit code."""
    return stage_main(argv, STAGE, "Cut the items of evaluation sets out of documents.", DecontaminateOptions, run)


if __name__ == "__main__":
    sys.exit(main())
