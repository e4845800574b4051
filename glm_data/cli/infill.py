"""``glm-data infill``."""

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
    "infill",
    cls=Command,
    help="Fill the [MASK]s of each TEXT with the model in the folder MODEL, as trained or quantised.",
    example='glm-data infill run/quantize "The quick brown fox [MASK] over the lazy dog."',
)
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@config_options(GenerationOptions)
@device_option
@output_options
def infill(model: Path, texts: tuple[str, ...], device: str, as_json: bool, quiet: bool, **given: Any) -> None:
    """Print each text with its blanks filled."""
    output = Output(as_json=as_json, quiet=quiet)
    for text in texts:
        if MASK not in text:
            raise UsageError(f"'{text}' has no {MASK}; write one where text is missing, or use 'glm-data generate'.")
    require_torch()
    completions = complete(model, texts, build(GenerationOptions, given), device)
    output.value([{"text": item.text(), "prompt": item.prompt, "filled": item.filled} for item in completions])
    for completion in completions:
        output.answer(completion.text() if quiet else completion.shown())
