"""``glm-data pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.stages import stage_command


@stage_command(
    "pack",
    "pack",
    help="Pack token ids, and MIP samples if given, into rows with precomputed [MASK] and [gMASK] spans. "
    "TOKENIZED is a finished tokenize stage.",
    example="""
        glm-data pack run/tokenize --tokenizer run/tokenizer --mip run/mip --mip-ratio 0.05 --out run/pack
        glm-data pack run/tokenize --tokenizer run/tokenizer --preset glm-130b --epochs 3 --out run/pack-130b
        glm-data pack run/tokenize --tokenizer run/tokenizer --languages zh=0.5 --languages en=0.5 \\
            --mix 'books*=epochs:2' --out run/pack-mixed
    """,
)
@click.argument("tokenized", type=EXISTING_FOLDER)
@click.option("--tokenizer", required=True, type=EXISTING_FOLDER, help="The tokenizer that made the ids.")
@click.option("--mip", type=EXISTING_FOLDER, help="A finished mip stage to mix in.")
def pack(tokenized: Path, tokenizer: Path, mip: Path | None) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": (str(tokenized),), "tokenizer": tokenizer, "mip": mip}
