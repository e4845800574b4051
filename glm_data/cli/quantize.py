"""``glm-data quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.shell import require_torch
from glm_data.cli.stages import stage_command


@stage_command(
    "quantize",
    "quantize",
    help="Quantise the weights of a trained model to INT4 or INT8. MODEL is a finished train stage.",
    example="""
        glm-data quantize run/train --out run/quantize
        glm-data quantize run/train --out run/quantize-8 --bits 8
    """,
)
@click.argument("model", type=EXISTING_FOLDER)
def quantize(model: Path) -> dict[str, Any]:
    """Name the step's inputs."""
    require_torch()
    return {"inputs": (str(model),)}
