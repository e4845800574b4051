"""``glm-data mip fetch``."""

from __future__ import annotations

import click

from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command


@click.command(
    "fetch",
    cls=Command,
    help="Get the rows of a mixture's data sets that name a place on the Hugging Face hub (hub: owner/name, or "
    "owner/name@revision) and are not there yet. The only step of instruction data that needs a network.",
    example="glm-data mip fetch mixture.yaml",
)
@click.argument("mixture")
@click.option("--rows", default="", help="Folder for the rows, in place of the mixture's own.")
@output_options
def fetch(mixture: str, rows: str, as_json: bool, quiet: bool) -> None:
    """Fetch, saying of every data set what was done."""
    from glm_data.mip.fetch import fetch as fetched
    from glm_data.mip.mixture import find_mixture

    output, done = Output(as_json=as_json, quiet=quiet), {}
    for key, what in fetched(find_mixture(mixture), rows):
        done[key] = what
        output.say(f"{key}: {what}")
    output.value(done)
