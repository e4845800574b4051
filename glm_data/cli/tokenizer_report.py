"""``glm-data tokenizer report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, visible
from glm_data.cli.shell import Command

_SHOWN_PIECES = 60


@click.command(
    "report",
    cls=Command,
    help="Measure a tokenizer on documents, by kind of text and beside other SentencePiece models.",
    example="""
        glm-data tokenizer report run/tokenizer run/dedupe
        glm-data tokenizer report run/tokenizer held-out.jsonl --beside other.model --html tokenizer.html
    """,
)
@click.argument("folder", type=EXISTING_FOLDER)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    "--beside",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Another model to compare; repeatable.",
)
@click.option(
    "--sample",
    type=click.FloatRange(0.001, 1e6),
    default=2.0,
    show_default=True,
    help="MB of each kind of text to measure on.",
)
@click.option("--format", "form", default="auto", show_default=True, help="Format of the inputs.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with coloured pieces here.")
@output_options
def report(
    folder: Path,
    inputs: tuple[str, ...],
    beside: tuple[Path, ...],
    sample: float,
    form: str,
    html: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print tables, or JSON; write a page on request."""
    from glm_data import files
    from glm_data.packing.tokenized import load_tokenizer
    from glm_data.stage import find_inputs
    from glm_data.vocabulary import report as reports

    output = Output(as_json=as_json, quiet=quiet)
    texts = reports.sample(find_inputs(inputs), form, int(sample * 1e6))
    found = reports.report(load_tokenizer(folder), str(folder), beside, texts)
    output.value(found)
    _show(output, found)
    if html is not None:
        files.write_bytes(html, reports.page(found).encode("utf-8", "replace"))
        output.say(f"\nwrote {html}")


def _show(output: Output, found: Mapping[str, Any]) -> None:
    kinds = list(found["kinds"][found["tokenizer"]["name"]])
    shown = (
        ("bytes a token", "bytes_per_token", "{:.2f}"),
        ("characters a token", "characters_per_token", "{:.2f}"),
        ("pieces of bytes", "byte_pieces", "{:.2%}"),
        ("unknown", "unknown", "{:.2%}"),
    )
    for title, field, form in shown:
        rows = [[name, *(form.format(by[kind][field]) for kind in kinds)] for name, by in found["kinds"].items()]
        if field == "bytes_per_token":
            published = found["icetk_bytes_per_token"]
            rows.append(["icetk, published", *(f"{published[kind]}" if kind in published else "" for kind in kinds)])
        _table(output, [title, *kinds], rows)
    exact = [
        [name, *(f"{by[kind]['round_trips']}/{by[kind]['documents']}" for kind in kinds)]
        for name, by in found["kinds"].items()
    ]
    _table(output, ["come back exactly", *kinds], exact)
    sizes = [[f"{int(size):,}", *(f"{by[kind]:.2f}" for kind in kinds)] for size, by in found["curve"].items()]
    _table(output, ["bytes a token by pieces", *kinds], sizes)
    bands = [[name, *(f"{b['from']}-{b['to']}: {b['covered']}" for b in by)] for name, by in found["han"].items()]
    _table(output, ["Han with a piece, by rank"], bands)
    output.say("\nvocabulary: " + ", ".join(f"{name} {count:,}" for name, count in found["scripts"].items()))
    output.say("longest pieces: " + " ".join(map(visible, found["longest"])))
    output.say("documents with the fewest bytes a token:")
    for item in found["worst"]:
        output.say(f"  {item['bytes_per_token']:.2f}  {item['kind']}  {visible(item['id'])}")
    output.say("texts in pieces, those of bytes in red:")
    if not (output.as_json or output.quiet):
        _show_pieces(found["samples"])


def _show_pieces(samples: Mapping[str, Sequence[tuple[str, bool]]]) -> None:
    """Pieces with bars between them."""
    from itertools import chain, islice

    from glm_data.cli.paint import paint, print_text
    from glm_data.viewer.styled import Span
    from glm_data.viewer.tokenizers import pieces_of

    for kind, parts in samples.items():
        shown = islice(pieces_of(parts), _SHOWN_PIECES)
        bars = chain.from_iterable([*piece, Span("|", "dim")] for piece in shown)
        print_text(paint([Span(f"{kind}: ", "dim"), *bars]), indent=2)


def _table(output: Output, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    columns = max(len(row) for row in (head, *rows))
    padded = [[*row, *[""] * (columns - len(row))] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in padded) for column in range(columns)]
    output.say("")
    for number, row in enumerate(padded):
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        output.say("  ".join(cells).rstrip(), bold=number == 0)
