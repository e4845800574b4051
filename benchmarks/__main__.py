"""``python -m benchmarks``: run the benchmarks that exist and write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import shutil
import tempfile
from pathlib import Path

from benchmarks import harness, inputs, stages
from benchmarks.contest import Contest

MODULES = (
    "filters",
    "dedupe_signatures",
    "decontaminate",
    "encode",
    "vocabulary",
    "mip",
    "pack",
    "loader",
    "int4",
    "viewer",
)
PAGE = harness.ROOT / "docs" / "benchmarks.md"
_INTRODUCTION = """# Benchmarks

Written by `make bench` (`make bench DATA=DIR` for shards of your own); do not edit by hand. Every contestant runs in
a process of its own, in turns with the others, {rounds} rounds of {repeats} timed runs after one that warms up. Time is
CPU time of the process with all its threads and of those it waits for, so that a rate is that of a core, whatever else
the machine does. A figure is the median of the rounds, "first to this" the median of the ratios within each round: how
many times as fast the first line is. Peak memory is of the whole process, libraries included.

{machine}{note}
"""
_STAGES = """
## The stages of the main job

{what}, one worker, each stage in a process of its own, with digests, records and all other bookkeeping. The seconds
are those of a clock and include the start of Beam and loading or compiling kernels, which is most of it for small
input. "MB in" is text where the stage counts text, else the size of its files.

{table}"""
_CONTEST = """
## {title}

{note}

{table}"""


def main() -> None:
    """Parse the command line, run, write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", type=Path, required=True, help="Python of the environment with benchmarks/peers.txt")
    parser.add_argument(
        "--data", type=Path, nargs="*", default=[], help="raw shards or folders of them; default: the demo's"
    )
    parser.add_argument("--only", choices=MODULES, nargs="*", default=MODULES, help="which contests to run")
    parser.add_argument("--work", type=Path, help="folder to keep inputs in; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="a sentence to add about the machine")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    folder = given.work or Path(tempfile.mkdtemp(prefix="glm-data-bench-"))
    try:
        given.page.write_text(_page(given, folder), encoding="utf-8")
    finally:
        if given.work is None:
            shutil.rmtree(folder)
    print(f"wrote {given.page}")


def _page(given: argparse.Namespace, folder: Path) -> str:
    machine = harness.machine()
    folder.mkdir(parents=True, exist_ok=True)
    print("stages ...", flush=True)
    inputs.write_recipe(folder / "recipe.yaml", given.data)
    inputs.run_stages(folder, folder / "recipe.yaml")
    inputs.write_samples(folder)
    note = f" {given.note}" if given.note else ""
    page = [_INTRODUCTION.format(rounds=given.rounds, repeats=given.repeats, machine=machine, note=note)]
    what = "Shards of real text" if given.data else "The demo's generated shards"
    page.append(_STAGES.format(what=what, table=harness.markdown(stages.table(folder / "run"))))
    return "".join(
        page + [_section(module, contest, given, folder) for module in given.only for contest in _contests(module)]
    )


def _contests(module: str) -> tuple[Contest, ...]:
    contests: tuple[Contest, ...] = importlib.import_module(f"benchmarks.{module}").CONTESTS
    return contests


def _section(module: str, contest: Contest, given: argparse.Namespace, folder: Path) -> str:
    print(f"{contest.name} ...", flush=True)
    scores = harness.run_contest(module, contest, folder, given.peers, given.rounds, given.repeats)
    table = harness.contest_table(contest, scores)
    for row in table:
        print("  " + "  ".join(row), flush=True)
    return _CONTEST.format(title=contest.name, note=contest.note, table=harness.markdown(table))


if __name__ == "__main__":
    main()
