"""Progress by looking: a thread reads what a stage has put into its folder, whoever does the work and wherever."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.cli.output import Output
from glm_data.stage import PLAN, SHARDS

LIVE_SECONDS = 0.2
LOG_SECONDS = 10.0
_METRICS_TAIL_BYTES = 4096
_IN_ONE_PIECE = {"tokenizer", "train", "quantize"}
"""Stages that are one shard however many files they read."""


@contextlib.contextmanager
def follow(output: Output, folder: Path, stage: str) -> Iterator[None]:
    """Show how far ``stage`` is while the block runs: a status line on a terminal, log lines elsewhere."""
    if output.quiet:
        yield
        return
    stop = threading.Event()
    watch = _watch_live if output.is_live else _watch_in_lines
    thread = threading.Thread(target=watch, args=(output, folder, stage, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch_live(output: Output, folder: Path, stage: str, stop: threading.Event) -> None:
    from rich.console import Console

    started = time.monotonic()
    with Console(stderr=True).status(f"{stage} …") as status:
        while not stop.wait(LIVE_SECONDS):
            status.update(f"{stage}: {how_far(folder) or 'starting'}, {time.monotonic() - started:.0f} s")


def _watch_in_lines(output: Output, folder: Path, stage: str, stop: threading.Event) -> None:
    said = ""
    while not stop.wait(LOG_SECONDS):
        now = how_far(folder)
        if now and now != said:
            output.log(f"{stage}: {now}")
            said = now


def how_far(folder: Path) -> str:
    """What the folder of a running stage shows: shards done, or the newest line of a training's metrics."""
    try:
        newest = max(folder.rglob(PLAN), key=lambda path: path.stat().st_mtime_ns)
        plan = files.read_json(newest)
    except (OSError, ValueError, msgspec.DecodeError):  # not begun, or another file is just being written
        return ""
    metrics = _last_metrics(folder / "metrics.jsonl")
    if metrics:
        return ", ".join(f"{name} {_short(metrics[name])}" for name in ("step", "loss", "lr") if name in metrics)
    if plan["stage"] in _IN_ONE_PIECE:
        return ""
    done, inputs = sum(1 for _ in (newest.parent / SHARDS).glob("[0-9]*.json")), len(plan["inputs"])
    step = "" if newest.parent == folder else f"{newest.parent.name}, "  # a stage may have stages of its own
    return f"{step}{done} of {inputs} shards" if done <= inputs and inputs > 1 else f"{step}{done} shards"


def _last_metrics(path: Path) -> dict[str, Any]:
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
