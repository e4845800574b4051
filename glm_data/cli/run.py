"""``glm-data run``: the stages of a recipe, in order, each in a folder of its own."""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec

from glm_data import files
from glm_data import recipe as recipes
from glm_data.cli.completions import Completion, complete
from glm_data.cli.fields import FOLDER, build
from glm_data.cli.output import Output, megabytes, output_options, seconds_of, show_checks, stage_rows, table
from glm_data.cli.progress import follow
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command, require_torch
from glm_data.cli.stages import command_line, finished_key, note_origin, runner_type
from glm_data.errors import InterruptedRunError, UsageError
from glm_data.recipe import Loaded, Step
from glm_data.stage import Check, Success


@dataclass
class Outcome:
    """What a run made: finished stages in order, and the completions of the recipe's prompts."""

    folder: Path
    stages: dict[str, Success] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    """The report's checks of the stages against each other."""
    page: Path | None = None
    """The report's page."""

    @property
    def ok(self) -> bool:
        """Whether no guard rail of any stage tripped and the stages fit together."""
        return all(success.ok for success in self.stages.values()) and all(check.ok for check in self.checks)


@click.command(
    "run",
    cls=Command,
    resumes=True,
    help="Run a recipe: its stages in order, each in a folder of its own below --out. RECIPE is a YAML file, or the "
    "name of a bundled one. Run again to go on after an interruption: what is finished is kept.",
    example="""
        glm-data run my-recipe.yaml --out my-run
        glm-data run my-recipe.yaml --out my-run --until pack --workers 8
    """,
)
@click.argument("recipe")
@click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The run's folder.")
@click.option("--until", type=click.Choice(recipes.STAGES), help="Stop after this stage.")
@click.option("--workers", type=int, help="Worker processes of corpus stages; 0 means as many as pay.")
@click.option("--runner", help="Beam runner of corpus stages: local, portable, dask, flink, spark, dataflow.")
@click.option("--overwrite", is_flag=True, help="Do again the stages whose options or inputs have changed.")
@output_options
def run(recipe: str, out: Path, as_json: bool, quiet: bool, **given: Any) -> int:
    """Run and print the summary."""
    from pipelines.lean import lean_imports

    output = Output(as_json=as_json, quiet=quiet)
    with lean_imports():
        outcome = run_recipe(recipes.load(find_recipe(recipe)), out, output, **given)
    show_outcome(output, outcome)
    return 0 if outcome.ok else GUARD_RAIL_EXIT_CODE


def find_recipe(given: str) -> Path:
    """The recipe's path: a file, else a bundled recipe of that name."""
    path = Path(given)
    if path.is_file() or path.suffix:
        return path
    import manifests

    try:
        return manifests.path(f"{given}.yaml")
    except FileNotFoundError:
        known = ", ".join(manifests.names())
        raise UsageError(f"there is no recipe '{given}': neither a file nor a bundled one ({known}).") from None


def run_recipe(
    loaded: Loaded,
    folder: Path,
    output: Output,
    *,
    until: str | None = None,
    workers: int | None = None,
    runner: str | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Run a recipe in ``folder`` up to ``until``; writes the report and returns what was made."""
    steps = _until(list(recipes.steps(loaded, folder)), until, loaded)
    if any(step.stage in recipes.NEEDS_TORCH for step in steps):
        require_torch()
    runner_options = build(runner_type(), {"workers": workers, "runner": runner}, loaded.recipe.runner or {})
    outcome = Outcome(folder)
    with _saying_how_to_go_on(loaded, folder):
        _write_demo_input(loaded, folder, output)
        for number, step in enumerate(steps, 1):
            output.say(f"[{number}/{len(steps)}] {step.stage}", bold=True)
            output.say(f"  {command_line(step, loaded.path)}", dim=True)
            outcome.stages[step.stage] = _perform(step, loaded, runner_options, output, overwrite)
        if until is None and loaded.recipe.infill:
            model = recipes.model_folder(loaded, folder)
            outcome.completions = complete(model, loaded.recipe.infill, loaded.generation)
    _write_report(outcome)
    return outcome


def _until(steps: list[Step], until: str | None, loaded: Loaded) -> list[Step]:
    names = [step.stage for step in steps]
    if until is None:
        return steps
    if until not in names:
        raise UsageError(f"--until {until}: '{loaded.path}' has no such stage; it has {', '.join(names)}.")
    return steps[: names.index(until) + 1]


@contextlib.contextmanager
def _saying_how_to_go_on(loaded: Loaded, folder: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, InterruptedRunError):
        command = shlex.join(["glm-data", "run", str(loaded.path), "--out", str(folder)])
        raise InterruptedRunError(f"interrupted; what is finished is kept. To go on: {command}") from None


def _write_demo_input(loaded: Loaded, folder: Path, output: Output) -> None:
    if loaded.recipe.demo_input is None:
        return
    from glm_data.demo_input import write_demo_input

    files.remove_temporaries(folder / recipes.RAW)
    summary = write_demo_input(folder / recipes.RAW, loaded.recipe.demo_input.seed)
    output.say(f"{sum(summary.values()):,} raw records -> {folder / recipes.RAW}", bold=True)
    kinds: Counter[str] = Counter()
    for kind, count in summary.items():
        kinds[kind.partition("/")[0].replace("_", " ")] += count
    output.say(f"  {', '.join(f'{kind} {count:,}' for kind, count in kinds.most_common())}", dim=True)


def _perform(step: Step, loaded: Loaded, runner: Any, output: Output, overwrite: bool) -> Success:
    from glm_data.report import write_report

    before = finished_key(step.out)
    with follow(output, step.out, step.stage):
        success = recipes.perform(step, runner, overwrite=overwrite)
    if success.key == before:
        output.say(f"  already done, {success.kept:,} records")
    else:
        rows = stage_rows(step.out, success)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            output.say(f"  {name:<{width}}  {value}")
    show_checks(output, success.stage, success.checks)
    note_origin(step, loaded.given(step.stage), (), str(loaded.path))
    write_report(step.out)
    return success


# --- the report -------------------------------------------------------------------------------------------------------


def _write_report(outcome: Outcome) -> None:
    """Write what the model made of the prompts, and the report, which also checks the stages against each other."""
    from glm_data import report
    from glm_data.report.collect import INFILL

    if outcome.completions:
        files.write_json(outcome.folder / INFILL, outcome.completions)
    outcome.page = report.write_report(outcome.folder)
    checks = files.read_json(outcome.folder / report.REPORT_JSON)["checks"]
    outcome.checks = [
        Check(name=check["name"], ok=check["ok"], sentence=check["sentence"])
        for check in checks
        if check["stage"] == "report"
    ]


def _reported(success: Success) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(success)
    return {name: item for name, item in value.items() if name not in ("files", "version", "stage")}


def show_outcome(output: Output, outcome: Outcome) -> None:
    """Print the funnel, the completions and where to look; or everything as JSON."""
    output.value(
        {
            "folder": str(outcome.folder),
            "ok": outcome.ok,
            "seconds": {name: seconds_of(outcome.folder / name) for name in outcome.stages},
            "stages": {name: _reported(success) for name, success in outcome.stages.items()},
            "checks": outcome.checks,
            "completions": outcome.completions,
            "report": str(outcome.page),
        }
    )
    show_checks(output, "report", outcome.checks)
    if output.as_json or output.quiet:
        return
    output.say()
    for line in table(_summary(outcome)):
        output.say(line)
    if outcome.completions:
        output.say()
        show_completions(output, outcome.completions)
    output.say(f"\nReport: {outcome.page}")


def _summary(outcome: Outcome) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("stage", "records", "kept", "written", "seconds", "checks")]
    for name, success in outcome.stages.items():
        written = sum(item.bytes for item in success.files)
        tripped = sum(not check.ok for check in success.checks)
        checks = f"{tripped} tripped" if tripped else f"{len(success.checks)} ok" if success.checks else ""
        seconds = f"{seconds_of(outcome.folder / name):.1f}"
        rows.append((name, f"{success.records:,}", f"{success.kept:,}", megabytes(written), seconds, checks))
    return rows


def show_completions(output: Output, completions: list[Completion]) -> None:
    """Print each prompt with what the model put into it."""
    for completion in completions:
        output.say("  " + completion.shown())
