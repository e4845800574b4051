"""``glm-data plan``: figures of a run before it starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_data.cli.fields import FOLDER, build, config_options
from glm_data.cli.output import Output, megabytes, output_options, table
from glm_data.cli.shell import Command
from glm_data.progress import duration
from glm_data.training.plan import PlanOptions

if TYPE_CHECKING:
    from glm_data.planning import Estimate


@click.command(
    "plan",
    cls=Command,
    help="Say what RECIPE would take before anything runs: documents, tokens by source, disk, memory and core-hours of "
    "each stage, and the cost of training. The beginnings of up to eight inputs are read, and nothing is written. "
    "'glm-data plan train' plans a training run alone, by arithmetic.",
    example="""
        glm-data plan my-recipe.yaml --workers 8
        glm-data plan train --model 130b
    """,
    branches={"train": ("glm_data.cli.plan:train", "Operations, days and memory of a training run.")},
)
@click.argument("recipe")
@click.option("--out", "--output", "-o", type=FOLDER, help="Where the run would write: says whether it has the room.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Worker processes; 0 means one a core.")
@output_options
def plan(recipe: str, out: Path | None, workers: int, as_json: bool, quiet: bool) -> None:
    """Print the estimate."""
    from glm_data import recipe as recipes
    from glm_data.cli.run import find_recipe
    from glm_data.planning import estimate

    output = Output(as_json=as_json, quiet=quiet)
    found = estimate(recipes.load(find_recipe(recipe)))
    workers = workers or len(os.sched_getaffinity(0))
    free = free_bytes(out) if out else None
    output.value({**_told(found), "workers": workers, "disk_free_bytes": free})
    for line in _recipe_lines(found, workers, free):
        output.say(line)


def free_bytes(folder: Path) -> int:
    """Free room on the disk that ``folder`` is or would be on."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _told(found: Estimate) -> dict[str, Any]:
    return {
        "files": found.look.files,
        "documents": round(found.look.documents),
        "text_bytes": round(found.look.text_bytes),
        "kept": [part._asdict() for part in found.look.kept],
        "stages": [stage._asdict() for stage in found.stages],
        "tokens": {name: round(count) for name, count in found.tokens.items()},
        "rows": round(found.rows),
        "training": found.training,
    }


def _recipe_lines(found: Estimate, workers: int, free: int | None) -> Iterator[str]:
    look = found.look
    yield f"inputs  {look.files:,} files, {megabytes(look.bytes)}; the beginnings of {look.sampled} were read,"
    yield "        all numbers are scaled up from them; what duplicates take away is known only after the run"
    if look.dropped:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in look.dropped.most_common(4))
        lost = 1 - look.kept_documents / look.documents
        yield f"        the filter drops {lost:.1%} of the documents read ({reasons})"
    yield ""
    rows = [("stage", "documents", "text", "disk", "memory", "core-hours")]
    rows += [
        (item.stage, f"{item.documents:,.0f}", megabytes(item.text_bytes), megabytes(item.disk_bytes),
         megabytes(item.memory_bytes), f"{item.core_seconds / 3600:,.3g}")
        for item in found.stages
    ]  # fmt: skip
    total = megabytes(found.disk_bytes)
    yield from table([*rows, ("in all", "", "", total, "", f"{found.core_seconds / 3600:,.3g}")])
    yield f"\ntime    about {duration(found.seconds(workers))} with {workers} workers, good to a factor of two"
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cores / 2:
        yield f"        other work now asks for {load:.1f} of {cores} cores: longer, as long as that lasts"
    if free is not None:
        room = "there is room" if free > found.disk_bytes else "too little: give another --out or leave stages out"
        yield f"disk    {total} of {megabytes(free)} free: {room}"
    yield from _token_lines(found)


def _token_lines(found: Estimate) -> Iterator[str]:
    whole = sum(found.tokens.values())
    if not whole:
        return
    yield f"\ntokens  about {whole:,.0f}" + (f", {found.rows:,.0f} rows" if found.rows else "")
    rows = [(f"  {name}", f"{count:,.0f}", f"{count / whole:.1%}") for name, count in list(found.tokens.items())[:20]]
    yield from table(rows)
    if len(found.tokens) > len(rows):
        yield f"  and {len(found.tokens) - len(rows)} more sources; --json has them all"
    if (run := found.training) is not None:
        yield f"\ntrain   {run['parameters'] / 1e6:,.1f} M parameters, {run['steps']:,.0f} steps,"
        yield f"        {run['tokens']:,.0f} tokens ({run['tokens_a_parameter']:,.1f} a parameter), {run['passes']:.1f}"
        yield "        passes over the rows"
        yield f"        {run['flops']:.2g} operations, {run['h100_hours']:,.2g} hours of one H100 at 40 % of its peak"


@click.command(
    "train",
    cls=Command,
    help="Operations, days and memory by part of a training run, by arithmetic; nothing is read or allocated.",
    example="""
        glm-data plan train --model 2b --tokens 40e9 --gpu h100 --gpus 8
        glm-data plan train --model 130b --gpu a100-40 --gpus 768 --tensor 4 --pipeline 8 --shard optimizer --mfu 0.325
    """,
)
@click.option("--model", default="130b", show_default=True, help="Model preset.")
@click.option("--vocab", type=click.IntRange(1), help="Token ids, instead of the preset's.")
@config_options(PlanOptions)
@output_options
def train(model: str, vocab: int | None, as_json: bool, quiet: bool, **given: Any) -> int:
    """Print the plan."""
    from glm_data.model.config import preset
    from glm_data.training import plan as planning

    output = Output(as_json=as_json, quiet=quiet)
    options = build(PlanOptions, given, {})
    told = planning.plan(preset(model, vocab), options)
    output.value(told)
    if not as_json:
        for line in _lines(told, options):
            output.say(line)
    return 0


def _lines(told: dict[str, Any], options: PlanOptions) -> Iterator[str]:
    yield f"parameters  {told['parameters'] / 1e9:,.2f} B"
    yield f"operations  {told['flops']:.2g} useful (6 a parameter and token), {told['flops_done']:.2g} done;"
    yield f"            attention besides, every token seeing its whole row: {told['attention_flops']:.2g}"
    rate = f"{told['mfu']:.1%} MFU = {told['hfu']:.1%} HFU"
    yield f"time        {told['days']:,.1f} days on {options.gpus} {options.gpu} at {rate}"
    yield f"            {told['steps']:,.0f} steps of {told['seconds_a_step']:,.1f} s"
    layout = f"{options.tensor} tensor x {options.pipeline} pipeline x {told['replicas']} data"
    yield f"layout      {layout}, {told['microbatches']} microbatches a step; pipeline idle {told['bubble']:.1%}"
    yield f"            layers of the stages: {' '.join(map(str, told['layers_of_stages']))}"
    memory = dict(told["memory"])
    yield f"memory      of a card, at its fullest in stage {memory.pop('stage') + 1:.0f}:"
    for part, size in memory.items():
        yield f"  {part:<12}{size / 1e9:10,.1f} GB"
    total, there = sum(memory.values()), told["gpu_memory"]
    yield f"  {'in all':<12}{total / 1e9:10,.1f} GB of {there / 1e9:,.0f} GB{'' if total < there else ': too much'}"
    serving = told["serving"]
    sizes = ", ".join(f"{name.upper()} {serving[name] / 1e9:,.1f} GB" for name in ("fp16", "int8", "int4"))
    cache = serving["cache_token"] * options.seq_length / 1e9
    yield f"serving     weights {sizes}; keys and values {cache:,.1f} GB a row"
