"""``glm-data tokenizer``: the group, encode and decode."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command, LazyGroup
from glm_data.errors import GlmDataError, UsageError

if TYPE_CHECKING:
    from tokenizer import Tokenizer

_BLOCK_BYTES = 1 << 22

tokenizer = LazyGroup(
    "tokenizer",
    lazy={
        "train": ("glm_data.cli.tokenizer_train:train", "Train a bilingual tokenizer on documents."),
        "report": ("glm_data.cli.tokenizer_report:report", "Measure a tokenizer on texts, beside others."),
        "encode": ("glm_data.cli.tokenizer:encode", "Show the pieces and ids of a text."),
        "export": ("glm_data.cli.tokenizer:export", "Write the vocabulary as tokenizer.json of Hugging Face."),
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
    help="Show the pieces and ids of TEXT ('-' reads standard input). With --lines, every line of standard input is a "
    "text of its own, and one line of ids is written for each.",
    example="""
        glm-data tokenizer encode run/tokenizer "The quick brown fox"
        glm-data tokenizer encode run/tokenizer --lines < texts.txt | glm-data tokenizer decode run/tokenizer --lines
    """,
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("text", required=False)
@click.option("--lines", is_flag=True, help="Encode standard input line by line.")
@output_options
def encode(folder: Path, text: str | None, lines: bool, as_json: bool, quiet: bool) -> None:
    """Print ids, and pieces beside them."""
    if (text is None) != lines:
        raise UsageError("give a text ('-' for standard input), or --lines to encode standard input line by line.")
    model = _load(folder)
    if text is None:
        _encode_lines(model)
        return
    output = Output(as_json=as_json, quiet=quiet)
    given = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if text == "-" else text
    ids = [int(token) for token in model.encode(_checked(given))]
    pieces = [model.decode([token]) for token in ids]
    output.value({"ids": ids, "pieces": pieces})
    output.answer(" ".join(map(str, ids)))
    output.say("|".join(pieces))
    output.say(f"{len(ids)} tokens", dim=True)


def _load(folder: Path) -> Tokenizer:
    from glm_data.packing.tokenized import load_tokenizer

    return load_tokenizer(folder)


def _checked(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError("standard input is not UTF-8; convert it first (iconv -f GB18030 -t UTF-8, for one).")
    return text


def _encode_lines(model: Tokenizer) -> None:
    while lines := sys.stdin.buffer.readlines(_BLOCK_BYTES):
        texts = [_checked(line.decode("utf-8", "surrogateescape").removesuffix("\n")) for line in lines]
        ids, offsets = model.encode_batch(texts)
        for first, last in pairwise(offsets.tolist()):
            click.echo(" ".join(map(str, ids[first:last].tolist())))


def _decode_lines(model: Tokenizer) -> None:
    for number, line in enumerate(sys.stdin, 1):
        try:
            ids = [_token(word, model.vocab_size) for word in line.replace(",", " ").split()]
        except UsageError as error:
            raise UsageError(f"line {number} of standard input: {error}") from None
        sys.stdout.buffer.write(model.decode_bytes(ids) + b"\n")
    sys.stdout.buffer.flush()


@click.command(
    "export",
    cls=Command,
    help="Write FILE, a tokenizer.json for Hugging Face's tokenizers, once a probe set has the same ids there.",
    example="glm-data tokenizer export run/tokenizer hf/tokenizer.json",
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@output_options
def export(folder: Path, file: Path, as_json: bool, quiet: bool) -> None:
    """Prove and write."""
    from glm_data import files
    from tokenizer import TokenizerError, huggingface

    output, model = Output(as_json=as_json, quiet=quiet), _load(folder)
    try:
        written = huggingface.tokenizer_json(model)
        differs = huggingface.first_difference(model, written)
    except TokenizerError as error:
        raise UsageError(str(error)) from None
    except ImportError:
        raise UsageError("to prove the ids, this needs tokenizers: pip install 'glm-data[hf]'.") from None
    if differs is not None:
        raise GlmDataError(f"tokenizers would read {differs[:60]!r} otherwise than SentencePiece; nothing was written.")
    files.write_bytes(file, written.encode())
    output.value({"file": str(file), "pieces": model.pieces, "fingerprint": model.fingerprint})
    output.say(f"wrote {file}: {model.pieces:,} pieces, the same ids on the probe set")


@click.command(
    "decode",
    cls=Command,
    help="Turn IDS, numbers separated by spaces or commas, back into text ('-' reads standard input). With "
    "--lines, every line of standard input is the ids of one text.",
    example="glm-data tokenizer decode run/tokenizer 311 452 17",
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("ids", nargs=-1)
@click.option("--lines", is_flag=True, help="Decode standard input line by line.")
@output_options
def decode(folder: Path, ids: tuple[str, ...], lines: bool, as_json: bool, quiet: bool) -> None:
    """Print the text of ids."""
    if (not ids) != lines:
        raise UsageError("give ids ('-' for standard input), or --lines to decode standard input line by line.")
    model = _load(folder)
    if lines:
        _decode_lines(model)
        return
    output = Output(as_json=as_json, quiet=quiet)
    given = sys.stdin.read() if ids == ("-",) else " ".join(ids)
    numbers = [_token(word, model.vocab_size) for word in given.replace(",", " ").split()]
    text = model.decode(numbers)
    output.value({"text": text})
    output.answer(text)


def _token(word: str, size: int) -> int:
    if not word.isdecimal() or int(word) >= size:
        raise UsageError(f"'{word}' is not a token id of this tokenizer; ids are whole numbers from 0 to {size - 1}.")
    return int(word)
