"""What a command says: results on standard output (tables, or JSON with ``--json``), the rest on standard error."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from glm_data import files
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, colour_choice
from glm_data.stage import PLAN, RUN, Check, Success
from glm_data.viewer.styled import visible as visible  # beside the rest that a command speaks with

_QUOTE = 60
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_STEERING = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
"""What JSON allows in a string as it is, but a terminal may act upon."""


class Output:
    """Where a command's words go, after ``--json`` and ``--quiet``."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet

    @property
    def is_live(self) -> bool:
        """Whether progress may be drawn: standard error is a terminal and nobody asked for quiet."""
        return not self.quiet and sys.stderr.isatty()

    def note(self, text: str, **style: Any) -> None:
        """Say something about the work on standard error; silent with ``--quiet``."""
        if not self.quiet:
            click.echo(click.style(text, **style) if style else text, err=True, color=colour_choice())

    def log(self, text: str) -> None:
        """A note with the time of day: a log line."""
        self.note(f"{time.strftime('%H:%M:%S')} {text}")

    def say(self, text: str = "", **style: Any) -> None:
        """Say something for the reader on standard output; silent with ``--quiet`` and with ``--json``."""
        if not (self.quiet or self.as_json):
            click.echo(click.style(text, **style) if style else text, color=colour_choice())

    def answer(self, text: str) -> None:
        """The text that was asked for: printed with ``--quiet`` too, but not with ``--json``."""
        if not self.as_json:
            click.echo(text, color=colour_choice())

    def value(self, value: Any) -> None:
        """The result for machines: printed with ``--json`` only, as one JSON document."""
        if self.as_json:
            click.echo(_STEERING.sub(_escape, json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=1)))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found.group()):04x}"


def output_options(function: FunctionT) -> FunctionT:
    """Decorate a command with ``--json`` and ``--quiet``; it receives them as ``as_json`` and ``quiet``."""
    function = click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")(function)
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")(
        function
    )


def show_stage(output: Output, folder: Path, success: Success, more: Mapping[str, Any] | None = None) -> int:
    """Print a finished stage's table (or JSON, with ``more``) and write its report; returns the exit code."""
    from glm_data.report import write_report

    said = {"folder": str(folder), "ok": success.ok, "seconds": seconds_of(folder), **_plain(success)}
    output.value({**said, **(more or {})})
    if not output.quiet and not output.as_json:
        rows = stage_rows(folder, success)
        width = max(len(name) for name, _ in rows)
        output.say(f"{success.stage} -> {folder}", bold=True)
        for name, value in rows:
            output.say(f"  {name:<{width}}  {value}")
    show_checks(output, success.stage, success.checks)
    output.say(f"  report: {write_report(folder)}", dim=True)
    return 0 if success.ok else GUARD_RAIL_EXIT_CODE


def show_checks(output: Output, stage: str, checks: Sequence[Check]) -> None:
    """Print guard rails; tripped ones are said on standard error even with ``--json`` and ``--quiet``."""
    for check in checks:
        if check.ok:
            output.say(f"  {click.style('ok', fg='green')} {check.sentence}")
        else:
            rail = click.style("guard rail", fg="red", bold=True)
            click.echo(f"  {rail} {stage}: {check.sentence}", err=True, color=colour_choice())


def _plain(success: Success) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(success)
    value.pop("files")
    return {**value, "files": len(success.files), "bytes": sum(item.bytes for item in success.files)}


def stage_rows(folder: Path, success: Success) -> list[tuple[str, str]]:
    """The summary of a finished stage as (name, value): what came in, what stayed, what went and why, how fast."""
    read, seconds = input_bytes(folder, success), seconds_of(folder)
    written = sum(item.bytes for item in success.files)
    rows = [("records", f"{success.records:,}"), ("kept", f"{success.kept:,}")]
    rows += [("dropped", _reasons(success.dropped)), ("unreadable", _reasons(success.unreadable))]
    rows += [("read", f"{megabytes(read)}"), ("written", f"{megabytes(written)} in {len(success.files)} files")]
    speed = f" ({read / 1e6 / seconds:.1f} MB/s)" if seconds and read else ""
    return [*rows, ("time", f"{seconds:.1f} s{speed}"), *_benchmark_rows(success)]


def _benchmark_rows(success: Success) -> list[tuple[str, str]]:
    """What decontamination found of each benchmark, with its fullest finding."""
    from glm_data.report.funnel import items_looked_for

    rows = []
    for name, fact in success.facts.get("benchmarks", {}).items():
        said = f"{fact['items_found']:,} of {items_looked_for(fact):,} items in {fact['documents']:,} documents"
        left_out = (("too short", fact["too_short"]), ("nothing but boilerplate", fact["common"]))
        said += "".join(f", {count:,} {what}" for what, count in left_out if count)
        if fact["spared_documents"]:
            said += f", {fact['spared_documents']:,} documents spared: common in the corpus"
        rows.append((name, said))
        rows += [("", f'{example["id"]}: "{_shorten(example["text"])}"') for example in fact["examples"][:1]]
    return rows


def _shorten(text: str) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= _QUOTE else text[:_QUOTE] + "…"


def _reasons(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    listed = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    detail = ", ".join(f"{reason} {count:,}" for reason, count in listed)
    return f"{total:,}" + (f"  ({detail})" if detail else "")


def input_bytes(folder: Path, success: Success) -> int:
    """Bytes of text that the stage read if it counted them, else bytes of its input files."""
    counted = success.counts.get("text_bytes_in")
    return counted if counted else sum(item["bytes"] for item in files.read_json(folder / PLAN)["inputs"])


def seconds_of(folder: Path) -> float:
    """Wall time of the run that finished the stage."""
    seconds: float = files.read_json(folder / RUN / "stage.json")["seconds"]
    return seconds


def megabytes(size: float) -> str:
    """``1.2 MB``, with the decimal unit that fits the size."""
    unit, scale = ("GB", 1e9) if size >= 1e9 else ("MB", 1e6) if size >= 1e5 else ("kB", 1e3)
    return f"{size / scale:.1f} {unit}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of cells by the width a terminal gives them (Chinese characters are two columns wide)."""
    from rich.cells import cell_len

    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return lines
