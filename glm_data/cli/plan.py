"""``glm-data plan``: figures of a run before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from glm_data.cli.fields import build, config_options
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command, LazyGroup
from glm_data.training.plan import PlanOptions

plan = LazyGroup(
    "plan",
    lazy={"train": ("glm_data.cli.plan:train", "Operations, days and memory of a training run.")},
    help="Say what a run would take, before it starts.",
    example="glm-data plan train --model 130b",
)


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
