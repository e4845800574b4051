"""``glm-data verify``."""

from __future__ import annotations

from pathlib import Path

import click

from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import Command


@click.command(
    "verify",
    cls=Command,
    help="Check a pack: the digest of every file and the format's rules for every row. Ends with 1 if one is broken.",
    example="glm-data verify run/pack",
)
@click.argument("pack", type=EXISTING_FOLDER)
@output_options
def verify(pack: Path, as_json: bool, quiet: bool) -> int:
    """Print one line a check."""
    from glm_data.loading.verify import verify as verify_pack

    output = Output(as_json=as_json, quiet=quiet)
    checks = verify_pack(pack)
    ok = all(check.ok for check in checks)
    output.value({"folder": str(pack), "ok": ok, "checks": checks})
    for check in checks:
        if check.ok:
            output.say(f"{click.style('ok', fg='green')} {check.name}: {check.sentence}")
        else:
            click.echo(f"{click.style('broken', fg='red', bold=True)} {check.name}: {check.sentence}", err=True)
    return 0 if ok else 1
