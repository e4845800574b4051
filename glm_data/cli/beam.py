"""``glm-data beam``: the launcher of pipeline files under a name that no other package claims."""

from __future__ import annotations

import click

from glm_data.cli.shell import Command


@click.command(
    "beam",
    cls=Command,
    help="Run a Beam pipeline file or module; the same as the command 'beam', whoever owns that name.",
    example="glm-data beam run pipelines/dedupe.py run/filter --output run/dedupe --runner local",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def beam(arguments: tuple[str, ...]) -> int | None:
    """Hand all arguments to the launcher."""
    from pipelines.launcher import main

    return main(list(arguments))
