"""``glm-data tokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.stages import stage_command


@stage_command(
    "tokenize",
    "tokenize",
    help="Turn documents into token ids. INPUTS are document files, folders, patterns or a finished stage.",
    example="glm-data tokenize run/dedupe --tokenizer run/tokenizer --out run/tokenize",
)
@click.argument("inputs", nargs=-1, required=True)
@click.option("--tokenizer", required=True, type=EXISTING_FOLDER, help="Folder of a trained tokenizer.")
def tokenize(inputs: tuple[str, ...], tokenizer: Path) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": inputs, "tokenizer": tokenizer}
