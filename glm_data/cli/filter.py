"""``glm-data filter``."""

from __future__ import annotations

from typing import Any

import click

from glm_data.cli.stages import stage_command


@stage_command(
    "filter",
    "filter",
    help="Clean documents and keep the good ones. INPUTS are files, folders or patterns of Pile, WuDao, JSON lines, "
    "parquet or text files; what is dropped is kept aside with its reason, what cannot be read with its place.",
    example="glm-data filter shards/pile shards/wudao --out run/filter",
    branches={
        "tune": ("glm_data.cli.filter_tune:tune", "Other thresholds on a finished stage, in seconds."),
        "train-quality": (
            "glm_data.cli.filter_train_quality:train_quality",
            "Train a model that tells good documents from bad ones.",
        ),
    },
)
@click.argument("inputs", nargs=-1, required=True)
def filter_(inputs: tuple[str, ...]) -> dict[str, Any]:
    """Name the step's inputs."""
    return {"inputs": inputs}
