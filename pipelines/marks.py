"""Marks under a stage's ``_run/`` by which worker processes and the driver tell each other what happened.

::

    _run/working-00003.json   shard 3 is being worked on, by process ``pid``; gone when the shard ends, either way
    _run/failed-00003.json    shard 3 failed: the error's classes and message
    _run/worker-4711          a worker process with this pid
    _run/stop                 work on no further shard

Beam turns exceptions of worker processes into text; with these marks the driver raises the error that was meant, and
knows which shard a killed process had in hand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec

from glm_data import files
from glm_data.errors import GlmDataError, InputError, OutputError
from glm_data.stage import RUN, ShardTask

_STOP = "stop"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}


class Working(msgspec.Struct, frozen=True):
    """A shard that was being worked on."""

    shard: int
    input: str
    pid: int


class Failure(msgspec.Struct, frozen=True):
    """Why a shard failed."""

    shard: int
    input: str
    pid: int
    classes: tuple[str, ...]
    """The class of a user error and its bases, nearest first; empty for a bug of ours."""
    message: str
    traceback: str


@contextlib.contextmanager
def working(task: ShardTask) -> Iterator[None]:
    """Mark ``task`` as being worked on while the block runs; leave a failure mark if the block raises.

    Conditions of the machine (disk full, no permission, no memory) become user errors that name the shard.
    """
    folder = Path(task.folder) / RUN
    mark = folder / f"working-{task.shard:05d}.json"
    with contextlib.suppress(OutputError):  # without a mark only the message of a killed worker is poorer
        files.write_json(mark, Working(task.shard, task.input.name, os.getpid()))
    try:
        yield
    except Exception as error:
        meant = _as_user_error(task, error)
        _write_failure(folder, task, meant)
        if meant is error:
            raise
        raise meant from error
    finally:
        with contextlib.suppress(OSError):
            mark.unlink(missing_ok=True)


def _as_user_error(task: ShardTask, error: Exception) -> Exception:
    where = f"shard {task.shard} ('{task.input.name}')"
    if isinstance(error, MemoryError):
        return GlmDataError(f"{where}: out of memory; use fewer --workers, then run again to go on.")
    if isinstance(error, OSError) and error.filename == task.input.path:
        return InputError(f"{where}: '{error.filename}' cannot be read ({error.strerror}); set it right and run again.")
    if isinstance(error, OSError) and error.errno in _DISK:
        return OutputError(f"{where}: {error.strerror}; make room, then run again to go on.")
    return error


def _write_failure(folder: Path, task: ShardTask, error: Exception) -> None:
    kinds = type(error).__mro__ if isinstance(error, GlmDataError) else ()
    names = tuple(_full_name(kind) for kind in kinds if issubclass(kind, GlmDataError))
    text = "".join(traceback.format_exception(error))
    failure = Failure(task.shard, task.input.name, os.getpid(), names, str(error), text)
    with contextlib.suppress(OSError, OutputError):  # a full disk must not hide the error itself
        files.write_json(_failure_path(task), failure)
        stop(folder)


def _failure_path(task: ShardTask) -> Path:
    return Path(task.folder) / RUN / f"failed-{task.shard:05d}.json"


def has_failed(task: ShardTask) -> bool:
    """Whether ``task`` has left a failure mark."""
    return _failure_path(task).exists()


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def rebuild_error(failure: Failure) -> GlmDataError | None:
    """The error that ``failure`` records, as its own class or the nearest base known here; None for a bug."""
    known = _error_classes(GlmDataError)
    for name in failure.classes:
        if name in known:
            kind = known[name]
            return kind.__new__(kind, failure.message)
    return None


def _error_classes(kind: type[GlmDataError]) -> dict[str, type[GlmDataError]]:
    found = {_full_name(kind): kind}
    for below in kind.__subclasses__():
        found.update(_error_classes(below))
    return found


def read_working(folder: Path) -> list[Working]:
    """Shards that are being worked on, or were when their process died, in order."""
    return [msgspec.json.decode(data, type=Working) for data in _read_all(folder, "working-*.json")]


def read_failures(folder: Path) -> list[Failure]:
    """Failures so far, in order of shard."""
    return [msgspec.json.decode(data, type=Failure) for data in _read_all(folder, "failed-*.json")]


def _read_all(folder: Path, pattern: str) -> Iterator[bytes]:
    for path in sorted(folder.glob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # ended meanwhile
            yield path.read_bytes()


def clear(folder: Path) -> None:
    """Remove all marks of an earlier run."""
    for pattern in ("working-*.json", "failed-*.json", "worker-*", _STOP):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def stop(folder: Path) -> None:
    """Ask worker processes to begin no further shard."""
    (folder / _STOP).touch()


def is_stopped(folder: Path) -> bool:
    """Whether :func:`stop` was called in this run."""
    return (folder / _STOP).exists()


def worker_pids(folder: Path) -> list[int]:
    """Worker processes that this run started."""
    return [int(path.name.removeprefix("worker-")) for path in folder.glob("worker-*") if path.name[7:].isdigit()]


def is_alive(pid: int) -> bool:
    """Whether a process ``pid`` exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_workers(folder: Path) -> None:
    """End this run's worker processes at once; what they had in hand is done again by the next run."""
    stop(folder)
    for pid in worker_pids(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
