"""The ``beam`` command (also ``glm-beam`` and ``glm-data beam``): runs pipeline files as Beam users expect.

``beam run pipelines/dedupe.py INPUT --output DIR`` works in any folder: a pipeline of this package that is not found
where the command is given is the installed one. Other people's pipeline files run too, as ``python FILE`` would, with
helper modules beside the file importable by workers, the local runner named, and unknown options an error.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from glm_data import __version__
from glm_data.errors import GlmDataError, InterruptedRunError, UsageError, did_you_mean
from pipelines.engines import BEAM_DASK_RUNNER, ENGINES, split_pass_through

HELP = """\
beam: run Apache Beam pipelines, those of glm-data and your own.

  beam run pipelines/filter.py shards/*.jsonl.zst --output run/filter
  beam run my_pipeline.py --output=out.txt --runner flink --flink_master=host:8081

Commands:
  beam run FILE|MODULE [ARGUMENTS] [-- RUNNER OPTIONS]
                   run a pipeline; a file of this package is found wherever you are
  beam runners     list what --runner takes, and what each needs
  beam --version

Pipelines of this package: {pipelines}. Each shows its options with --help.
Without --runner a pipeline runs on this machine. What stands after '--' goes to the runner unchecked.
The same command is 'glm-beam' and 'glm-data beam', should another package own the name 'beam'.
"""
_COMMANDS = ("run", "runners")
_NOT_PIPELINES = ("launcher", "pool", "worker", "call_worker")
_HERE = Path(__file__).parent


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (without the program's name); returns the exit code."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except GlmDataError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted.\n")
        return InterruptedRunError.exit_code


def _dispatch(words: list[str]) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("--help", "-h", "help"):
        sys.stdout.write(HELP.format(pipelines=", ".join(sorted(find_own_pipelines()))))
        return 0
    if command == "--version":
        sys.stdout.write(f"glm-data {__version__}, apache-beam {importlib.metadata.version('apache-beam')}\n")
        return 0
    if command == "runners":
        sys.stdout.write(describe_runners())
        return 0
    if command == "run":
        if not rest or rest[0].startswith("-"):
            raise UsageError("beam run needs a pipeline first: beam run FILE|MODULE [ARGUMENTS].")
        return run_pipeline(rest[0], rest[1:])
    return _hand_over(command, rest)


def describe_runners() -> str:
    """The table of ``beam runners``."""
    rows = [f"{engine.name:<10} {engine.beam.rsplit('.', 1)[-1]:<15} {engine.needs}\n" for engine in ENGINES.values()]
    note = "\nAny Beam runner name or dotted runner class may be given instead. Workers on other machines must see\n"
    return "".join([*rows, note, "inputs and output under the same paths, and have this package installed.\n"])


def find_own_pipelines() -> dict[str, Path]:
    """The pipelines of this package that can be run, by name."""
    found = {path.stem: path for path in sorted(_HERE.glob("*.py")) if path.stem not in _NOT_PIPELINES}
    return {name: path for name, path in found.items() if '__name__ == "__main__"' in path.read_text(encoding="utf-8")}


def run_pipeline(target: str, arguments: Sequence[str]) -> int:
    """Run the pipeline ``target`` (a file, a module, or the name of one of ours); returns its exit code."""
    own = find_own_pipelines()
    path = Path(target)
    if path.is_file():
        name = path.stem if path.resolve() in {item.resolve() for item in own.values()} else None
    else:
        name = _name_of_own(path, own)
    if name is not None:
        return _run_own(name, own[name], arguments)
    if not path.is_file() and not _is_module(target):
        hint = did_you_mean(path.stem, own) or f" Pipelines of this package: {', '.join(own)}."
        raise UsageError(f"there is no pipeline file or module '{target}'.{hint}")
    return _run_foreign(target, path.is_file(), arguments)


def _name_of_own(path: Path, own: dict[str, Path]) -> str | None:
    """Which of ours is meant by ``dedupe``, ``dedupe.py``, ``pipelines/dedupe.py`` or ``pipelines.dedupe``."""
    text = path.as_posix().removeprefix("./").removesuffix(".py").replace("/", ".")
    name = text.removeprefix("pipelines.")
    return name if name in own else None


def _is_module(target: str) -> bool:
    if not all(part.isidentifier() for part in target.split(".")):
        return False
    with _program([target], Path.cwd()):
        try:
            return importlib.util.find_spec(target) is not None
        except ImportError:
            return False


def _run_own(name: str, path: Path, arguments: Sequence[str]) -> int:
    module = importlib.import_module(f"pipelines.{name}")
    with _program([str(path), *arguments], None):
        return _exit_code(lambda: module.main(list(arguments)))


def _run_foreign(target: str, is_file: bool, arguments: Sequence[str]) -> int:
    from pipelines.quiet import import_beam

    import_beam()
    checked, passed = split_pass_through(arguments)
    checked = name_runner(checked)
    folder = Path(target).resolve().parent if is_file else Path.cwd()
    with _program([target, *checked, *passed], folder), _strict_options(passed):
        if is_file:
            return _exit_code(lambda: runpy.run_path(target, run_name="__main__"))
        return _exit_code(lambda: runpy.run_module(target, run_name="__main__", alter_sys=True))


def name_runner(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with Beam's word for a friendly runner name; if none is named the local one is added, and said."""
    words = list(arguments)
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != "--runner":
            continue
        if equals:
            words[place] = f"--runner={_beam_name(value)}"
        elif place + 1 < len(words):
            words[place + 1] = _beam_name(words[place + 1])
        return words
    sys.stderr.write("beam: no --runner given, so it runs on this machine: --runner=FnApiRunner\n")
    return [*words, "--runner=FnApiRunner"]


def _beam_name(name: str) -> str:
    if name.lower() in ENGINES:
        return ENGINES[name.lower()].beam
    is_dask = name.lower() in ("daskrunner", BEAM_DASK_RUNNER.lower())  # ours refuses what Beam's would get wrong
    return ENGINES["dask"].beam if is_dask else name


def _exit_code(run: Any) -> int:
    """Call ``run``; an exit code it returns or leaves with, 0 for anything else it returns."""
    try:
        result = run()
    except SystemExit as left:
        if isinstance(left.code, str):
            sys.stderr.write(f"{left.code}\n")
            return 1
        return int(left.code or 0)
    return result if isinstance(result, int) else 0


@contextlib.contextmanager
def _program(argv: list[str], folder: Path | None) -> Iterator[None]:
    """Look like ``python FILE`` for the block: ``sys.argv``, ``sys.path`` and, for worker processes, ``PYTHONPATH``."""
    before = sys.argv, list(sys.path), os.environ.get("PYTHONPATH")
    folders = list(dict.fromkeys([str(folder), str(Path.cwd())])) if folder else []
    sys.argv = argv
    sys.path[:0] = folders[:1]
    if folders:
        os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [before[2]])])
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        if before[2] is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before[2]


@contextlib.contextmanager
def _strict_options(passed: Sequence[str]) -> Iterator[None]:
    """Make an error of what Beam only warns of, just before it runs: an option that neither file nor Beam knows."""
    allowed = set(passed)

    def refuse(record: logging.LogRecord) -> bool:
        head, _, tail = record.getMessage().partition("Unparseable argument: ")
        if head or not tail:
            return True
        word = tail.split(". Did you mean", 1)[0]
        if word in allowed:
            return False
        _raise_unknown(word)
        return True

    logger = logging.getLogger("apache_beam.options.pipeline_options")
    logger.addFilter(refuse)
    try:
        yield
    finally:
        logger.removeFilter(refuse)


def _raise_unknown(word: str) -> None:
    from pipelines.engines import check_beam_options

    if not word.startswith("-"):
        raise UsageError(f"'{word}' is no option of this pipeline, nor of Beam.")
    check_beam_options([word])


def _hand_over(command: str, rest: list[str]) -> int:
    """Give a command that is not ours to another distribution's ``beam``, if one is installed."""
    for entry in importlib.metadata.entry_points(group="console_scripts", name="beam"):
        if entry.dist is not None and not entry.value.startswith("pipelines.launcher"):
            sys.stderr.write(f"beam: '{command}' goes to the beam command of {entry.dist.name}\n")
            with _program(["beam", command, *rest], None):
                return _exit_code(entry.load())
    hint = did_you_mean(command, (*_COMMANDS, "--help", "--version")) or " Commands: run, runners; see beam --help."
    if _name_of_own(Path(command), find_own_pipelines()):
        hint = f" Did you mean 'beam run {command}'?"
    raise UsageError(f"there is no command 'beam {command}'.{hint}")


if __name__ == "__main__":
    sys.exit(main())
