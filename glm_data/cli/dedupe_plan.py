"""``glm-data dedupe plan``."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from glm_data import recipe as recipes
from glm_data.cli.fields import EXISTING_FILE, FOLDER, build, config_options
from glm_data.cli.output import Output, megabytes, output_options
from glm_data.cli.shell import Command


@click.command(
    "plan",
    cls=Command,
    help="Say what a run would find, miss and cost, before it starts. Takes what 'glm-data dedupe' takes; a sample of "
    "INPUTS is read, if there are any, and nothing is written.",
    example="""
        glm-data dedupe plan --threshold 0.7
        glm-data dedupe plan run/filter --threshold 0.7 --bands 30 --rows 5
    """,
)
@click.argument("inputs", nargs=-1)
@click.option("--documents", type=click.IntRange(1), help="Plan for so many documents like those of INPUTS.")
@click.option("--out", "--output", "-o", type=FOLDER, help="Where the run would write: says whether it has the room.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Worker processes; 0 means one a core.")
@click.option("--recipe", type=EXISTING_FILE, help="Take the options from this recipe's section 'dedupe'.")
@config_options(recipes.options_type("dedupe"))
@output_options
def plan(
    inputs: tuple[str, ...],
    documents: int | None,
    out: Path | None,
    workers: int,
    recipe: Path | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> int:
    """Print the plan."""
    base = recipes.section(recipe, "dedupe") if recipe else {}
    options = build(recipes.options_type("dedupe"), given, base)
    output = Output(as_json=as_json, quiet=quiet)
    told = _tell(inputs, options, documents, workers or len(os.sched_getaffinity(0)), out)
    output.value(told)
    if not as_json:
        for line in _lines(told):
            output.say(line)
    return 0


def _tell(inputs: tuple[str, ...], options: Any, documents: int | None, workers: int, out: Path | None) -> Any:
    from glm_data.dedupe import plan as planning
    from glm_data.dedupe.work import lsh_of

    lsh, threshold = lsh_of(options), options.threshold
    told: dict[str, Any] = {
        "threshold": threshold,
        "bands": lsh.bands,
        "rows": lsh.rows,
        "curve": [{"similarity": similarity, "compared": likely} for similarity, likely in planning.curve(lsh)],
        "missed_at_threshold": 1 - lsh.probability(threshold),
        "missed_above": planning.missed_share(lsh, threshold),
        "compared_below": planning.false_share(lsh, threshold),
    }
    if inputs:
        told |= _tell_costs(inputs, options, documents, workers)
    if out:
        there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
        told["disk_free_bytes"] = shutil.disk_usage(there).free
    return told


def _tell_costs(inputs: tuple[str, ...], options: Any, documents: int | None, workers: int) -> dict[str, Any]:
    from glm_data.dedupe import plan as planning
    from glm_data.dedupe.work import lsh_of
    from glm_data.inputs import find_inputs

    found = find_inputs(inputs, digest=False)
    sample = planning.take_sample(found, options)
    cost = planning.costs(sample, options, documents or sample.documents)
    likely = planning.false_candidates(sample.similarities, lsh_of(options), options.threshold, cost.documents)
    return {
        "files": len(found),
        **cost._asdict(),
        "false_candidates": round(likely),
        "workers": workers,
        "seconds": cost.cpu_seconds / workers,
    }


def _lines(told: Any) -> Iterator[str]:
    threshold = told["threshold"]
    yield f"{told['bands']} bands of {told['rows']} minima, threshold {threshold}"
    yield "\nsimilarity of two documents, and how likely they are compared"
    for point in told["curve"]:
        yield f"  {point['similarity']:.2f}  {'█' * round(point['compared'] * 40):<40}  {point['compared']:7.2%}"
    yield f"\nmissed      {told['missed_at_threshold']:.3%} of pairs at {threshold}; of pairs spread evenly over"
    yield f"            {threshold} to 1, {told['missed_above']:.3%}"
    yield f"in vain     {told['compared_below']:.1%} of pairs spread evenly below {threshold} are compared and stay"
    if "files" not in told:
        yield "\nGive INPUTS to learn what a run over them would take."
        return
    yield f"            here about {told['false_candidates']:,} pairs, going by random pairs of the sample"
    yield f"\ninputs      {told['files']:,} files"
    yield f"documents   about {told['documents']:,}, {megabytes(told['text_bytes'])} of text"
    yield f"memory      about {megabytes(told['memory_bytes'])} a worker process"
    room = f"; {megabytes(told['disk_free_bytes'])} are free" if "disk_free_bytes" in told else ""
    yield f"disk        about {megabytes(told['disk_bytes'])} below the output folder, output included{room}"
    yield f"time        about {_minutes(told['seconds'])} with {told['workers']} workers"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:,.0f} minutes"
