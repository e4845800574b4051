"""``glm-data tokenizer train``."""

from __future__ import annotations

from typing import Any

import click

from glm_data.cli.stages import stage_command


@stage_command(
    "train",
    "tokenizer",
    help="Train a bilingual tokenizer. INPUTS are document files, folders, patterns or a finished stage.",
    example="glm-data tokenizer train run/dedupe --out run/tokenizer",
)
@click.argument("inputs", nargs=-1, required=True)
def train(inputs: tuple[str, ...]) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": inputs}
