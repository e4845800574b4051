"""``glm-data report``: the report of a run or of one stage, written anew."""

from __future__ import annotations

from pathlib import Path

import click

from glm_data import files
from glm_data.cli.fields import EXISTING_FOLDER
from glm_data.cli.output import Output, output_options
from glm_data.cli.shell import GUARD_RAIL_EXIT_CODE, Command


@click.command(
    "report",
    cls=Command,
    help="Write the report of RUN, a run's folder or a single stage's: one page in English and Chinese that asks for "
    "nothing from the network, and the same as JSON beside it. Runs and stages write theirs when they finish; this is "
    "for folders of stages that were run one by one. It goes by what the stages' manifests say and does not check the "
    "files that they list ('glm-data verify' does for packs). Ends with 3 if a check failed.",
    example="glm-data report my-run",
)
@click.argument("run", type=EXISTING_FOLDER)
@output_options
def report(run: Path, as_json: bool, quiet: bool) -> int:
    """Write the report and say the verdict."""
    from glm_data.report import REPORT_JSON, write_report

    output = Output(as_json=as_json, quiet=quiet)
    page = write_report(run)
    told = files.read_json(page.with_name(REPORT_JSON))
    output.value(told)
    failed = [check for check in told["checks"] if not check["ok"]]
    for check in failed:
        output.note(f"{click.style('failed', fg='red', bold=True)} {check['stage']}: {check['sentence']}")
    for name in told["unfinished"]:
        output.note(f"{click.style('not finished', fg='yellow')} {name}")
    held = len(told["checks"]) - len(failed)
    output.say(f"{held:,} of {len(told['checks']):,} checks hold")
    output.say(f"Report: {page}", bold=True)
    return GUARD_RAIL_EXIT_CODE if failed else 0
