"""``glm-data explain``: what became of one document, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import Command

if TYPE_CHECKING:
    from glm_data.inspection import Event, Life

STYLES = {"kept": "green", "tokenized": "green", "packed": "green", "unused": "yellow"}
_GONE = "red"
_CHARACTERS = 300


@click.command(
    "explain",
    cls=Command,
    help="Tell the life of a document: what every stage of RUN did with it, the reason and the measured value, the "
    "document it was removed for, and the packed rows that hold it. DOC_ID is the name of an input and the number of a "
    "record in it, as in the column 'id' of every stage. RUN is a run's folder or a single stage's.",
    example="""
        glm-data explain pile/00.jsonl.zst#17 my-run
        glm-data explain pile/00.jsonl.zst#17 my-run --json
    """,
)
@click.argument("doc_id")
@click.argument("run", type=EXISTING_FOLDER)
@click.option(
    "--characters",
    type=click.IntRange(min=0),
    default=_CHARACTERS,
    show_default=True,
    help="Characters of its text to show; 0 for all.",
)
@output_options
def explain(doc_id: str, run: Path, characters: int, as_json: bool, quiet: bool) -> None:
    """Print the document's life."""
    from glm_data.inspection import open_run, trace

    output = Output(as_json=as_json, quiet=quiet)
    life = trace(open_run(run), doc_id)
    if as_json:
        told: dict[str, Any] = msgspec.to_builtins(life)
        output.value({**told, "text": life.text[: characters or None], "characters": len(life.text)})
    elif not quiet:
        _print(output, life, run, characters)


def _print(output: Output, life: Life, run: Path, characters: int) -> None:
    known = ", ".join(filter(None, [life.source and f"source {life.source}", life.lang]))
    output.say(click.style(visible(life.id), bold=True) + (f"  {visible(known)}" if known else ""))
    width = max(len(event.stage) for event in life.events)
    for event in life.events:
        style = STYLES.get(event.outcome, _GONE)
        output.say(f"  {click.style(event.stage.ljust(width), fg=style)}  {visible(event.sentence)}")
        for line in _details(event):
            output.say(f"  {'':{width}}  {line}", dim=True)
    if life.unfinished:
        output.say(f"  not finished yet: {', '.join(life.unfinished)}", fg="yellow")
    removed = next((event for event in life.events if event.outcome == "removed"), None)
    if removed is not None and not removed.details.get("earlier"):
        output.say(
            f"  to go on with what stayed: glm-data explain {_quoted(removed.details['kept'])} {_quoted(str(run))}"
        )
    if life.text:
        _print_text(output, life.text, characters)


def _details(event: Event) -> list[str]:
    if event.outcome == "packed":
        slices = event.details["slices"]
        rows = [("row", "shard", "piece", "kind", "tokens of the document")]
        rows += [
            (str(item["row"]), f"{item['shard']}, row {item['row_in_shard']}", f"at {item['piece_start']}",
             item["kind"], f"{item['offset']}-{item['offset'] + item['tokens'] - 1}")
            for item in slices
        ]  # fmt: skip
        more = event.details["rows"] - len({item["row"] for item in slices})
        return table(rows) + ([f"and {more:,} more rows"] if more else [])
    if event.outcome == "kept" and event.details.get("removed_for_it"):
        listed = event.details["removed_for_it"]
        more = int(event.details.get("duplicates") or 0) - 1 - len(listed)
        return [f"stands for {visible(id)}" for id in listed] + ([f"and for {more:,} more"] if more > 0 else [])
    return []


def _quoted(text: str) -> str:
    """``text`` as a word to paste into a shell; what could steer a terminal is shown instead."""
    import shlex

    return shlex.quote(visible(text))


def _print_text(output: Output, text: str, characters: int) -> None:
    from rich.text import Text

    from glm_data.cli.paint import print_text

    shown = text[: characters or None]
    line = Text(visible(shown))
    if len(text) > len(shown):
        line.append(f" … {len(text) - len(shown):,} characters more", "dim")
    output.say()
    print_text(line, indent=2)
