"""``glm-data diff``: what two runs did differently, and to whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options, table, visible
from glm_data.cli.shell import Command

_MOST = 20


@click.command(
    "diff",
    cls=Command,
    help="Compare two runs, or two stages of one kind: options, inputs, counts and results stage by stage, and some "
    "documents that only one of them kept, with what the other did with them.",
    example="""
        glm-data diff my-run my-other-run
        glm-data diff my-run my-other-run --all --json
    """,
)
@click.argument("first", metavar="RUN_A", type=EXISTING_FOLDER)
@click.argument("second", metavar="RUN_B", type=EXISTING_FOLDER)
@click.option("--all", "everything", is_flag=True, help=f"Every change, not the first {_MOST} of a stage.")
@output_options
def diff(first: Path, second: Path, everything: bool, as_json: bool, quiet: bool) -> None:
    """Print the differences."""
    from glm_data.report.compare import compare

    output = Output(as_json=as_json, quiet=quiet)
    told = compare(first, second)
    output.value(told)
    if as_json or quiet:
        return
    if told["same"]:
        output.say("the same in every stage, byte for byte", bold=True)
        return
    for stage, found in told["stages"].items():
        for line in _lines(stage, found, None if everything else _MOST):
            output.say(line)


def _lines(stage: str, found: dict[str, Any], most: int | None) -> Iterator[str]:
    title = click.style(stage, bold=True)
    if "only" in found:
        yield f"{title}  only in {'RUN_A' if found['only'] == 'first' else 'RUN_B'}"
        return
    changed = found["options"] or found["inputs"]
    result = "the same result" if found["same"] else "another result"
    yield f"{title}  {result}" + ("" if changed or found["same"] else ", of the same options and inputs by name")
    rows = [("  option", *map(_shown, change)) for change in found["options"][:most]]
    rows += [("  input", name, *_input(before, after)) for name, before, after in found["inputs"][:most]]
    rows += [("  count", name, _shown(before), _shown(after)) for name, before, after in found["counts"][:most]]
    yield from table([(*row[:2], f"{row[2]} -> {row[3]}") for row in rows]) if rows else ()
    for part in ("options", "inputs", "counts"):
        if most is not None and len(found[part]) > most:
            yield f"  and {len(found[part]) - most:,} more {part}; --all shows them"
    yield from _documents(found["documents"])


def _documents(documents: Sequence[dict[str, str]]) -> Iterator[str]:
    for item in documents:
        keeper, other = ("RUN_A", "RUN_B") if item["kept_by"] == "first" else ("RUN_B", "RUN_A")
        yield f"  kept by {keeper} alone: {visible(item['id'])}; {other}: {visible(item['other'])}"


def _input(before: str | None, after: str | None) -> tuple[str, str]:
    return ("there" if before else "none", ("changed" if before else "there") if after else "none")


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.4g}"
    return f"{value:,.0f}" if isinstance(value, int | float) else visible(str(value))
