"""Clusters on this machine for tests: a job server, a pool of workers, a Dask cluster; real processes on loopback."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"
LOOPBACK = {"127.0.0.1", "::1"}
JOB_SERVER = """
import socket, sys, time
socket.getfqdn = lambda *name: "localhost"  # what Beam calls a machine to workers that it did not start
from pipelines.loopback import on_loopback
from pipelines.quiet import import_beam, quiet_beam
import_beam()
from apache_beam.runners.portability.local_job_service import LocalJobServicer
with quiet_beam(), on_loopback():
    print("jobs at localhost:%d" % LocalJobServicer(sys.argv[1]).start_grpc_server(0), flush=True)
    while True:
        time.sleep(60)
"""


@contextlib.contextmanager
def job_server(staging: Path) -> Iterator[str]:
    """Beam's own job server, the protocol of Flink's and Spark's; yields its address."""
    with process(sys.executable, "-c", JOB_SERVER, str(staging)) as server:
        yield said_address(server)


@contextlib.contextmanager
def worker_pool() -> Iterator[str]:
    """Our pool of workers; yields its address."""
    with process(sys.executable, "-m", "pipelines.pool", "--port", "0") as pool:
        yield said_address(pool)


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2) -> Iterator[str]:
    """A scheduler and workers of one thread each; yields the scheduler's address."""
    file, local = folder / "scheduler.json", ("--host", "127.0.0.1", "--no-dashboard", "--scheduler-file")
    dask = (sys.executable, "-m", "dask")
    with contextlib.ExitStack() as running:
        running.enter_context(process(*dask, "scheduler", *local, str(file), "--port", "0"))
        for number in range(workers):
            scratch = ("--local-directory", str(folder / f"worker-{number}"))
            running.enter_context(
                process(*dask, "worker", *local, str(file), "--nthreads", "1", "--no-nanny", *scratch)
            )
        wait_until(file.exists)
        yield json.loads(file.read_text())["address"]


@contextlib.contextmanager
def process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that can import what the tests can; ended with the block."""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as started:
        try:
            yield started
        finally:
            started.terminate()
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()


def said_address(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    words = started.stdout.readline().split()
    assert words, "a service has ended before it said its address"
    return words[-1]


def wait_until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.contextmanager
def watching_ports() -> Iterator[set[str]]:
    """Yields a set that receives the addresses on which this process listens while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            seen.update(listening_addresses())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def listening_addresses() -> set[str]:
    """The IP addresses of this process's listening TCP sockets, as Linux tells them."""
    own = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(descriptor.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in own:
                found.add(_address(fields[1].partition(":")[0]))
    return found


def _address(digits: str) -> str:
    """An address from the kernel's notation: 32-bit words in hexadecimal, each in the machine's byte order."""
    words = bytes.fromhex(digits)
    packed = b"".join(words[at : at + 4][:: 1 if sys.byteorder == "big" else -1] for at in range(0, len(words), 4))
    address = ipaddress.ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
