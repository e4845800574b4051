"""The outermost shell: lazy commands, help that opens with a sentence and an example, outcomes as exit codes.

====  =======================================================
code  meaning
====  =======================================================
0     done
1     failed (one sentence on standard error; a traceback only for a bug of ours)
2     usage: the command, an option, a recipe or a path cannot be meant
3     finished, but a guard rail tripped (said in the table and in ``--json``)
130   interrupted by SIGINT or SIGTERM; a stage goes on when the same command is run again
====  =======================================================
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import textwrap
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

import glm_data
from glm_data.errors import GlmDataError, InterruptedRunError, MissingExtraError, UsageError, did_you_mean

GUARD_RAIL_EXIT_CODE = 3
INTERRUPTED_EXIT_CODE = InterruptedRunError.exit_code
_KEPT = "interrupted; what is finished is kept: run the same command again to go on."
_NOTHING_KEPT = "interrupted before it was done; there is nothing to resume."

EXTRA_OF_MODULE = {"torch": "train", "safetensors": "train", "starlette": "web", "uvicorn": "web"}
"""Top-level modules that an optional extra brings."""

_ENVIRONMENT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}


class Command(click.Command):
    """A command whose help opens with a sentence, then an example to paste, then usage and options.

    ``branches`` are commands of their own that its first word may name, as in ``glm-data dedupe plan``; they are given
    as those of a :class:`LazyGroup`. A file of that name is given as ``./plan``. ``resumes`` says that it works in
    stage folders, so that what was finished before an interruption is not done again.
    """

    def __init__(
        self,
        *args: Any,
        example: str = "",
        branches: Mapping[str, tuple[str, str]] | None = None,
        resumes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.branches = dict(branches or {})
        self.resumes = resumes

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interruption that nothing below has put into words says what is left of it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRunError(_KEPT if self.resumes else _NOTHING_KEPT) from None

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the branch that the first word names, or of the command itself."""
        if args and args[0] in self.branches:
            branch = load_command(self.branches[args[0]][0])
            return branch.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write sentence, example, usage, options in this order."""
        _format_opening(self.help, self.example, formatter)
        self.format_usage(ctx, formatter)
        if self.branches:
            with formatter.section("Further commands"):
                formatter.write_dl([(f"{ctx.command_path} {name}", text) for name, (_, text) in self.branches.items()])
        self.format_options(ctx, formatter)
        self.format_epilog(ctx, formatter)


def load_command(place: str) -> click.Command:
    """Import the command at ``module:attribute``."""
    module, attribute = place.split(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


class LazyGroup(click.Group):
    """A group that knows its commands as ``name -> (module:attribute, one line of help)`` and imports on use."""

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy)
        self.example = example

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the work, not of the alphabet."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command ``cmd_name``; None if there is none."""
        if cmd_name not in self.lazy:
            return None
        return load_command(self.lazy[cmd_name][0])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of ``args``; an unknown one is a usage error with the nearest name."""
        name = args[0]
        if name not in self.lazy and not name.startswith("-"):
            hint = did_you_mean(name, self.lazy) or f" Commands: {', '.join(self.lazy)}."
            raise click.UsageError(f"there is no command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, none of them imported; behind a dash the options."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=text) for name, (_, text) in self.lazy.items() if name.startswith(incomplete)]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write sentence, example, usage, commands and options in this order."""
        _format_opening(self.help, self.example, formatter)
        self.format_usage(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.lazy.items()])
        click.Command.format_options(self, ctx, formatter)


def _format_opening(text: str | None, example: str, formatter: click.HelpFormatter) -> None:
    formatter.write_text(text or "")
    if example:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write(textwrap.indent(textwrap.dedent(example).strip(), "  ") + "\n")
    formatter.write_paragraph()


COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("glm_data.cli.demo:demo", "The whole job on the bundled corpus: raw shards to INT4 infilling."),
    "init": ("glm_data.cli.init:init", "Write a recipe for your own shards from a look at them."),
    "run": ("glm_data.cli.run:run", "Run a recipe: its stages in order, resumable."),
    "filter": ("glm_data.cli.filter:filter_", "Clean documents and keep the good ones, with reasons."),
    "dedupe": ("glm_data.cli.dedupe:dedupe", "Remove exact and near duplicates, each one verified."),
    "decontaminate": ("glm_data.cli.decontaminate:decontaminate", "Cut evaluation items out of documents."),
    "tokenizer": ("glm_data.cli.tokenizer:tokenizer", "Train a bilingual tokenizer; encode and decode."),
    "tokenize": ("glm_data.cli.tokenize:tokenize", "Turn documents into token ids."),
    "mip": ("glm_data.cli.mip:mip", "Render instruction data (MIP) from templates."),
    "pack": ("glm_data.cli.pack:pack", "Pack token ids and MIP into rows with their spans."),
    "verify": ("glm_data.cli.verify:verify", "Check every row of a pack against the format."),
    "inspect": ("glm_data.cli.inspect:inspect", "Look at packed rows: masks, part B, positions."),
    "rewind": ("glm_data.cli.rewind:rewind", "Say which documents stood in the samples of a run."),
    "export": ("glm_data.cli.export:export", "Write a pack in the formats of other trainers."),
    "plan": ("glm_data.cli.plan:plan", "Say what a recipe or a training run would take."),
    "train": ("glm_data.cli.train:train", "Train a GLM on a pack."),
    "prune": ("glm_data.cli.prune:prune", "Set weights of a trained model to zero, the loss shown."),
    "quantize": ("glm_data.cli.quantize:quantize", "Quantise a trained model to INT4 or INT8."),
    "import": ("glm_data.cli.import_:import_", "Read a checkpoint of GLM-130B or GLM-10B."),
    "export-checkpoint": (
        "glm_data.cli.export_checkpoint:export_checkpoint",
        "Write a model as such a checkpoint, in parts.",
    ),
    "eval": ("glm_data.cli.evaluate:evaluate", "Measure a model on rows of a pack."),
    "infill": ("glm_data.cli.infill:infill", "Fill the [MASK]s of a text."),
    "generate": ("glm_data.cli.generate:generate", "Continue a text."),
    "serve": ("glm_data.cli.serve:serve", "Serve a model over HTTP, with a page to fill blanks."),
    "report": ("glm_data.cli.report:report", "Write the report of a run, or of one stage, as a page and as JSON."),
    "diff": ("glm_data.cli.diff_runs:diff", "Compare two runs: options, counts, documents."),
    "explain": ("glm_data.cli.explain:explain", "Tell the life of a document, from raw record to packed row."),
    "duplicates": ("glm_data.cli.duplicates:duplicates", "Look at what de-duplication removed; audit it."),
    "config": ("glm_data.cli.config:config", "Look at bundled recipes and profiles; check your own."),
    "view": ("glm_data.cli.view:view", "Look at all of it in the browser, on a local page."),
    "beam": ("glm_data.cli.beam:beam", "Run a Beam pipeline file, as 'beam run' does."),
    "doctor": ("glm_data.cli.doctor:doctor", "Say what is installed and what may go wrong."),
    "completion": ("glm_data.cli.completion:completion", "Print the completion script of a shell."),
}

cli = LazyGroup(
    "glm-data",
    lazy=COMMANDS,
    help="From raw Pile and WuDao shards to packed GLM rows, a model trained on them and INT4 inference.",
    example="""
        glm-data demo                         # the whole job on the bundled corpus, about a minute
        glm-data run my-recipe.yaml --out my-run
    """,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
click.version_option(glm_data.__version__, "--version", prog_name="glm-data")(cli)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit code; says on standard error what went wrong."""
    try:
        with _termination_as_interrupt():
            outcome = cli.main(list(sys.argv[1:] if argv is None else argv), "glm-data", standalone_mode=False)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has left, as in `glm-data inspect … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        return explain(error)
    return outcome if isinstance(outcome, int) else 0


def explain(error: BaseException) -> int:
    """Say on standard error what an exception means to the user; returns the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return _explain_system_exit(error)
    if isinstance(error, (KeyboardInterrupt, click.Abort, InterruptedRunError)):
        return _say(str(error) or "interrupted before it began.", INTERRUPTED_EXIT_CODE)
    if isinstance(error, click.ClickException):
        return _explain_usage(error)
    if isinstance(error, GlmDataError):
        return _say(str(error), error.exit_code)
    return _explain_foreign(error)


def _explain_foreign(error: BaseException) -> int:
    tokenizer = sys.modules.get("tokenizer")
    if tokenizer is not None and isinstance(error, tokenizer.TokenizerError):
        return _say(str(error), UsageError.exit_code)  # a folder or a model that was given
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRA_OF_MODULE:
        return _say(str(missing_extra(str(error.name).split(".")[0])), GlmDataError.exit_code)
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT_ERRORS:
        place = f"'{error.filename}': " if error.filename else ""
        return _say(f"{place}{error.strerror}; make room or choose another folder, then run again.", 1)
    traceback.print_exception(error)
    return _say("this is a bug of glm-data; please report it with the lines above and the command you ran.", 1)


def missing_extra(module: str) -> MissingExtraError:
    """The error that says which extra brings ``module``."""
    extra = EXTRA_OF_MODULE[module]
    return MissingExtraError(
        f"'{module}' is not installed: this needs the extra '{extra}': pip install 'glm-data[{extra}]'"
    )


def require_extra(extra: str) -> None:
    """Raise :class:`MissingExtraError` now rather than later, without importing what the extra brings."""
    import importlib.util

    for module, brought_by in EXTRA_OF_MODULE.items():
        if brought_by == extra and importlib.util.find_spec(module) is None:
            raise missing_extra(module)


def require_torch() -> None:
    """:func:`require_extra` of ``train``, and threads of torch that wait without spinning."""
    require_extra("train")
    # Threads that wait by spinning starve each other on a busy machine: five times slower. Read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _explain_usage(error: click.ClickException) -> int:
    said = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        flags = [flag for item in context.command.get_params(context) for flag in item.opts if flag.startswith("-")]
        said = f"there is no option '{error.option_name}'.{did_you_mean(error.option_name, flags)}"
    if context is not None:
        said += f" See '{context.command_path} --help'."
    return _say(said, error.exit_code)


def _explain_system_exit(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    return _say(str(error.code), 1)


def _say(sentence: str, exit_code: int) -> int:
    if not sentence.isprintable():  # what was typed or read may hold what steers a terminal
        from glm_data.cli.output import visible

        sentence = "\n".join(map(visible, sentence.split("\n")))
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"{click.style('glm-data:', fg='red', bold=True)} {sentence}", err=True, color=colour_choice())
    return exit_code


def colour_choice() -> bool | None:
    """False where ``NO_COLOR`` is set to anything; None leaves it to whether the output is a terminal."""
    return False if os.environ.get("NO_COLOR") else None


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as SIGINT for the time of a command, so that both end in 130 and a resumable folder."""

    def interrupt(_: int, frame: types.FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # whoever runs has its own way of stopping
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: whoever called us owns the signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
