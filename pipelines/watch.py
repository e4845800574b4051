"""A thread that watches a running stage: progress for the caller, and an end to it when a worker process has died."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from glm_data.stage import RUN, SHARDS, ShardTask
from pipelines import marks

ProgressFunction = Callable[[int, int], None]

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 3.0
_CLOSING_SECONDS = 120.0
"""Once all shards are done Beam ends its workers itself, which looks like their death and may take long under load."""


class Watcher:
    """Watches the shards ``pending`` of a stage; use as a context manager around the run.

    Attributes:
        interrupted: Ctrl-C was pressed during the block.
        lost: what a dead worker process had in hand; None while all live.
    """

    def __init__(
        self, folder: Path, pending: Sequence[ShardTask], total: int, on_progress: ProgressFunction | None
    ) -> None:
        self.interrupted = False
        self.lost: list[marks.Working] | None = None
        self._shards, self._run = folder / SHARDS, folder / RUN
        self._names = {f"{task.shard:05d}.json" for task in pending}
        self._finished_before, self._total = total - len(pending), total
        self._told = self._finished_before
        self._on_progress = on_progress
        self._ended = threading.Event()
        self._died = threading.Event()
        self._lock = threading.Lock()
        self._ending = False
        self._thread = threading.Thread(target=self._watch, name="glm-data-watch", daemon=True)
        self._in_main = threading.current_thread() is threading.main_thread()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; Ctrl-C then ends worker processes at once."""
        self._thread.start()
        try:
            with self._interruptible():
                try:
                    yield
                finally:
                    with self._lock:  # from here on the thread raises nothing in this one
                        self._ended.set()
        finally:
            self._thread.join()
            self._tell()

    def count_done(self) -> int:
        """How many of the pending shards have left a record by now."""
        try:
            return len(self._names.intersection(os.listdir(self._shards)))  # noqa: PTH208 - once a poll
        except FileNotFoundError:
            return 0

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self._tell()
            if self.count_done() == len(self._names):
                self._end_soon(_CLOSING_SECONDS)
            elif self.lost is None and self._has_dead_worker():
                self.note_lost()
                marks.stop(self._run)
                self._end_soon(_GRACE_SECONDS)

    def _tell(self) -> None:
        done = self._finished_before + self.count_done()
        if self._on_progress and done != self._told:
            self._on_progress(done, self._total)
        self._told = done

    def note_thread_error(self, thread: str) -> None:
        """Beam's thread that waits for a worker process has raised: the process ended with an error."""
        if thread == "run_worker":
            self._died.set()

    def _has_dead_worker(self) -> bool:
        return self._died.is_set() or not all(marks.is_alive(pid) for pid in marks.worker_pids(self._run))

    def note_lost(self) -> None:
        """Set ``lost`` if a worker process has died before all shards were done and nobody has noted it yet."""
        if self.lost is None and self.count_done() < len(self._names) and self._has_dead_worker():
            self.lost = [item for item in marks.read_working(self._run) if not marks.is_alive(item.pid)]

    def _end_soon(self, grace: float) -> None:
        """Let the other workers end the shard they have in hand; ``grace`` seconds later make sure that the run ends.

        Beam notices a closed channel, but waits for ever for a process that died before it opened one.
        """
        deadline = time.monotonic() + grace
        while not self._ended.wait(_POLL_SECONDS):
            self._tell()
            if any(marks.is_alive(item.pid) for item in marks.read_working(self._run)):
                deadline = time.monotonic() + grace
            elif time.monotonic() > deadline:
                break
        with self._lock:
            if self._in_main and not self._ended.is_set():
                self._ending = True
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let Ctrl-C end worker processes at once: Beam would first wait for the shards they have in hand.

        Where interrupts are ignored (a background job of a script) Ctrl-C stays so, but our own thread is still heard.
        """
        before = signal.getsignal(signal.SIGINT)
        if not self._in_main or before is None:
            yield
            return

        def handle(number: int, frame: Any) -> None:
            if before is signal.SIG_IGN and not self._ending:
                return
            self.interrupted = self.lost is None
            marks.kill_workers(self._run)
            if callable(before):
                before(number, frame)
            if self._ending or not callable(before):
                raise KeyboardInterrupt

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
