"""What the commands of stages share: their common options, and performing one step with progress and a table."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from glm_data import recipe as recipes
from glm_data.cli.fields import EXISTING_FILE, FOLDER, build, flags, listed_options
from glm_data.cli.output import Output, output_options, show_stage
from glm_data.cli.progress import follow
from glm_data.cli.shell import Command
from glm_data.config import in_flags
from glm_data.config import options as options_of
from glm_data.errors import GlmDataError, UsageError
from glm_data.manifest import RUN
from glm_data.recipe import Step
from glm_data.stage import read_success

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True)
class After:
    """What a command says beyond its stage: found when the stage is finished, added to the JSON, shown as text."""

    find: Callable[[Step, Mapping[str, Any]], dict[str, Any]]
    """Takes the step and what was given on the command line."""
    show: Callable[[Output, dict[str, Any]], None]


def stage_command(
    name: str,
    stage: str,
    *,
    help: str,
    example: str,
    group: click.Group | None = None,
    branches: Mapping[str, tuple[str, str]] | None = None,
    after: After | None = None,
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function that returns the inputs of a :class:`Step`.

    The command has the options of the stage's struct, ``--out``, ``--overwrite``, ``--recipe``, ``--json``, ``--quiet``
    and, for corpus stages, those of the runner. What the function itself takes is declared below this decorator; it
    returns the keyword arguments ``inputs``, ``tokenizer``, ``mip``, ``pack`` of the step. ``after`` adds to what is
    shown of the finished stage.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        def command(**given: Any) -> int:
            from pipelines.lean import lean_imports

            output = Output(as_json=given.pop("as_json"), quiet=given.pop("quiet"))
            with lean_imports():
                return _command(stage, function, given, output, after)

        decorated = _stage_options(stage, command)
        # Click shows what was added last first.
        decorated.__click_params__ += _own_parameters(function)  # type: ignore[attr-defined]
        settings = {"help": help, "example": example, "branches": branches, "resumes": True}
        made: click.Command = click.command(name, cls=Command, **settings)(decorated)
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def _own_parameters(function: Callable[..., Any]) -> list[click.Parameter]:
    """What click's decorators declared on ``function`` itself."""
    return list(getattr(function, "__click_params__", []))


def _stage_options(stage: str, function: FunctionT) -> FunctionT:
    function = output_options(function)
    if stage in recipes.CORPUS_STAGES:
        function = listed_options("runner")(function)
    function = listed_options(stage)(function)
    function = click.option(
        "--recipe", type=EXISTING_FILE, help=f"Take the options from this recipe's section '{stage}'; flags go first."
    )(function)
    function = click.option("--overwrite", is_flag=True, help="Start afresh where other settings had begun.")(function)
    return click.option("--out", "--output", "-o", required=True, type=FOLDER, help="The stage's folder.")(function)


def runner_type() -> type[msgspec.Struct]:
    """The options of the runner."""
    from pipelines.runner import RunnerOptions

    return RunnerOptions


def _command(
    stage: str, function: Callable[..., Any], given: dict[str, Any], output: Output, after: After | None
) -> int:
    own = {str(parameter.name): given[str(parameter.name)] for parameter in _own_parameters(function)}
    inputs: Mapping[str, Any] = function(**own)
    base = recipes.section(given["recipe"], stage) if given["recipe"] else {}
    options = build(recipes.options_type(stage), given, base)
    step = Step(stage=stage, out=given["out"], options=options, **inputs)
    runner = build(runner_type(), given) if stage in recipes.CORPUS_STAGES else None
    try:
        with follow(output, step.out, stage):
            success = recipes.perform(step, runner, overwrite=given["overwrite"])
    except UsageError as error:
        raise type(error)(in_flags(str(error), type(options))) from None
    by_flag = [item.name for item in options_of(type(options)) if given.get(item.name) not in (None, ())]
    note_origin(step, base, by_flag, str(given["recipe"] or ""))
    more = after.find(step, given) if after else {}
    code = show_stage(output, step.out, success, more)
    if after:
        after.show(output, more)
    return code


def note_origin(step: Step, section: Iterable[str], flags: Iterable[str], recipe: str) -> None:
    """Keep for its report where the options of a stage that was performed come from."""
    from glm_data.report import Origin, write_origin

    fields = tuple(field.name for field in msgspec.structs.fields(type(step.options)))
    given = {"section": tuple(section), "flags": tuple(flags)}
    write_origin(step.out / RUN, Origin(fields=fields, recipe=recipe, **given))


def command_line(step: Step, recipe: Path | None = None) -> str:
    """The stand-alone command of a step, to paste."""
    return shlex.join(recipes.command(step, flags(step.options), recipe))


def finished_key(folder: Path) -> str | None:
    """The key of the finished stage in ``folder``; None if it is not one."""
    try:
        return read_success(folder).key
    except GlmDataError:
        return None
