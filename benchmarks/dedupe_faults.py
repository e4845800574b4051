"""De-duplication killed and starved: the command with two worker processes, ended by kill -9, and on a full disk.

    python -m benchmarks.dedupe_faults FOLDER_OF_SHARDS WORK_FOLDER [SMALL_DISK]

The command is killed 20 times while it is at work, at moments spread over the time that an undisturbed run takes, and
goes on each time; a folder that it finishes in between is compared and begun anew. Every digest has to be that of the
undisturbed run, and no process of a killed run may live on. SMALL_DISK is a folder on a disk that is too small
(``mount -t tmpfs -o size=8m``), where the command has to end with one sentence and nothing finished.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

KILLS, WORKERS = 20, 2
_SECONDS_TO_LEAVE = 10.0
_MARK = "GLM_DATA_FAULTS"


def main(shards: Path, work: Path, small: Path | None) -> None:
    """Do both, and print what came out."""
    started = time.perf_counter()
    whole = _digest(shards, work / "whole")
    length = time.perf_counter() - started
    killed, folders, same = _kill_often(length, shards, work / "out", whole)
    outcome = "the same bytes" if same else "OTHER BYTES"
    print(f"killed {killed} times at work, runs of {length:.1f} s, {folders} folders finished: {outcome}")
    if small is not None:
        ended = subprocess.run(_command(shards, small / "out"), capture_output=True, text=True, check=False)
        print(f"full disk: exit code {ended.returncode}: {ended.stderr.strip().splitlines()[-1]}")


def _kill_often(length: float, shards: Path, out: Path, whole: str) -> tuple[int, int, bool]:
    """How often the command was killed at work, how many folders it finished, and whether all came out the same."""
    moments, killed, folders, same = random.Random(20), 0, 0, True
    shutil.rmtree(out, ignore_errors=True)
    while killed < KILLS:
        if _kill_after(moments.random() * length, shards, out):
            killed += 1
        else:
            folders, same = folders + 1, same and _digest(shards, out) == whole
            shutil.rmtree(out)
    return killed, folders + 1, same and _digest(shards, out) == whole


def _command(shards: Path, out: Path) -> list[str]:
    words = ["-m", "glm_data.cli", "dedupe", str(shards), "--out", str(out), "--workers", str(WORKERS), "--quiet"]
    return [sys.executable, *words, "--max-source-loss", "1"]


def _digest(shards: Path, out: Path) -> str:
    from glm_data.stage import read_success

    subprocess.run(_command(shards, out), check=True)
    return read_success(out).digest


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
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
