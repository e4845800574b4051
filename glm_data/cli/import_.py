"""``glm-data import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import FOLDER, build, config_options
from glm_data.cli.output import Output, output_options, show_stage
from glm_data.cli.progress import follow
from glm_data.cli.shell import Command, require_torch
from glm_data.megatron.options import ImportOptions


@click.command(
    "import",
    cls=Command,
    resumes=True,
    help="Read a checkpoint of GLM-130B's or GLM-10B's form, its tensor-parallel parts merged, INT4 and INT8 to the "
    "bit. CHECKPOINT is the folder with 'latest', that of the mp_rank files, or one such file.",
    example="""
        glm-data import glm-130b-sat --out run/glm-130b
        glm-data import blocklm-10b-1024 --heads 64 --out run/glm-10b
    """,
)
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The stage's folder.")
@config_options(ImportOptions)
@click.option("--overwrite", is_flag=True, help="Start afresh where other settings had begun.")
@output_options
def import_(checkpoint: Path, out: Path, overwrite: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Import, show the table."""
    require_torch()
    from glm_data.megatron.stage import IMPORT, import_stage

    output = Output(as_json=as_json, quiet=quiet)
    with follow(output, out, IMPORT):
        success = import_stage(checkpoint, out, build(ImportOptions, given), overwrite=overwrite)
    return show_stage(output, out, success)
