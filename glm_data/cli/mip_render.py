"""``glm-data mip render``."""

from __future__ import annotations

from typing import Any

import click

from glm_data.cli.stages import stage_command


@stage_command(
    "render",
    "mip",
    help="Render the samples of a mixture. MANIFEST is a YAML file that lists data sets, templates and shares, or a "
    "bundled one: mip-74 (what GLM-130B was trained on), mip-fewclue.",
    example="""
        glm-data mip render manifests/demo/mip/mixture.yaml --out run/mip
        glm-data mip render mip-74 --rows rows --templates templates --missing skip --out run/mip
    """,
)
@click.argument("manifest")
def render(manifest: str) -> dict[str, Any]:
    """Name the step's inputs."""
    from glm_data.mip.mixture import find_mixture

    return {"inputs": (str(find_mixture(manifest)),)}
