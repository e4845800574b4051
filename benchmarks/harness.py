"""Runs contests: every contestant in a process of its own, in turns, so that ratios compare neighbours in time."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Contestant

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("numpy", "numba", "pyarrow", "apache-beam", "sentencepiece", "datasets", "datasketch", "jinja2")
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Case:
    """One contestant in one case, over all rounds."""

    rate: float
    """Median of the rounds."""
    spread: tuple[float, float]
    """Slowest and fastest round."""
    ours_to_it: float
    """Median over the rounds of our rate by its."""


@dataclass(frozen=True)
class Score:
    """One contestant over all rounds."""

    name: str
    cases: tuple[Case, ...]
    peak_bytes: int


def run_contest(module: str, contest: Contest, folder: Path, peers: Path, rounds: int, repeats: int) -> list[Score]:
    """Measure all contestants ``rounds`` times in turn, ``repeats`` timed runs each time."""
    names = [contestant.name for contestant in contest.contestants]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    prepared: list[Contest | Contestant] = [contest, *contest.contestants]
    for item in prepared:
        if item.prepare:
            _run(module, item, folder, peers, "prepare")
    for _ in range(rounds):
        for contestant in contest.contestants:
            said = _run(module, contestant, folder, peers, str(repeats))
            results[contestant.name].append(json.loads(said.splitlines()[-1]))
    return [score(name, results[name], results[names[0]]) for name in names]


def _run(module: str, item: Contest | Contestant, folder: Path, peers: Path, repeats: str) -> str:
    python = peers if isinstance(item, Contestant) and item.is_peer else sys.executable
    command = [str(python), "-m", "benchmarks.contest", module, item.name, str(folder), repeats]
    temporary = folder / "tmp"  # where peers leave locks and caches, or clear them away
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(), **_ONE_THREAD, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{item.name} failed:\n{done.stderr}")
    return done.stdout


def environment() -> dict[str, str]:
    """The environment, but let Python keep what it compiles of libraries: it would count at every start."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def score(name: str, results: list[dict[str, Any]], ours: list[dict[str, Any]]) -> Score:
    """Of what a contestant and ours said in each round."""
    rates = zip(*(result["rates"] for result in results), strict=True)
    our_rates = zip(*(result["rates"] for result in ours), strict=True)
    return Score(
        name=name,
        cases=tuple(_case(*both) for both in zip(rates, our_rates, strict=False)),  # the last cases may be left out
        peak_bytes=max(result["peak_bytes"] for result in results),
    )


def _case(rates: Sequence[float], ours: Sequence[float]) -> Case:
    ratios = [mine / its for mine, its in zip(ours, rates, strict=True)]
    return Case(statistics.median(rates), (min(rates), max(rates)), statistics.median(ratios))


def contest_table(contest: Contest, scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Rows of a contest's table, the head first."""
    if contest.cases:
        return _table_of_cases(contest, scores)
    head = ["", contest.unit, "slowest - fastest round", "first to this", "peak MB"]
    cases = [score.cases[0] for score in scores]
    rows = [
        [score.name, _rate(case.rate), _spread(case), f"{case.ours_to_it:.3g} x", _megabytes(score)]
        for score, case in zip(scores, cases, strict=True)
    ]
    if contest.time:
        name, parts = contest.time
        head.insert(2, name)
        for row, case in zip(rows, cases, strict=True):
            row.insert(2, f"{parts / case.rate:,.3g}")
    return [tuple(head), *map(tuple, rows)]


def _table_of_cases(contest: Contest, scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """A column a case: the rate, the slowest and fastest round in brackets, and the first contestant to this one."""
    rows = []
    for score in scores:
        cells = [f"{_rate(case.rate)} ({_spread(case)}), {case.ours_to_it:.3g} x" for case in score.cases]
        missing = [""] * (len(contest.cases) - len(cells))
        rows.append((score.name, *cells, *missing, _megabytes(score)))
    return [("", *contest.cases, "peak MB"), *rows]


def _spread(case: Case) -> str:
    return f"{_rate(case.spread[0])} - {_rate(case.spread[1])}"


def _megabytes(score: Score) -> str:
    return f"{score.peak_bytes / 1e6:.0f}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; columns of numbers to the right."""
    head, *body = rows
    marks = ["---" if column == 0 else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *body)) + "\n"


def machine() -> str:
    """One paragraph: processor, cores, memory, load, system, Python and the versions that matter."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    today = datetime.now(UTC).date().isoformat()
    return (
        f"Measured on {today}: {_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, "
        f"{platform.system()} {platform.machine()}, load average {os.getloadavg()[0]:.1f} before the first run; "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
