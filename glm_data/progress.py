"""How far a running stage is, read from what it has put into its folder, whoever does the work and wherever."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.manifest import PLAN, RUN, SHARDS, SUCCESS, TASKS

LOG_SECONDS = 10.0
_METRICS_TAIL_BYTES = 1 << 16  # a line has the loss of every source
_IN_ONE_PIECE = {"tokenizer", "train", "prune", "quantize"}
"""Stages that are one shard however many files they read."""
STEPS = {"dedupe": ("sign", "exact", "bands", "sets", "select", "output")}
"""Stages that have stage folders of their own in ``_work/``, and the order of these; the last is the stage itself."""


@contextlib.contextmanager
def in_lines(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Call ``say`` from a thread, every ten seconds that bring something new, with how far the stage is."""
    said, meter = "", Meter(folder)
    meter.look(time.monotonic())

    def look() -> None:
        nonlocal said
        now = meter.look(time.monotonic())
        if now and now != said:
            say(now)
            said = now

    with repeated(look, LOG_SECONDS):
        yield


@contextlib.contextmanager
def repeated(call: Callable[[], None], seconds: float) -> Iterator[None]:
    """Make ``call`` from a thread every so many ``seconds`` while the block runs, and not once after it."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            call()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Meter:
    """Reads how far the running stage in a folder is; speed and time left are those since the meter first looked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: dict[Path, _Count] = {}
        self._lap: dict[str, Any] = {}
        """The newest line of a training's speed."""
        self._lap_seen = 0.0

    def look(self, now: float) -> str:
        """Step, shards, documents, speed and time left at the time ``now`` (in seconds, of any clock); "" if unknown.

        Of a training it is the newest line of its metrics, with the speed and the time left that were measured then;
        the latter counts down until the next line.
        """
        metrics = _last_line(self._folder / "metrics.jsonl")
        if metrics:
            return self._training(metrics, now)
        begun = _begun_stages(self._folder)
        working = next((place for place in reversed(begun) if not (place / SUCCESS).exists()), None)
        if working is None:
            return ""
        if working not in self._counts:
            plan = _read_plan(working)
            if plan is None or plan["stage"] in _IN_ONE_PIECE:
                return ""
            self._counts[working] = _Count(working, plan, now)
        count = self._counts[working]
        count.update()
        return _named_step(self._folder, working, begun, count) + count.told(now)

    def _training(self, metrics: dict[str, Any], now: float) -> str:
        parts = [f"{name} {_short(metrics[name])}" for name in ("step", "loss", "lr") if name in metrics]
        speed = _last_line(self._folder / RUN / "training.jsonl")
        if speed.get("step") != metrics.get("step") or "steps" not in speed:  # not measured, or not of this line
            return ", ".join(parts)
        if self._lap != speed:
            self._lap, self._lap_seen = speed, now
        parts[0] += f" of {speed['steps']}"
        parts.append(f"{speed['tokens_per_second']:,.0f} tokens/s")
        left = speed["eta_seconds"] - (now - self._lap_seen)
        if left > 0:
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


class _Count:
    """What the shards of one stage folder have come to."""

    def __init__(self, folder: Path, plan: dict[str, Any], now: float) -> None:
        self.stage: str = plan["stage"]
        self._shards, self._tasks = folder / SHARDS, folder / RUN / TASKS
        self._sizes = [item.get("bytes", 0) for item in plan["inputs"]]
        self._extra = int(self.stage in STEPS)  # which write a table, too
        self._documents: dict[str, int] = {}
        self._bytes = 0
        self.update()
        self._before, self._bytes_before, self._since = len(self._documents), self._bytes, now

    def update(self) -> None:
        """Read the records that are new, and what the tasks are where they are not one an input."""
        with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):
            self._sizes, self._extra = files.read_json(self._tasks), 0
        for path in self._shards.glob("[0-9]*.json"):
            if path.name in self._documents:
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, msgspec.DecodeError):
                record = files.read_json(path)
                self._documents[path.name] = record.get("records", 0)
                shard = int(path.stem)
                self._bytes += self._sizes[shard] if shard < len(self._sizes) else 0

    def told(self, now: float) -> str:
        """Shards and documents done, and, once this run has finished some, speed and time left."""
        done, shards = len(self._documents), len(self._sizes) + self._extra
        parts = [f"{done:,} of {shards:,} shards" if done <= shards else f"{done:,} shards"]
        documents = sum(self._documents.values())
        if documents:
            parts.append(f"{documents:,} documents")
        read, seconds = self._bytes - self._bytes_before, now - self._since
        if done > self._before and read and seconds > 0:
            speed = read / seconds
            parts.append(f"{speed / 1e6:.1f} MB/s")
            left = (sum(self._sizes) - self._bytes) / speed
            if left > 0:
                parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


def _begun_stages(folder: Path) -> list[Path]:
    """The stage folders of a stage: itself, and those of its own in the order in which they were begun."""
    found = []
    for plan in [folder / PLAN, *folder.glob(f"_work/*/{PLAN}")]:
        with contextlib.suppress(OSError):
            found.append((plan.stat().st_mtime_ns, plan.parent))
    return [place for _, place in sorted(found)]


def _read_plan(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, msgspec.DecodeError):  # another file is just being written
        plan: dict[str, Any] = files.read_json(folder / PLAN)
        return plan
    return None


def _named_step(folder: Path, working: Path, begun: list[Path], count: _Count) -> str:
    """``step 2 of 6, exact: `` where the stage has steps; the last of them writes into the stage's own folder."""
    steps = STEPS.get(count.stage.partition("/")[0], ())
    if not steps:
        return ""
    if working != folder:
        name = working.name
    elif len(begun) > len(steps) - 1:
        name = steps[-1]
    else:  # between two steps, or before the first
        return f"after step {begun[-1].name}: " if len(begun) > 1 else ""
    place = f"step {steps.index(name) + 1} of {len(steps)}, " if name in steps else "step "
    return f"{place}{name}: "


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``: as exact as a guess deserves."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _last_line(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - _METRICS_TAIL_BYTES))
            lines = handle.read().split(b"\n")
    except OSError:
        return {}
    for line in reversed(lines[:-1]):  # what follows the last newline may be half written
        with contextlib.suppress(msgspec.DecodeError):
            value: dict[str, Any] = msgspec.json.decode(line, type=dict)
            return value
    return {}


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
