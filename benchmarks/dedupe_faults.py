"""De-duplication killed and starved: the command with two worker processes, ended by kill -9, and on a full disk.

    python -m benchmarks.dedupe_faults FOLDER_OF_SHARDS WORK_FOLDER [--kills 20] [--seed 20] [--small-disk FOLDER]

The command is killed --kills times while it is at work, at moments spread over the time that an undisturbed run takes
(drawn from --seed, so that the 20 can be made in several goes), and goes on each time; a folder that it finishes in
between is compared and begun anew. Every digest has to be that of the undisturbed run, and no process of a killed run
may live on. --small-disk is a folder on a disk that is too small (``mount -t tmpfs -o size=8m``), where the command
has to end with one sentence and nothing finished.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

WORKERS = 2
_SECONDS_TO_LEAVE = 10.0
_MARK = "GLM_DATA_FAULTS"


def main(words: list[str]) -> None:
    """Do what the command line asks for, and print what came out; exit code 1 for other bytes."""
    given = _arguments(words)
    shutil.rmtree(given.work, ignore_errors=True)
    whole, _ = _finish(given.shards, given.work / "warm")  # compiles, if need be
    again, length = _finish(given.shards, given.work / "whole")
    finished, stages = _kill_often(given, length)
    same = all(digest == whole for digest in (again, *finished))
    outcome = "the same bytes" if same else "OTHER BYTES"
    print(f"killed {given.kills} times at work, runs of {length:.1f} s, {len(finished)} folders finished: {outcome}")
    print("files that the killed runs had left:", " ".join(map(str, stages)))
    if given.small_disk:
        ended = subprocess.run(_command(given.shards, given.small_disk / "out"), capture_output=True, text=True)
        print(f"full disk: exit code {ended.returncode}: {ended.stderr.strip().splitlines()[-1]}")
    sys.exit(0 if same else 1)


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dedupe_faults")
    parser.add_argument("shards", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--small-disk", type=Path)
    return parser.parse_args(words)


def _kill_often(given: argparse.Namespace, length: float) -> tuple[list[str], list[int]]:
    """Digests of the folders that were finished, and how many files lay there at each kill."""
    moments, out = random.Random(given.seed), given.work / "out"
    finished: list[str] = []
    files: list[int] = []
    while len(files) < given.kills:
        if _kill_after(moments.random() * length, given.shards, out):
            files.append(sum(path.is_file() for path in out.rglob("*")))
        else:
            finished.append(_finish(given.shards, out)[0])
            shutil.rmtree(out)
    return [*finished, _finish(given.shards, out)[0]], files


def _command(shards: Path, out: Path) -> list[str]:
    words = ["-m", "glm_data.cli", "dedupe", str(shards), "--out", str(out), "--workers", str(WORKERS), "--quiet"]
    return [sys.executable, *words, "--max-source-loss", "1"]


def _finish(shards: Path, out: Path) -> tuple[str, float]:
    """Run the command to its end: the digest of what it made, and how many seconds it took."""
    from glm_data.stage import read_success

    started = time.perf_counter()
    subprocess.run(_command(shards, out), check=True)
    return read_success(out).digest, time.perf_counter() - started


def _kill_after(seconds: float, shards: Path, out: Path) -> bool:
    """Kill the command; whether it was still at work. Fails if a process of it outlives it."""
    driver = subprocess.Popen(_command(shards, out), env={**os.environ, _MARK: "1"})
    time.sleep(seconds)
    was_at_work = driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + _SECONDS_TO_LEAVE
    while left := _marked_processes():
        if time.monotonic() > deadline:
            raise SystemExit(f"processes {left} outlived a killed run")
        time.sleep(0.1)
    return was_at_work


def _marked_processes() -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{_MARK}=1".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # gone, or not ours
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
