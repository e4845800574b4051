"""Shard functions that worker processes import, and a stage of six small shards to run them on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from glm_data import files
from glm_data.errors import InputError, StageMismatchError, UsageError
from glm_data.stage import ShardRecord, ShardTask, Success, find_inputs, open_stage, output_file
from pipelines.runner import RunnerOptions, run_tasks

SHARDS = 6


class OddError(InputError):
    """A user error whose constructor takes something else than a message."""

    def __init__(self, place: int) -> None:
        super().__init__(f"odd at {place}")


ERRORS = {"input": InputError, "usage": UsageError, "mismatch": StageMismatchError}


def upper(task: ShardTask) -> ShardRecord:
    """Writes the input in capitals; ``options`` order accidents, those with a ``sentinel`` only once."""
    options, shard = task.options, task.shard
    _log_call(options, shard)
    if options.get("raise_at") == shard:
        raise ERRORS[options["error"]](f"bad {task.input.name}: no [while running] here.")
    if options.get("odd_at") == shard:
        raise OddError(shard)
    if options.get("bug_at") == shard:
        raise KeyError("a bug of ours")
    if options.get("kill_at") == shard and _first_time(options):
        os.kill(os.getpid(), signal.SIGKILL)
    if options.get("interrupt_at") == shard and _first_time(options):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    waking = time.monotonic() + 60
    while _is_sleepy(options) and time.monotonic() < waking:
        time.sleep(0.1)
    name = f"data/{shard:05d}.txt"
    files.write_bytes(Path(task.folder) / name, Path(task.input.path).read_bytes().upper())
    written = output_file(Path(task.folder), name, rows=1)
    return ShardRecord(shard=shard, input=task.input.name, records=1, kept=1, files=(written,))


def _log_call(options: dict, shard: int) -> None:
    if "calls" in options:
        with Path(options["calls"]).open("a") as handle:
            handle.write(f"{shard} {os.getpid()}\n")


def _first_time(options: dict) -> bool:
    sentinel = Path(options["sentinel"])
    if sentinel.exists():
        return False
    sentinel.touch()
    return True


def _is_sleepy(options: dict) -> bool:
    return "sleepy" in options and Path(options["sleepy"]).exists()


def make_inputs(folder: Path) -> Path:
    """Six text files, the later the larger."""
    folder.mkdir()
    for shard in range(SHARDS):
        (folder / f"{shard}.txt").write_text(f"shard {shard} 字 " * (shard + 1), encoding="utf-8")
    return folder


def run_stage(inputs: Path, out: Path, accidents: dict, runner: RunnerOptions, on_progress=None) -> Success:
    """Run :func:`upper` over ``inputs`` as a stage."""
    found = find_inputs([inputs])
    with open_stage(out, "upper", {}, found) as stage:
        tasks = [ShardTask(shard=i, folder=str(out), input=item, options=accidents) for i, item in enumerate(found)]
        run_tasks(stage, upper, tasks, runner, on_progress=on_progress)
        return stage.succeed(len(tasks))
