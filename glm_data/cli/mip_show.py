"""``glm-data mip show`` and ``glm-data mip packs``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import Command
from glm_data.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from glm_data.mip.render import Refused, Rendered
    from glm_data.mip.subjects import Subject
    from glm_data.mip.templates import Template
    from glm_data.viewer.mip import RenderedView


@click.command(
    "show",
    cls=Command,
    help="Show what templates make of a row. WHAT is a bundled pack such as zh/sentiment, a templates.yaml (or its "
    "folder), or with --mixture one of its data sets. Packs have rows of their own; for other files give --rows.",
    example="""
        glm-data mip show zh/sentiment
        glm-data mip show zh/inference --template 真的假的 --row 2
        glm-data mip show village_reviews --mixture manifests/demo/mip/mixture.yaml --row 7
    """,
)
@click.argument("what")
@click.option("--mixture", help="The mixture that WHAT is a data set of.")
@click.option(
    "--rows", type=click.Path(exists=True, path_type=Path), help="Rows to show: JSON lines, parquet, CSV, ..."
)
@click.option("--split", default="train", show_default=True, help="Split of the rows, for folders that hold several.")
@click.option("--template", "wanted", help="Show this template only: its name or id.")
@click.option("--row", "number", type=click.IntRange(min=0), default=0, show_default=True, help="Number of the row.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of what templates draw at random.")
@output_options
def show(
    what: str,
    mixture: str | None,
    rows: Path | None,
    split: str,
    wanted: str | None,
    number: int,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print prompt and target of every template."""
    from glm_data.mip.mixture import find_mixture
    from glm_data.mip.render import render_prepared
    from glm_data.mip.subjects import subject, subject_of
    from glm_data.viewer.mip import view_outcome

    if mixture is not None and rows is not None:
        raise UsageError("a data set of a mixture has rows of its own; give --rows or --mixture, not both.")
    found = subject_of(what, find_mixture(mixture)) if mixture is not None else subject(what, rows, split)
    row = _row(found, number)
    output, told = Output(as_json=as_json, quiet=quiet), []
    output.say(f"{visible(found.name)}, row {number}", bold=True)
    for template in _templates(found, wanted):
        dataset = found.dataset
        outcome = render_prepared(
            template, row, dataset=dataset.name, subset=dataset.subset, number=number, seed=seed, label=dataset.label
        )
        told.append(_told(template, outcome))
        if not (as_json or quiet):
            _print(output, template, view_outcome(number, row, outcome), found.blocked.get(template.id))
    output.value(told)


def _row(found: Subject, number: int) -> dict[str, Any]:
    last = -1
    for last, row in found.rows():
        if last == number:
            return row
    if last < 0:
        raise UsageError(
            f"'{found.name}' has no rows of its own to show; give some with --rows."
            if found.path is None
            else f"'{found.path}' holds no row that can be read; give other rows."
        )
    if last > number:
        raise UsageError(f"row {number} of '{found.name}' cannot be read; give another --row.")
    raise UsageError(f"'{found.name}' has {last + 1} rows, so there is no row {number}; give a lower --row.")


def _templates(found: Subject, wanted: str | None) -> list[Template]:
    templates = list(found.file.templates.values())
    if wanted is None:
        return templates
    chosen = [item for item in templates if wanted in (item.id, item.name)]
    if not chosen:
        known = [item.name for item in templates]
        hint = did_you_mean(wanted, known) or f" Templates: {', '.join(known)}."
        raise UsageError(f"'{found.name}' has no template '{wanted}'.{hint}")
    return chosen


def _told(template: Template, outcome: Rendered | Refused) -> dict[str, Any]:
    return {"template": template.id, "name": template.name, **outcome._asdict()}


def _print(output: Output, template: Template, shown: RenderedView, blocked: str | None) -> None:
    from glm_data.cli.paint import print_lines

    about = ", ".join(part for part in (template.metadata.task, template.language) if part)
    output.say(f"\n{visible(template.name)}" + (f"  ({about})" if about else ""), bold=True)
    if blocked is not None:
        output.say(f"  blocked: {visible(blocked)}", fg="yellow")
    if shown.reason:
        detail = f": {visible(shown.detail)}" if shown.detail else ""
        output.say(f"  nothing ({shown.reason}{detail})", fg="yellow")
        return
    print_lines(shown.prompt, "  ", "  ")
    print_lines(shown.target, "  => ", "     ", "green")
    if shown.choices:
        choices = ("".join(span.text for span in choice) for choice in shown.choices[:12])
        output.say(f"  of {', '.join(choices)}{' ...' if len(shown.choices) > 12 else ''}", dim=True)


@click.command(
    "packs",
    cls=Command,
    help="List the bundled packs of templates, with what a mixture must give each as columns.",
    example="glm-data mip packs",
)
@output_options
def packs(as_json: bool, quiet: bool) -> None:
    """Print a line a pack."""
    from glm_data.mip.subjects import subject
    from glm_data.mip.templates import packs as names

    output = Output(as_json=as_json, quiet=quiet)
    found = [subject(name).file for name in names()]
    listed = list(zip(names(), found, strict=True))
    output.value(
        {name: {"task": file.task, "templates": len(file.templates), "fields": file.fields} for name, file in listed}
    )
    head = ("pack", "templates", "task", "columns")
    rows = [(name, str(len(file.templates)), file.task, ", ".join(file.fields)) for name, file in listed]
    for number, line in enumerate(table([head, *rows])):
        output.say(line, bold=number == 0)
