"""One contestant in a process of its own: set up, warm up, repeat, say rate and peak memory as JSON.

    python -m benchmarks.contest MODULE CONTESTANT FOLDER REPEATS
    python -m benchmarks.contest MODULE CONTEST FOLDER prepare
    python -m benchmarks.contest MODULE CONTESTANT FOLDER prepare

Imports nothing but the standard library, so that it also runs in the environment of the peers.
"""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Work = Callable[[], object]
Timed = tuple[Work, float]
"""The work to time and its amount in the contest's unit times seconds."""
Setup = Callable[[Path], Timed | list[Timed]]
"""Takes the folder of inputs; a list has one work for each case of the contest, in their order."""

Prepare = Callable[[Path], object]
"""Takes the folder of inputs and puts further ones there."""


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a contest."""

    name: str
    setup: Setup
    is_peer: bool = False
    """Whether it runs in the environment of the peers."""
    prepare: Prepare | None = None
    """Runs before the first round, in the same environment but another process, so that memory is that of the work."""


@dataclass(frozen=True)
class Contest:
    """The same work done by several contestants; the first one is ours."""

    name: str
    unit: str
    contestants: tuple[Contestant, ...]
    note: str
    time: tuple[str, float] | None = None
    """For a column with the time of one unit of the work: its head, and the parts of a second that it counts."""
    prepare: Prepare | None = None
    """Runs first of all, in our environment."""
    cases: tuple[str, ...] = ()
    """What is measured with the same set-up, in one process; a contestant may leave out the last ones."""


def measure(contestant: Contestant, folder: Path, repeats: int) -> dict[str, Any]:
    """``rates`` of the cases, or of the one there is, and ``peak_bytes`` of the whole process."""
    made = contestant.setup(folder)
    cases = made if isinstance(made, list) else [made]
    return {"rates": [_rate(*case, repeats) for case in cases], "peak_bytes": peak_bytes()}


def _rate(work: Work, amount: float, repeats: int) -> float:
    """By the median CPU time of ``repeats`` runs after one that warms caches and compiles, of all threads and processes
    that were waited for."""
    work()
    seconds = []
    for _ in range(repeats):
        started = cpu_seconds()
        work()
        seconds.append(cpu_seconds() - started)
    return amount / statistics.median(seconds)


def cpu_seconds() -> float:
    """CPU time of this process so far, and of those it started that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_bytes() -> int:
    """Peak resident memory of this program. ``getrusage`` would count what its parent held before the start, too."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024


def read_texts(path: Path) -> list[str]:
    """The texts of an input file: one JSON string a line."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def megabytes(texts: list[str]) -> float:
    """Size of texts as UTF-8, in 10^6 bytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


def main(module: str, name: str, folder: str, repeats: str) -> None:
    """Measure one contestant of ``benchmarks.<module>`` and print what came out, or prepare a contest or contestant."""
    contests = importlib.import_module(f"benchmarks.{module}").CONTESTS
    contestants = [item for contest in contests for item in contest.contestants]
    if repeats == "prepare":
        (prepare,) = (item.prepare for item in (*contests, *contestants) if item.name == name)
        prepare(Path(folder))
        return
    (contestant,) = (item for item in contestants if item.name == name)
    print(json.dumps(measure(contestant, Path(folder), int(repeats))))


if __name__ == "__main__":
    main(*sys.argv[1:])
