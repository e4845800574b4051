"""``glm-data filter train-quality``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command

_MOST = 200_000
_INPUT = click.Path(exists=True, path_type=Path)


@click.command(
    "train-quality",
    cls=Command,
    help="Train a small model that tells good documents from bad ones. GOOD and BAD are document files, folders or "
    "finished stages in any format; a fifth of them is held out to say how well it does. 'glm-data filter "
    "--quality-model' makes its score, from 0 to 1, the signal 'quality', which a profile may bound.",
    example="""
        glm-data filter train-quality good.jsonl run/filter/dropped --out quality.npz
        glm-data filter shards --quality-model quality.npz --profile mine.yaml --out run/filter
    """,
)
@click.argument("good", type=_INPUT)
@click.argument("bad", type=_INPUT)
@click.option("--out", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The model's file.")
@click.option("--epochs", type=click.IntRange(1), default=5, show_default=True, help="Passes over the documents.")
@click.option("--most", type=click.IntRange(1), default=_MOST, show_default=True, help="Documents of each kind.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of split and order.")
@output_options
def train_quality(good: Path, bad: Path, as_json: bool, quiet: bool, **given: Any) -> int:
    """Train, save, say the scores."""
    from glm_data.filters import quality

    output = Output(as_json=as_json, quiet=quiet)
    texts = [[text for _, text in zip(range(given["most"]), _texts(path), strict=False)] for path in (good, bad)]
    weights, scores = quality.train(*texts, epochs=given["epochs"], seed=given["seed"])
    quality.save(given["out"], weights)
    output.value({"out": str(given["out"]), "good": len(texts[0]), "bad": len(texts[1]), "held_out": scores._asdict()})
    output.say(f"{given['out']}: learnt from {len(texts[0]):,} good and {len(texts[1]):,} bad documents", bold=True)
    output.say(
        f"of {scores.good:,} and {scores.bad:,} held out, {scores.accuracy:.1%} told rightly; "
        f"a good one scores above a bad one {scores.auc:.1%} of the time"
    )
    return 0


def _texts(path: Path) -> Iterator[str]:
    from glm_data.formats import read_blocks
    from glm_data.inputs import find_inputs

    for item in find_inputs([path], digest=False):
        for block in read_blocks(item):
            yield from block.documents.column("text").to_pylist()
