"""``glm-data tokenizer``: the group, encode and decode."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command, LazyGroup
from glm_data.errors import UsageError

tokenizer = LazyGroup(
    "tokenizer",
    lazy={
        "train": ("glm_data.cli.tokenizer_train:train", "Train a bilingual tokenizer on documents."),
        "report": ("glm_data.cli.tokenizer_report:report", "Measure a tokenizer on texts, beside others."),
        "encode": ("glm_data.cli.tokenizer:encode", "Show the pieces and ids of a text."),
        "decode": ("glm_data.cli.tokenizer:decode", "Turn ids back into text."),
    },
    help="Train a bilingual tokenizer with the GLM specials; encode and decode with it.",
    example="""
        glm-data tokenizer train run/dedupe --out run/tokenizer --vocab-size 4096
        glm-data tokenizer encode run/tokenizer "千里之行，始于足下。"
    """,
)


@click.command(
    "encode",
    cls=Command,
    help="Show the pieces and ids of TEXT ('-' reads standard input).",
    example='glm-data tokenizer encode run/tokenizer "The quick brown fox"',
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("text")
@output_options
def encode(folder: Path, text: str, as_json: bool, quiet: bool) -> None:
    """Print ids, and pieces beside them."""
    from tokenizer import Tokenizer

    output = Output(as_json=as_json, quiet=quiet)
    model = Tokenizer.load(folder)
    ids = [int(token) for token in model.encode(sys.stdin.read() if text == "-" else text)]
    pieces = [model.decode([token]) for token in ids]
    output.value({"ids": ids, "pieces": pieces})
    output.answer(" ".join(map(str, ids)))
    output.say("|".join(pieces))
    output.say(f"{len(ids)} tokens", dim=True)


@click.command(
    "decode",
    cls=Command,
    help="Turn IDS, numbers separated by spaces or commas, back into text ('-' reads standard input).",
    example="glm-data tokenizer decode run/tokenizer 311 452 17",
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("ids", nargs=-1, required=True)
@output_options
def decode(folder: Path, ids: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Print the text of ids."""
    from tokenizer import Tokenizer

    output = Output(as_json=as_json, quiet=quiet)
    model = Tokenizer.load(folder)
    given = sys.stdin.read() if ids == ("-",) else " ".join(ids)
    numbers = [_token(word, model.vocab_size) for word in given.replace(",", " ").split()]
    text = model.decode(numbers)
    output.value({"text": text})
    output.answer(text)


def _token(word: str, size: int) -> int:
    if not word.isdecimal() or int(word) >= size:
        raise UsageError(f"'{word}' is not a token id of this tokenizer; ids are whole numbers from 0 to {size - 1}.")
    return int(word)
