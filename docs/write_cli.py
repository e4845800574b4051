"""Writes what is generated from the option structs: glm_data/cli/options.json, from which the commands are built, and
docs/cli.md from the commands. ``python docs/write_cli.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from glm_data.cli.shell import load_command

PAGE = Path(__file__).with_name("cli.md")
_INTRODUCTION = """# The commands

Written by `make docs` from the commands themselves; `glm-data COMMAND --help` says the same. What `beam run` takes
besides is on the [page of the stages](stages.md#beam).

Every command takes `--json` (results as one JSON document on standard output) and `--quiet`; words about the work go to
standard error. Exit codes: 0 done, 1 failed, 2 usage, 3 finished with a guard rail tripped, 130 interrupted (run the
same command again to go on).
"""


def listed() -> bytes:
    """The options of all stages, of the runner and of export, as the command line lists them."""
    from glm_data.cli.fields import write_options
    from glm_data.cli.stages import runner_type
    from glm_data.exporting.stage import ExportOptions
    from glm_data.recipe import STAGES, options_type

    stages = {stage: options_type(stage) for stage in STAGES}
    return write_options({**stages, "runner": runner_type(), "export": ExportOptions})


def page() -> str:
    """The whole page."""
    from glm_data.cli.shell import cli

    sections = [_section(name, command) for name, command in _commands("glm-data", cli)]
    return _INTRODUCTION + "".join(sections)


def _commands(name: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, click.Group):
            yield from _commands(f"{name} {word}", command)
        elif command is not None:
            yield f"{name} {word}", command
            for branch, (place, _) in getattr(command, "branches", {}).items():
                yield f"{name} {word} {branch}", load_command(place)


def _section(name: str, command: click.Command) -> str:
    example = getattr(command, "example", "")
    lines = [f"\n## `{name}`\n\n", " ".join((command.help or "").split()), "\n"]
    if example:
        commands = "\n".join(line.strip() for line in example.strip().splitlines())
        lines.append(f"\n```sh\n{commands}\n```\n")
    options = [_option(item) for item in command.params if isinstance(item, click.Option) and not _is_common(item)]
    if options:
        lines.append("\n| option | meaning |\n|---|---|\n" + "".join(options))
    return "".join(lines)


def _is_common(option: click.Option) -> bool:
    return option.name in ("as_json", "quiet", "help")


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    choices = f" ({', '.join(map(str, option.type.choices))})" if isinstance(option.type, click.Choice) else ""
    default = f" [default: {option.default}]" if option.show_default else ""
    text = " ".join((option.help or "").split()).replace("|", "\\|")
    return f"| {names} | {text}{choices}{default} |\n"


if __name__ == "__main__":
    from glm_data.cli.fields import OPTIONS

    OPTIONS.write_bytes(listed())
    PAGE.write_text(page(), encoding="utf-8")
