"""``glm-data export-checkpoint``."""

from __future__ import annotations

from pathlib import Path

import click

from glm_data.cli.fields import EXISTING_FOLDER, FOLDER
from glm_data.cli.output import Output, output_options, show_stage
from glm_data.cli.progress import follow
from glm_data.cli.shell import Command, require_torch


@click.command(
    "export-checkpoint",
    cls=Command,
    resumes=True,
    help="Write a model as a checkpoint of GLM-130B's or GLM-10B's form, cut into tensor-parallel parts; INT4 and INT8 "
    "to the bit. MODEL is a finished train, import or quantize stage.",
    example="glm-data export-checkpoint run/glm-130b --parts 4 --out glm-130b-sat-4",
)
@click.argument("model", type=EXISTING_FOLDER)
@click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The stage's folder.")
@click.option("--parts", type=click.IntRange(min=1), default=1, show_default=True, help="Parts to cut it into.")
@click.option("--overwrite", is_flag=True, help="Start afresh where other settings had begun.")
@output_options
def export_checkpoint(model: Path, out: Path, parts: int, overwrite: bool, as_json: bool, quiet: bool) -> int:
    """Export, show the table."""
    require_torch()
    from glm_data.megatron.stage import EXPORT, export_stage

    output = Output(as_json=as_json, quiet=quiet)
    with follow(output, out, EXPORT):
        success = export_stage(model, out, parts, overwrite=overwrite)
    return show_stage(output, out, success)
