"""``glm-data generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from glm_data.cli.completions import complete
from glm_data.cli.fields import EXISTING_FOLDER, build, config_options, device_option
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command, require_torch
from glm_data.errors import UsageError
from glm_data.generation.blanks import MASK
from glm_data.generation.options import GenerationOptions


@click.command(
    "generate",
    cls=Command,
    help="Continue each TEXT, as at a [gMASK], with the model in the folder MODEL, as trained or quantised.",
    example='glm-data generate run/quantize "从前有座山，" --max-length 40',
)
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@config_options(GenerationOptions)
@device_option
@output_options
def generate(model: Path, texts: tuple[str, ...], device: str, as_json: bool, quiet: bool, **given: Any) -> None:
    """Print each text with its continuation."""
    output = Output(as_json=as_json, quiet=quiet)
    for text in texts:
        if MASK in text:
            raise UsageError(f"'{text}' has a {MASK} inside; use 'glm-data infill' to fill it.")
    require_torch()
    completions = complete(model, texts, build(GenerationOptions, given), device)
    output.value([{"text": item.text(), "prompt": item.prompt, "continuation": item.filled[0]} for item in completions])
    for completion in completions:
        output.answer(completion.text() if quiet else completion.shown())
