"""Worker processes born ready: one process imports Beam and our code once, and forks a worker whenever it is asked to.

Starting a worker from nothing takes some three seconds of CPU (Beam, compiled kernels, tables), for every worker of
every step; a fork takes milliseconds. The driver starts the nursery with the first step that needs workers, and it
serves all later ones::

    driver    binds a socket in a folder of its own, starts the nursery with it, and holds the other end of its stdin
    Beam      runs our command, :mod:`pipelines.call_worker`, which passes its environment on and waits
    nursery   imports the module of the step, calls its ``warm_up`` if it has one, forks (:mod:`pipelines.worker`)

When the driver ends, however it does, stdin ends, and with it the nursery; its workers notice.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from glm_data import files
from glm_data.errors import GlmDataError

_SINGLE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A process that forks must not have threads."""
_SOCKET = "nursery"
_OURS = ("glm_data.", "pipelines.", "tokenizer.")
_BACKLOG = 256
_LONGEST_ADDRESS = 103
"""Bytes in the address of a UNIX socket: 107 on Linux, 103 elsewhere."""
_SECONDS_TO_END = 3.0


class Nursery:
    """The process that workers are forked from; ``command`` is what Beam is to start as a worker."""

    def __init__(self) -> None:
        self._folder = _make_folder()
        self._socket = self._folder / _SOCKET
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._socket))
            listening.listen(_BACKLOG)
            words = [sys.executable, "-P", str(_path("worker.py")), str(listening.fileno()), json.dumps(_sys_path())]
            # A group of its own: Ctrl-C is the driver's to handle.
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                words,
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
                env={**os.environ, **_SINGLE},
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether it can be asked for workers."""
        return self._process.poll() is None

    def command(self, settings: Path) -> str:
        """The command of a worker with ``settings``, for a shell."""
        words = (sys.executable, "-I", "-S", str(_path("call_worker.py")), str(self._socket), str(settings))
        # exec: the process Beam starts and waits for is then the caller itself, not a shell around it.
        return "exec " + shlex.join(words)

    def close(self) -> None:
        """End the process and remove its socket."""
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # it may be compiling
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_nursery: Nursery | None = None


def worker_command(folder: Path, function: Callable[..., Any]) -> str:
    """The command that Beam is to start as a worker of a stage; ``folder`` takes its settings.

    Starts the nursery if there is none.
    """
    global _nursery
    if _nursery is None or not _nursery.is_alive():
        close()
        _nursery = Nursery()
        atexit.register(close)
    settings = (folder / "worker.json").absolute()
    module = _module_of(function)
    files.write_json(settings, {"sys_path": _sys_path(), "module": module if module.startswith(_OURS) else ""})
    return _nursery.command(settings)


def close() -> None:
    """End the nursery, if there is one."""
    global _nursery
    atexit.unregister(close)
    if _nursery is not None:
        _nursery.close()
        _nursery = None


def _make_folder() -> Path:
    """A new folder for the socket, in ``/tmp`` if that of ``TMPDIR`` would make its address too long."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="glm-data-"))
        if len(os.fsencode(folder / _SOCKET)) > _LONGEST_ADDRESS:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="glm-data-", dir="/tmp"))
    except OSError as error:
        raise GlmDataError(
            f"there is no place for the socket of the worker processes ({error.strerror}); "
            "set TMPDIR to a folder that can be written to and has a path of at most 70 bytes, or use --workers 1."
        ) from None
    return folder


def _module_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__module__", None) or ""


def _sys_path() -> list[str]:
    return [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - '' too


def _path(name: str) -> Path:
    return Path(__file__).with_name(name)
