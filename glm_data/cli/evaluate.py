"""``glm-data eval``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table
from glm_data.cli.shell import Command, require_torch


@click.command(
    "eval",
    cls=Command,
    help="Measure a model on rows of a pack: nats a token and bits a byte, by kind of piece, beside guessing by "
    "frequency. MODEL is a finished train or quantize stage, PACK a pack made with the same tokenizer.",
    example="glm-data eval run/quantize run/pack --held-out-rows 16",
)
@click.argument("model", type=EXISTING_FOLDER)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option(
    "--held-out-rows",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many rows, spread over the pack as training spreads those that it holds out.",
)
@output_options
def evaluate(model: Path, pack: Path, held_out_rows: int, as_json: bool, quiet: bool) -> int:
    """Print one line a kind."""
    require_torch()
    from glm_data.evaluation.held_out import score_folder

    output = Output(as_json=as_json, quiet=quiet)
    scores = score_folder(model, pack, held_out_rows)
    output.value({"model": str(model), "pack": str(pack), "scores": msgspec.to_builtins(scores)})
    rows = [("", "tokens", "nats a token", "by frequency", "bits a byte")]
    rows += [
        (kind, f"{item.tokens:,}", f"{item.loss:.3f}", f"{item.unigram_loss:.3f}", f"{item.bits_per_byte:.3f}")
        for kind, item in scores.items()
    ]
    if not (as_json or quiet):
        for line in table(rows):
            output.say(line)
    return 0
