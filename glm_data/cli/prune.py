"""``glm-data prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER, FOLDER, build, config_options
from glm_data.cli.output import Output, output_options, show_stage
from glm_data.cli.progress import follow
from glm_data.cli.shell import Command, require_torch
from glm_data.training.options import PruneOptions


@click.command(
    "prune",
    cls=Command,
    resumes=True,
    help="Set the least of a trained model's weights to zero; the loss is told before and after. MODEL is a finished "
    "train stage, PACK a pack made with the same tokenizer.",
    example="""
        glm-data prune run/train run/pack --out run/prune
        glm-data prune run/train run/pack --out run/prune-30 --pattern unstructured --sparsity 0.3
    """,
)
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The stage's folder.")
@config_options(PruneOptions)
@click.option("--overwrite", is_flag=True, help="Start afresh where other settings had begun.")
@output_options
def prune(model: Path, pack: Path, out: Path, overwrite: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Prune, show the table."""
    require_torch()
    from glm_data.training.prune import STAGE, prune_stage

    output = Output(as_json=as_json, quiet=quiet)
    options = build(PruneOptions, given)
    with follow(output, out, STAGE):
        success = prune_stage(model, pack, out, options, overwrite=overwrite)
    return show_stage(output, out, success)
