"""``glm-data train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.shell import require_torch
from glm_data.cli.stages import stage_command


@stage_command(
    "train",
    "train",
    help="Train a GLM on a pack, from scratch and resumable. PACK is a finished pack stage.",
    example="glm-data train run/pack --out run/train --model tiny --steps 300",
)
@click.argument("pack", type=EXISTING_FOLDER)
def train(pack: Path) -> dict[str, Any]:
    """Name the step's inputs."""
    require_torch()
    return {"inputs": (str(pack),)}
