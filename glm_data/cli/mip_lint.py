"""``glm-data mip lint``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glm_data.cli.output import Output, output_options, visible
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command
from glm_data.errors import UsageError

if TYPE_CHECKING:
    from glm_data.mip.subjects import Subject

_COLOURS = {"error": "red", "warning": "yellow", "note": None}


@click.command(
    "lint",
    cls=Command,
    help="Check templates: that they parse and stay within the dialect, read columns that are there, have one "
    "separator and no twin, ask for hidden labels, and, on rows, that they apply and answer by their choices. WHAT are "
    "packs, templates.yaml files or folders with such files; --mixture checks its data sets on their rows. Ends with "
    "3 if there is an error.",
    example="""
        glm-data mip lint templates/
        glm-data mip lint templates/ag_news --rows ag_news.parquet
        glm-data mip lint --mixture manifests/demo/mip/mixture.yaml
    """,
)
@click.argument("what", nargs=-1)
@click.option("--mixture", help="Check the data sets of this mixture.")
@click.option("--rows", type=click.Path(exists=True, path_type=Path), help="Rows that the templates are for.")
@click.option("--split", default="train", show_default=True, help="Split of the rows, for folders that hold several.")
@click.option("--columns", default="", help="Names that templates may read, separated by commas, in place of rows.")
@click.option("--sample", type=click.IntRange(min=1), default=200, show_default=True, help="Rows to try.")
@click.option("--notes/--no-notes", default=False, help="Say also what is no fault, such as random choices.")
@output_options
def lint(
    what: tuple[str, ...],
    mixture: str | None,
    rows: Path | None,
    split: str,
    columns: str,
    sample: int,
    notes: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Print findings by file."""
    from glm_data.mip.lint import lint as check
    from glm_data.mip.subjects import first_rows

    output, told = Output(as_json=as_json, quiet=quiet), {}
    counts: Counter[str] = Counter()
    templates = 0
    for found in _subjects(what, mixture, rows, split):
        known = [name.strip() for name in columns.split(",") if name.strip()]
        given = first_rows(found, sample)
        findings = check(found.file, known, given, found.dataset.label)
        templates += len(found.file.templates)
        counts.update(item.level for item in findings)
        shown = [item for item in findings if notes or item.level != "note"]
        told[found.name] = shown
        for item in shown:
            level = click.style(item.level, fg=_COLOURS[item.level])
            output.say(f"{visible(found.name)}: {visible(item.template)}: {level} {item.check}: {visible(item.text)}")
    output.value(told)
    said = ", ".join(f"{counts[level]:,} {level}s" for level in _COLOURS)
    output.say(f"{templates:,} templates: {said}", bold=True)
    return GUARD_RAIL_EXIT_CODE if counts["error"] else 0


def _subjects(what: tuple[str, ...], mixture: str | None, rows: Path | None, split: str) -> list[Subject]:
    from glm_data.mip.mixture import find_mixture
    from glm_data.mip.subjects import subject, subjects_of

    if rows is not None and not what:
        raise UsageError("--rows is for templates that are named; a mixture's data sets are tried on their own rows.")
    found = subjects_of(find_mixture(mixture)) if mixture is not None else []
    for given in what:
        below = sorted(Path(given).rglob("*.yaml")) if Path(given).is_dir() else []
        found += [subject(str(path), rows, split) for path in below] or [subject(given, rows, split)]
    if not found:
        raise UsageError("nothing to check; give packs, templates.yaml files or folders, or --mixture.")
    return found
