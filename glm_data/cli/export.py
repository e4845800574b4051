"""``glm-data export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER, FOLDER, build, listed_options
from glm_data.cli.output import Output, output_options, show_stage
from glm_data.cli.progress import follow
from glm_data.cli.shell import Command


@click.command(
    "export",
    cls=Command,
    resumes=True,
    help="Write the rows of PACK, assembled, in a format that another trainer reads: input_ids, targets, position_ids, "
    "loss_mask and segments (and pieces) of every row.",
    example="""
        glm-data export run/pack --to hf-dense --out run/export       # datasets.load_from_disk("run/export")
        glm-data export run/pack --to megatron --out run/export-megatron
        glm-data export run/pack --to mds --epoch 1 --out run/export-1   # the rows under the masks of a second pass
    """,
)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The stage's folder.")
@listed_options("export")
@click.option("--overwrite", is_flag=True, help="Start afresh where other settings had begun.")
@output_options
def export(pack: Path, out: Path, overwrite: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Export, show the table."""
    from glm_data.exporting.stage import STAGE, ExportOptions, export_stage

    output = Output(as_json=as_json, quiet=quiet)
    options = build(ExportOptions, given)
    with follow(output, out, STAGE):
        success = export_stage(pack, out, options, overwrite=overwrite)
    return show_stage(output, out, success)
