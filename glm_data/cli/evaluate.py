"""``glm-data eval``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from glm_data import files
from glm_data.cli.fields import EXISTING_FOLDER, device_option
from glm_data.cli.output import Output, output_options, table
from glm_data.cli.shell import Command, require_torch
from glm_data.errors import UsageError

if TYPE_CHECKING:
    from glm_data.evaluation.held_out import Score
    from glm_data.evaluation.suite import Setup, TaskResult


@click.command(
    "eval",
    cls=Command,
    help="Measure a model: on rows of a PACK made with the same tokenizer (nats a token and bits a byte by kind of "
    "piece, beside guessing by frequency), and in tasks of files below --data. MODEL is a finished train or quantize "
    "stage. Tasks: bigbench-lite, choices, clue, cmmlu, fewclue, lambada, mmlu, pile, wikitext, or a YAML file of "
    "your own in the form of manifests/eval.",
    example="""
        glm-data eval run/quantize run/pack --held-out-rows 16
        glm-data eval run/train --task lambada --task mmlu --data eval-sets --limit 500 --out report.json
        glm-data eval run/train --task lambada --data eval-sets --corpus run/dedupe      # found there?
    """,
)
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("pack", type=EXISTING_FOLDER, required=False)
@click.option(
    "--held-out-rows",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many rows of PACK, spread over it as training spreads those that it holds out.",
)
@click.option("--task", "-t", "tasks", multiple=True, help="A task to measure in; may be given several times.")
@click.option("--data", type=EXISTING_FOLDER, default=".", help="Folder that the tasks' files lie in.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Items of a task at most, spread evenly over all; of tasks on running text (pile, wikitext) documents.",
)
@click.option("--shots", type=click.IntRange(min=0), help="Solved examples before a question  [default: the task's]")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=16, max=2048),
    default=2048,
    show_default=True,
    help="Tokens of a question or window at most: the length of the rows that the model was trained on.",
)
@click.option(
    "--corpus",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Documents the model was trained on: says how many items stand there, and the score on the rest.",
)
@device_option
@click.option("--out", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Also write the result as JSON.")
@output_options
def evaluate(
    model: Path,
    pack: Path | None,
    held_out_rows: int,
    tasks: tuple[str, ...],
    data: Path,
    limit: int | None,
    shots: int | None,
    max_tokens: int,
    corpus: tuple[Path, ...],
    device: str,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print one line a kind of piece, and one a prompt of each task."""
    if pack is None and not tasks:
        raise UsageError("nothing to measure on: give a PACK, or a --task and the --data folder of its files.")
    require_torch()
    from glm_data.evaluation.suite import Setup

    output = Output(as_json=as_json, quiet=quiet)
    setup = Setup(data=Path(data), limit=limit, longest=max_tokens, corpus=corpus)
    results = _run_tasks(output, model, tasks, setup, shots, device) if tasks else []
    scores = {} if pack is None else _score_pack(output, model, pack, held_out_rows)
    value = {"model": str(model), "pack": str(pack) if pack else None, "scores": scores, "tasks": results}
    if out is not None:
        files.write_json(out, msgspec.to_builtins(value))
    output.value(value)
    return 0


def _score_pack(output: Output, model: Path, pack: Path, held_out_rows: int) -> dict[str, Score]:
    from glm_data.evaluation.held_out import score_folder

    scores = score_folder(model, pack, held_out_rows)
    rows = [("", "tokens", "nats a token", "by frequency", "bits a byte")]
    rows += [
        (kind, f"{item.tokens:,}", f"{item.loss:.3f}", f"{item.unigram_loss:.3f}", f"{item.bits_per_byte:.3f}")
        for kind, item in scores.items()
    ]
    _say_table(output, rows)
    return scores


def _run_tasks(
    output: Output, model: Path, names: tuple[str, ...], setup: Setup, shots: int | None, device: str
) -> list[TaskResult]:
    from glm_data.evaluation.show import remarks, result_rows
    from glm_data.evaluation.suite import run_task
    from glm_data.evaluation.tasks import load_tasks, with_shots
    from glm_data.generation.glm import Glm

    tasks = [with_shots(task, shots) for name in dict.fromkeys(names) for task in load_tasks(name)]
    glm = Glm.load(model, device)
    results = [run_task(glm, task, setup, output.note) for task in tasks]
    _say_table(output, result_rows(results))
    for remark in remarks(results):
        output.note(remark)
    return results


def _say_table(output: Output, rows: Sequence[tuple[str, ...]]) -> None:
    columns = [column for column in zip(*rows, strict=True) if len(rows) < 2 or any(column[1:])]
    if not (output.as_json or output.quiet):
        for line in table([list(row) for row in zip(*columns, strict=True)]):
            output.say(line)
