"""``glm-data mip report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glm_data.cli.fields import EXISTING_FILE, EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import Command

if TYPE_CHECKING:
    from glm_data.mip.summary import Summary
    from glm_data.mip.tally import TemplateTally


@click.command(
    "report",
    cls=Command,
    help="Say what a rendered mixture holds: samples and tokens by data set and language; of every template its rows, "
    "what became of them, lengths and three samples. With --against, how many samples hold items of evaluation sets "
    "(grams of 13 words or 24 Chinese characters that cover half of an item).",
    example="""
        glm-data mip report run/mip
        glm-data mip report run/mip --samples --against evaluation.yaml
    """,
)
@click.argument("run", type=EXISTING_FOLDER)
@click.option("--against", type=EXISTING_FILE, help="Manifest of evaluation sets with the files of their items.")
@click.option("--samples/--no-samples", default=False, help="Show three samples of every template.")
@output_options
def report(run: Path, against: Path | None, samples: bool, as_json: bool, quiet: bool) -> None:
    """Print tables, or JSON."""
    from glm_data.mip.summary import summarize

    output = Output(as_json=as_json, quiet=quiet)
    found = summarize(run, against)
    output.value(found)
    output.say(f"{found.records:,} rows x templates, {found.kept:,} samples, {found.tokens:,} tokens", bold=True)
    if found.missing:
        output.say(f"left out, as their rows or templates are not there: {', '.join(map(visible, found.missing))}")
    _print_amounts(output, found)
    _print_templates(output, found)
    if found.leaks is not None:
        _print_leaks(output, found)
    if samples:
        for tally in found.templates:
            _print_samples(output, tally)


def _print_amounts(output: Output, found: Summary) -> None:
    for title, amounts in (("data set", found.datasets), ("language", found.languages)):
        cells = [
            (visible(name), f"{it.samples:,}", f"{it.tokens:,}", f"{it.share:.2%}") for name, it in amounts.items()
        ]
        _print_table(output, [(title, "samples", "tokens", "share"), *cells])
    counts = ", ".join(f"{shots} {count:,}" for shots, count in found.shots.items())
    output.say(f"\nsamples by worked examples: {counts}")


def _print_templates(output: Output, found: Summary) -> None:
    head = ("template", "rows", "kept", "empty", "not in choices", "label -1", "over-long", "duplicates", "other",
            "prompt", "target")  # fmt: skip
    for dataset in found.datasets:
        own = [tally for tally in found.templates if tally.dataset == dataset]
        output.say(f"\n{visible(dataset)}", bold=True)
        _print_table(output, [head, *(_template_row(tally) for tally in own)], space=False)
        for id, reason in found.blocked.get(dataset, {}).items():
            output.say(f"  blocked: {visible(id)}: {visible(reason)}", fg="yellow")


def _template_row(tally: TemplateTally) -> tuple[str, ...]:
    gone = tally.dropped
    empty = gone.get("empty_prompt", 0) + gone.get("empty_target", 0)
    hidden, copies = gone.get("hidden_label", 0), gone.get("duplicate", 0)
    rest = {name: count for name, count in gone.items() if name not in _COLUMNS}
    other = ", ".join(f"{name} {count:,}" for name, count in sorted(rest.items()))
    means = (f"{total / max(1, tally.kept):.0f}" for total in (tally.prompt_characters, tally.target_characters))
    counts = (tally.rows, tally.kept, empty, tally.not_in_choices, hidden, tally.over_long, copies)
    return (visible(tally.name), *(f"{count:,}" for count in counts), other, *means)


_COLUMNS = frozenset({"empty_prompt", "empty_target", "hidden_label", "duplicate"})
"""Reasons with a column of their own."""


def _print_leaks(output: Output, found: Summary) -> None:
    if not found.leaks:
        output.say("\nno sample holds an item of the evaluation sets", fg="green")
        return
    head = ("data set", "benchmark", "samples", "items", "first")
    rows = [
        (visible(it.dataset), visible(it.benchmark), f"{it.samples:,}", f"{it.items:,}", visible(it.examples[0]))
        for it in found.leaks
    ]
    _print_table(output, [head, *rows])


def _print_samples(output: Output, tally: TemplateTally) -> None:
    for sample in tally.samples:
        output.say(f"\n{visible(sample.id)}  ({visible(tally.name)})", bold=True)
        for line in sample.prompt.split("\n"):
            output.say(f"  {visible(line)}")
        output.say(f"  => {visible(sample.target)}", fg="green")


def _print_table(output: Output, rows: Sequence[Sequence[str]], *, space: bool = True) -> None:
    if space:
        output.say("")
    for number, line in enumerate(table(rows)):
        output.say(f"  {line}", bold=number == 0)
