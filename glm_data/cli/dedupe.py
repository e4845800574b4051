"""``glm-data dedupe``."""

from __future__ import annotations

from typing import Any

import click

from glm_data.cli.stages import stage_command


@stage_command(
    "dedupe",
    "dedupe",
    help="Remove exact and near duplicates. INPUTS are document files, folders, patterns or a finished filter stage; "
    "each removal is verified and listed in duplicates.parquet beside the document that stays.",
    example="glm-data dedupe run/filter --out run/dedupe",
    branches={"plan": ("glm_data.cli.dedupe_plan:plan", "What a run would find, miss and cost, before it starts.")},
)
@click.argument("inputs", nargs=-1, required=True)
def dedupe(inputs: tuple[str, ...]) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": inputs}
