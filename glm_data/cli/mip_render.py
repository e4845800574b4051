"""``glm-data mip render``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FILE
from glm_data.cli.stages import stage_command


@stage_command(
    "render",
    "mip",
    help="Render the samples of a mixture. MANIFEST is a YAML file that lists data sets, templates and shares.",
    example="glm-data mip render manifests/demo/mip/mixture.yaml --out run/mip",
)
@click.argument("manifest", type=EXISTING_FILE)
def render(manifest: Path) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": (str(manifest),)}
