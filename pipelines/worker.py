"""The nursery's own process, and the workers it forks: Beam's SDK harness, quiet, and gone as soon as the driver is.

Started by path, not by name, as ``python -P .../pipelines/worker.py SOCKET_NUMBER SYS_PATH``, so that it can import
whatever the driver can (:mod:`pipelines.nursery` starts it). It runs no thread (but one of the memory
allocator's, which minds forks itself): what is forked off is whole. Beam's own worker writes dozens of lines to the
terminal and, on Ctrl-C, a traceback for each process; errors travel through :mod:`pipelines.marks` instead.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

_WATCH_SECONDS = 0.5
_ASK_SECONDS = 10.0


class Order(NamedTuple):
    """What a caller asks for."""

    settings_path: Path
    working_folder: bytes
    environment: dict[bytes, bytes]


def main(listening: socket.socket, sys_path: list[str]) -> None:
    """Fork a worker for every caller until stdin ends; tell each the exit code of its worker."""
    sys.path[:] = sys_path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    ended, notice = socket.socketpair()
    notice.setblocking(False)
    signal.set_wakeup_fd(notice.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    _set_up_logging()
    _import_beam()
    callers: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, listening.fileno(), ended.fileno()], [], [])
        if ended.fileno() in ready:
            ended.recv(4096)
            _tell_callers(callers)
        if 0 in ready:
            shutil.rmtree(Path(listening.getsockname()).parent, ignore_errors=True)  # a killed driver cannot
            os._exit(0)
        if listening.fileno() in ready:
            caller, _ = listening.accept()
            try:
                order = _read_order(caller)
                _prepare(order)
                callers[_fork(order, (listening, ended, notice, caller, *callers.values()))] = caller
            except (OSError, ValueError):  # no settings, no memory, too many processes
                caller.close()  # or it would wait for ever


def _read_order(caller: socket.socket) -> Order:
    caller.settimeout(_ASK_SECONDS)
    with caller.makefile("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        settings, folder, *pairs = stream.read(size).split(b"\0")
    names_and_values = (pair.partition(b"=") for pair in pairs)
    return Order(Path(os.fsdecode(settings)), folder, {name: value for name, _, value in names_and_values})


def _prepare(order: Order) -> None:
    """Import what the workers of a step are about to, so that they need not."""
    module = json.loads(order.settings_path.read_text(encoding="utf-8"))["module"]
    if module and module not in sys.modules:
        _import(module)
        getattr(sys.modules.get(module), "warm_up", lambda: None)()
        gc.collect()
        gc.freeze()  # what is here now stays: collecting would copy its pages into every worker


def _import(module: str) -> None:
    with contextlib.suppress(Exception):  # what is wrong with it, a worker says where it is heard
        importlib.import_module(module)


def _import_beam() -> None:
    with contextlib.suppress(ImportError):  # a worker says so where it is heard
        from pipelines import lean, quiet

        with lean.lean_imports():
            _import("apache_beam.runners.worker.sdk_worker_main")
        quiet.sample_often()


def _fork(order: Order, sockets: tuple[socket.socket, ...]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for item in sockets:
            item.close()
        _work(order, parent)
    finally:
        os._exit(1)


def _tell_callers(callers: dict[int, socket.socket]) -> None:
    """Pass on the exit codes of workers that have ended."""
    while callers:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with callers.pop(child) as caller, contextlib.suppress(OSError):
            code = os.waitstatus_to_exitcode(status)
            caller.sendall(bytes([code if code >= 0 else 1]))


def _work(order: Order, parent: int) -> None:
    """Serve the driver named by Beam's environment variables until it closes the connection."""
    (order.settings_path.parent / f"worker-{os.getpid()}").touch()
    os.chdir(order.working_folder)
    os.environb.clear()
    os.environb.update(order.environment)
    os.environ.pop("LOGGING_API_SERVICE_DESCRIPTOR", None)  # else Beam sends records to the driver, which prints each
    sys.path[:] = json.loads(order.settings_path.read_text(encoding="utf-8"))["sys_path"]
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    try:
        from apache_beam.runners.worker import sdk_worker_main

        sdk_worker_main.main(sys.argv)
    except ImportError as error:
        sys.stderr.write(f"error: a worker process cannot start: {error}\n")
        os._exit(1)
    except Exception:  # the driver went away or closed the channel; it says so itself
        os._exit(1)
    os._exit(0)


def _leave_with(parent: int) -> None:
    # A driver killed with -9 cannot tell its workers; two writers in one stage folder must never meet.
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _set_up_logging() -> None:
    # Before Beam is imported: it logs while importing, which would configure logging for good.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.addFilter(lambda record: "apache_beam" not in record.pathname)
    logging.getLogger().addHandler(handler)
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), json.loads(sys.argv[2]))
