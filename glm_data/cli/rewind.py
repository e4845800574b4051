"""``glm-data rewind``: from samples of a training run back to rows, documents and text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.inspect import text_of
from glm_data.cli.output import Output, output_options, visible
from glm_data.cli.shell import Command, require_torch
from glm_data.errors import UsageError

if TYPE_CHECKING:
    from glm_data.loading.provenance import Documents
    from glm_data.loading.rows import PackedRows
    from tokenizer import Tokenizer

_SHOWN_CHARACTERS, _MOST = 160, 100_000


def _range(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``FIRST:END``, or one number, as ``(first, end)``."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,18})(?::(\d{1,18}))?", value)
    if not found:
        raise click.BadParameter(f"'{value}' is no range; give FIRST:END, such as 800:808, or one number.", ctx, param)
    first = int(found.group(1))
    end = int(found.group(2)) if found.group(2) else first + 1
    if end <= first:
        raise click.BadParameter(f"'{value}' is empty; give FIRST:END with FIRST below END.", ctx, param)
    if end - first > _MOST:
        raise click.BadParameter(f"'{value}' is more than {_MOST:,} at once; give a shorter range.", ctx, param)
    return first, end


@dataclass(frozen=True)
class Wanted:
    """A row to show and what it was in the run: its step (from 1, as in metrics.jsonl) or sample, if it is known."""

    row: int
    sample: int | None = None
    step: int | None = None


@click.command(
    "rewind",
    cls=Command,
    help="Say which documents stood in the samples of a run: rows of PACK, the documents and MIP samples they were "
    "made of, and their text. For a spike in the loss: which text was it, and which rows to skip.",
    example="""
        glm-data rewind run/pack --run run/train --steps 120:122     # steps as in metrics.jsonl
        glm-data rewind run/pack --samples 800:808 --seed 1234       # places in the loader's order
        glm-data rewind run/pack --rows 17
    """,
)
@click.argument("pack", type=EXISTING_FOLDER)
@click.option("--rows", metavar="FIRST:END", callback=_range, help="Rows of the pack.")
@click.option(
    "--samples",
    metavar="FIRST:END",
    callback=_range,
    help="Samples in the order in which a loader gives out the pack's rows.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Seed of that order.")
@click.option("--epoch", type=click.IntRange(0, 2**31), default=0, show_default=True, help="Count from this epoch on.")
@click.option("--run", "run_folder", type=EXISTING_FOLDER, help="A train stage on this pack; with --steps.")
@click.option("--steps", metavar="FIRST:END", callback=_range, help="Steps of that run, from 1.")
@click.option(
    "--characters",
    type=click.IntRange(min=0),
    default=_SHOWN_CHARACTERS,
    show_default=True,
    help="Characters of text to show of each slice; 0 for all.",
)
@output_options
def rewind(pack: Path, characters: int, as_json: bool, quiet: bool, **given: Any) -> None:
    """Print the rows."""
    from glm_data.loading.provenance import Documents
    from glm_data.loading.rows import PackedRows
    from tokenizer import Tokenizer

    packed = PackedRows.open(pack)
    wanted = list(_wanted(packed, **given))
    model, documents = Tokenizer.load(pack), Documents(pack)
    output = Output(as_json=as_json, quiet=quiet)
    told = (tell_row(packed, documents, model, item, characters) for item in wanted)
    if as_json:
        output.value(list(told))
    elif not quiet:
        for item in told:
            _print_row(item)


def _wanted(packed: PackedRows, **given: Any) -> Iterator[Wanted]:
    from glm_data.loading.order import in_order

    ranges = [name for name in ("rows", "samples", "steps") if given[name]]
    if len(ranges) != 1:
        raise UsageError("what to rewind must be said in one way; give --rows, --samples or --run with --steps.")
    if (ranges == ["steps"]) != (given["run_folder"] is not None):
        raise UsageError("--run and --steps go together; give both, or --samples or --rows.")
    first, end = given[ranges[0]]
    if ranges == ["rows"]:
        if end > len(packed):
            raise UsageError(f"--rows {first}:{end} leaves '{packed.folder}', which has {len(packed)} rows.")
        yield from (Wanted(row) for row in range(first, end))
    elif ranges == ["samples"]:
        start = given["epoch"] * len(packed)
        rows = in_order(start + first, start + end, len(packed), given["seed"], packed.order).tolist()
        yield from (Wanted(row, sample) for sample, row in enumerate(rows, first))
    else:
        yield from _of_steps(packed, given["run_folder"], first, end)


def _of_steps(packed: PackedRows, run: Path, first: int, end: int) -> Iterator[Wanted]:
    """The rows of the steps ``first`` to ``end - 1`` of a train stage on this pack, finished or not."""
    require_torch()
    from glm_data.config import from_mapping
    from glm_data.training.batches import rows_of_samples, split_rows
    from glm_data.training.options import TrainOptions, step_bounds

    plan = _plan_of(run)
    if not {item.digest for item in packed.manifest.files} <= {item["digest"] for item in plan["inputs"]}:
        raise UsageError(f"'{run}' was not trained on '{packed.folder}'; give the pack that it was trained on.")
    options = from_mapping(plan["options"], TrainOptions, str(run))
    training, _ = split_rows(len(packed), options.held_out_rows)
    bounds = step_bounds(options, len(training))
    steps = len(bounds) - 1
    if first < 1 or end > steps + 1:
        raise UsageError(f"--steps {first}:{end} leaves the run, whose steps are 1 to {steps}.")
    for step in range(first, end):
        rows = rows_of_samples(bounds[step - 1], bounds[step], training, options.seed, packed.order)[0].tolist()
        yield from (Wanted(row, sample, step) for sample, row in enumerate(rows, bounds[step - 1]))


def _plan_of(run: Path) -> dict[str, Any]:
    """The plan of a train stage; :class:`UsageError` if ``run`` is none."""
    import msgspec

    from glm_data.files import read_json
    from glm_data.stage import PLAN

    try:
        plan: dict[str, Any] = read_json(run / PLAN)
    except (OSError, msgspec.DecodeError):
        raise UsageError(f"'{run}' is not the folder of a train stage (no readable {PLAN}); give one.") from None
    if plan["stage"] != "train":
        raise UsageError(f"'{run}' is the folder of a '{plan['stage']}' stage; give that of a train stage.")
    return plan


def tell_row(packed: PackedRows, documents: Documents, model: Tokenizer, wanted: Wanted, limit: int) -> dict[str, Any]:
    """One row as plain values: what it was in the run, and its slices with document, place and text.

    ``text`` has at most ``limit`` characters (0: all); ``characters`` says how many there are.
    """
    from glm_data.loading.provenance import slices_of

    slices = slices_of(packed, wanted.row)
    named = documents.named(item.document for item in slices)
    told = []
    for item in slices:
        text = text_of(item.ids, model)
        told.append(
            {
                "piece": item.piece,
                "kind": item.kind,
                **named[item.document],
                "offset": item.offset,
                "tokens": len(item.ids),
                "text": text[: limit or None],
                "characters": len(text),
            }
        )
    place = {"step": wanted.step, "sample": wanted.sample, "row": wanted.row}
    return {**{name: value for name, value in place.items() if value is not None}, "slices": told}


def _print_row(row: dict[str, Any]) -> None:
    from rich.text import Text

    from glm_data.cli.paint import COLOURS, NAMES, print_text

    names = [f"{name} {row[name]}" for name in ("step", "sample", "row") if name in row]
    print_text(Text(f"{', '.join(names)}: {len(row['slices'])} slices", "bold"))
    for item in row["slices"]:
        place = f"tokens {item['offset']}-{item['offset'] + item['tokens'] - 1}"
        head = Text("  ").append(NAMES[item["kind"]], COLOURS[item["kind"]])
        about = "  ".join(visible(item[name]) for name in ("source", "lang", "template") if item[name])
        head.append(f"  {visible(item['id'])}").append(f"  {about}  {place}", "dim")
        print_text(head)
        line = Text(visible(item["text"]))
        if item["characters"] > len(item["text"]):
            line.append(f" … {item['characters'] - len(item['text']):,} characters more", "dim")
        print_text(line, indent=4)
