"""``glm-data decontaminate``."""

from __future__ import annotations

from typing import Any

import click

from glm_data.cli.stages import stage_command


@stage_command(
    "decontaminate",
    "decontaminate",
    help="Find the items of evaluation sets in documents and cut them out, with 200 characters on both sides. INPUTS "
    "are document files, folders, patterns or a finished stage; --evaluation is a YAML file that lists the evaluation "
    "sets with their files and fields. Everything found is listed in ledger/.",
    example="glm-data decontaminate run/dedupe --evaluation evaluation.yaml --out run/decontaminate",
)
@click.argument("inputs", nargs=-1, required=True)
def decontaminate(inputs: tuple[str, ...]) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": inputs}
