"""From a stage's command line to its options struct, and the stage's ``main``.

``python pipelines/<stage>.py INPUT... --output DIR [options] [Beam options] [-- runner options]``: options of the stage
are the fields of its struct, spelt with ``-`` or ``_``; every other option goes to Beam, which must know it; what
stands after ``--`` goes to the runner as it is.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec

from glm_data.config import ConfigT, Option, from_flags, in_flags, option_value, options
from glm_data.errors import GlmDataError, InterruptedRunError, UsageError
from glm_data.progress import in_lines
from glm_data.stage import Success
from pipelines.engines import find_engine, parse_beam_options
from pipelines.quiet import import_beam
from pipelines.runner import RunnerOptions

TRIPPED = 3
"""Exit code of a run that finished with a guard rail tripped."""

_NEARLY = 0.75
"""Likeness (of ``difflib``) from which an unknown option is taken for a misspelt one of ours."""

StageFunction = Callable[[Sequence[str | Path], Path, Any, RunnerOptions, bool], Success]
"""``run(inputs, out, options, runner, overwrite)``, as every stage has it."""


class StageArguments(NamedTuple):
    """A stage's command line, understood."""

    inputs: tuple[str, ...]
    output: Path
    options: Any
    """Of the struct that was asked for."""
    runner: RunnerOptions
    overwrite: bool


class StageParser(argparse.ArgumentParser):
    """An argument parser whose errors are :class:`UsageError` instead of an exit."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print."""
        raise UsageError(f"{message}; see {self.prog} --help.")


def add_options(parser: argparse._ActionsContainer, kind: type[msgspec.Struct], *, skip: Sequence[str] = ()) -> None:
    """Offer every field of ``kind`` but ``skip`` as an option; what is not given stays out of the namespace."""
    for option in options(kind):
        if option.name not in skip:
            parser.add_argument(*_spellings(option), **_settings(option))


def from_arguments(namespace: argparse.Namespace, kind: type[ConfigT]) -> ConfigT:
    """The struct of what was given; raises :class:`ConfigError` for values it does not take."""
    known = [option for option in options(kind) if hasattr(namespace, option.name)]
    given = {option.name: option_value(option, getattr(namespace, option.name)) for option in known}
    return from_flags(given, kind)


def _spellings(option: Option) -> list[str]:
    """``--max-bad-fraction`` and, as Beam users type it, ``--max_bad_fraction``."""
    return list(dict.fromkeys([option.flag, f"--{option.name}"]))


def _settings(option: Option) -> dict[str, Any]:
    shown = "required" if option.required else f"default: {_show(option.default)}"
    text = f"{option.help} ({shown})".replace("%", "%%")
    settings: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS, "help": text}
    if option.kind is bool:
        return {**settings, "action": argparse.BooleanOptionalAction}
    settings["type"] = option.kind
    settings["required"] = option.required
    if option.choices:
        settings["choices"] = option.choices
    elif option.kind is not str:
        settings["metavar"] = option.kind.__name__.upper()
    if option.many:
        settings["nargs"], settings["action"] = "+", "extend"  # given twice, both count
    return settings


def _show(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return " ".join(map(str, default)) or "none" if isinstance(default, tuple | list) else str(default)


def stage_parser(name: str, description: str, kind: type[msgspec.Struct]) -> StageParser:
    """The parser of the stage ``name``: inputs, output, overwrite, the runner's options and those of ``kind``."""
    parser = StageParser(prog=f"{name}.py", description=description, allow_abbrev=False)
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="files, folders, patterns or finished stages")
    parser.add_argument("--input", nargs="+", action="extend", default=[], help="the same, as an option")
    parser.add_argument("--output", required=True, type=Path, help="folder of the stage")
    parser.add_argument("--overwrite", action="store_true", help="start afresh if the folder holds another run")
    add_options(parser.add_argument_group("options of the stage"), kind)
    add_options(
        parser.add_argument_group("where it runs (all other options go to Beam)"), RunnerOptions, skip=["beam_args"]
    )
    return parser


def parse_stage(argv: Sequence[str], name: str, description: str, kind: type[ConfigT]) -> StageArguments:
    """Understand a stage's command line; raises :class:`UsageError` with the cure."""
    parser = stage_parser(name, description, kind)
    own, beam = split_words(argv, parser)
    namespace = parser.parse_intermixed_args(own)
    inputs = (*namespace.inputs, *namespace.input)
    if not inputs:
        raise UsageError(f"no input; give files, folders or patterns: {name}.py INPUT --output DIR.")
    runner = from_arguments(namespace, RunnerOptions)
    runner = msgspec.structs.replace(runner, beam_args=(*runner.beam_args, *beam))
    engine = find_engine(runner.runner)
    if beam and engine.is_local:  # other runners declare options of their own, and check them once they are loaded
        parse_beam_options(runner.beam_args, engine)
    return StageArguments(inputs, namespace.output, from_arguments(namespace, kind), runner, namespace.overwrite)


def split_words(argv: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], list[str]]:
    """Part a command line into the words of ``parser`` and those for Beam, a lone ``--`` and all behind it included.

    An option unknown to ``parser`` takes the next word as its value, unless Beam knows it as a switch. One that is
    nearly spelt like an option of ``parser`` is a :class:`UsageError`.
    """
    words = list(argv)
    place = words.index("--") if "--" in words else len(words)
    words, passed = words[:place], words[place:]
    known = parser._option_string_actions
    own: list[str] = []
    beam: list[str] = []
    while words:
        word = words.pop(0)
        name, has_value = word.partition("=")[0], "=" in word
        if not word.startswith("--") or name in known:
            own.append(word)
            continue
        beam.append(word)
        is_switch = _check_foreign(name, list(known))
        if not has_value and not is_switch and words and not words[0].startswith("-"):
            beam.append(words.pop(0))
    return own, beam + passed


def _check_foreign(name: str, own: Sequence[str]) -> bool:
    """Whether Beam knows ``name`` as a switch; an option Beam does not know but we nearly do is refused."""
    known = _beam_options()
    near = difflib.get_close_matches(name.strip("-").replace("_", "-"), [word.strip("-") for word in own], 1, _NEARLY)
    if name not in known and near:
        raise UsageError(f"there is no option '{name}'. Did you mean '--{near[0]}'?")
    return known.get(name, False)


def _beam_options() -> dict[str, bool]:
    """The options that Beam's loaded classes declare, and whether each is a switch."""
    import_beam()
    from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    return {name: action.nargs == 0 for name, action in parser._option_string_actions.items()}


def stage_main(
    argv: Sequence[str] | None, name: str, description: str, kind: type[msgspec.Struct], run: StageFunction
) -> int:
    """Run a stage from its command line; returns the exit code and says in one line what came of it."""
    try:
        given = parse_stage(sys.argv[1:] if argv is None else argv, name, description, kind)
        with in_lines(given.output, lambda now: print(f"{name}: {now}", file=sys.stderr)):  # noqa: T201
            success = run(given.inputs, given.output, given.options, given.runner, given.overwrite)
    except GlmDataError as error:
        said = in_flags(str(error), kind) if isinstance(error, UsageError) else error
        sys.stderr.write(f"error: {said}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command again to go on.\n")
        return InterruptedRunError.exit_code
    sys.stdout.write(f"{summarize(success)} -> {given.output}\n")
    for check in success.checks:
        if not check.ok:
            sys.stderr.write(f"guard rail: {check.sentence}\n")
    return 0 if success.ok else TRIPPED


def summarize(success: Success) -> str:
    """A finished stage in one line."""
    parts = [f"{success.stage}: {success.records:,} records, {success.kept:,} kept"]
    for title, counts in (("dropped", success.dropped), ("unreadable", success.unreadable)):
        if counts:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=_by_count))
            parts.append(f"{sum(counts.values()):,} {title} ({reasons})")
    return ", ".join(parts)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
