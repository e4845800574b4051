"""Keeps Beam's own logging off the user's terminal, without taking the logging set-up out of the caller's hands."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.lean import end_lean_imports

NOTHING = logging.CRITICAL + 1
"""A level above all log records."""
_SAMPLING_MS = 10
_GONE_SECONDS = 5.0
"""How long workers that were told to go are waited for."""


@contextlib.contextmanager
def quiet_beam(level: int = NOTHING, on_thread_error: Callable[[str], None] | None = None) -> Iterator[None]:
    """Within the block, apache_beam logs only from ``level`` on and never configures the root logger.

    Exceptions in Beam's threads go to ``on_thread_error(thread name)`` instead of the terminal.

    Beam logs on the root logger while it is imported, and its options call ``logging.basicConfig``; both would fix
    the whole program's logging. Import apache_beam inside such a block for the first time.
    """
    root, beam = logging.getLogger(), logging.getLogger("apache_beam")
    placeholder = logging.NullHandler()
    before = beam.level
    root.addHandler(placeholder)
    root.addFilter(_is_not_beams)
    beam.setLevel(level)
    try:
        with _quiet_threads(on_thread_error):
            yield
    finally:
        beam.setLevel(before)
        root.removeFilter(_is_not_beams)
        root.removeHandler(placeholder)


def import_beam() -> Any:
    """Import apache_beam (1 to 2 s the first time) without its log lines and deprecation warnings."""
    with quiet_beam(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import apache_beam
        import apache_beam.runners.portability.fn_api_runner.fn_runner
        import apache_beam.runners.portability.local_job_service

        sample_often()
    end_lean_imports()
    return apache_beam


def sample_often() -> None:
    """Let Beam look every 10 ms, not every 200, at what its workers do: a stage ends only when it looks again."""
    from apache_beam.runners.worker.statesampler import StateSampler

    StateSampler.__init__.__defaults__ = (_SAMPLING_MS,)


def _is_not_beams(record: logging.LogRecord) -> bool:
    return "apache_beam" not in record.pathname


@contextlib.contextmanager
def _quiet_threads(on_thread_error: Callable[[str], None] | None) -> Iterator[None]:
    # The thread that waits for a worker process raises when that process is killed; the driver reports it better.
    before = threading.excepthook

    def hook(args: Any) -> None:
        frames = traceback.extract_tb(args.exc_traceback)
        if not any("apache_beam" in frame.filename for frame in frames):
            before(args)
        elif on_thread_error:
            on_thread_error(args.thread.name if args.thread else "")

    threading.excepthook = hook
    try:
        yield
    finally:
        _wait_for_worker_threads()
        threading.excepthook = before


def _wait_for_worker_threads() -> None:
    # A worker that is told to go may end in an error after Beam has returned; its thread would then say so to the user.
    end = time.monotonic() + _GONE_SECONDS
    for thread in threading.enumerate():
        if thread.name == "run_worker":
            thread.join(max(0.0, end - time.monotonic()))
