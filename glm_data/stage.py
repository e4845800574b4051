"""A stage's folder and its promise: plan first, a record a shard, success last; resume to the same bytes.

::

    out/_plan.json           stage, options, inputs (name, bytes, digest), code version, key       written first
    out/_shards/00000.json   counts, reasons and files (bytes, digest) of one finished shard       one a shard
    out/_SUCCESS.json        sums over all shards, checks (guard rails), digest of all outputs     written last
    out/_run/                what differs from run to run: wall time, memory, host, command; and the lock
    out/...                  what the stage makes, listed in the records; never trust a glob

Everything outside ``_run/`` is a function of inputs, options and code: the same bytes for any number of workers,
on any runner, after any crash. Run again with the same key: finished shards are skipped. With another key: refused,
with the differences named.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import resource
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import glm_data
from glm_data import files
from glm_data.errors import InputError, StageMismatchError, UsageError

PLAN, SUCCESS, SHARDS, RUN = "_plan.json", "_SUCCESS.json", "_shards", "_run"


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One input file: ``name`` is what ids and records use (relative, with ``/``), ``path`` where it lies now."""

    name: str
    path: str
    bytes: int
    digest: str


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file a shard wrote: ``name`` relative to the stage's folder, and its rows if it has any."""

    name: str
    bytes: int
    digest: str
    rows: int = 0


class ShardTask(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work of a stage, small enough to travel through any runner: a shard function's only argument.

    A shard function is a module-level ``def f(task: ShardTask) -> ShardRecord``: it reads ``task.input``, writes its
    files below ``task.folder`` atomically, and is a function of its task alone. It may run twice (runners retry).
    """

    shard: int
    folder: str
    """The stage's folder."""
    input: InputFile
    options: dict[str, Any] = {}


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one finished shard did. ``records == kept + sum(dropped) + sum(unreadable)`` is asserted."""

    shard: int
    input: str
    records: int = 0
    kept: int = 0
    dropped: dict[str, int] = {}
    """Dropped documents by reason."""
    unreadable: dict[str, int] = {}
    """Records that could not be read, by reason."""
    counts: dict[str, int] = {}
    """Further counters, summed over shards: ``text_bytes_in``, ``kept/<source>`` and whatever a stage adds."""
    files: tuple[OutputFile, ...] = ()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A guard rail: a sentence with the measured value, and whether it held. A tripped one makes exit code 3."""

    name: str
    ok: bool
    sentence: str


class Success(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over all shards of a finished stage."""

    stage: str
    key: str
    version: str
    shards: int
    records: int
    kept: int
    dropped: dict[str, int]
    unreadable: dict[str, int]
    counts: dict[str, int]
    files: tuple[OutputFile, ...]
    checks: tuple[Check, ...]
    facts: dict[str, Any]
    digest: str
    """xxh3-128 over all output files' names and digests: two runs are equal if this is."""

    @property
    def ok(self) -> bool:
        """Whether no guard rail tripped."""
        return all(check.ok for check in self.checks)


def describe_input(path: Path, name: str) -> InputFile:
    """Measure one input file: size and xxh3-128 of its bytes (read once, at disk speed)."""
    return InputFile(name=name, path=str(path), bytes=path.stat().st_size, digest=files.digest_file(path))


def find_inputs(paths: Sequence[str | Path]) -> tuple[InputFile, ...]:
    """Resolve files, folders, globs and finished stage folders to input files, in order of name.

    A folder stands for all files in it (hidden and ``_`` names excepted), named ``<folder name>/<relative path>``;
    a finished stage folder for the ``data/`` files of its success manifest. Nothing found, an unfinished stage, or
    two inputs of one name is a :class:`UsageError`.
    """
    found: list[InputFile] = []
    for given in paths:
        found.extend(_find(str(given)))
    names = Counter(item.name for item in found)
    doubled = [name for name, count in names.items() if count > 1]
    if doubled:
        raise UsageError(f"two inputs are named '{doubled[0]}', so ids would clash; rename one of them.")
    return tuple(sorted(found, key=lambda item: item.name))


def _find(given: str) -> list[InputFile]:
    path = Path(given)
    if path.is_dir():
        return _find_in_folder(path)
    if path.is_file():
        return [describe_input(path, path.name)]
    if any(mark in given for mark in "*?["):
        anchor = Path(path.anchor)
        matches = sorted(match for match in anchor.glob(str(path.relative_to(anchor))) if match.is_file())
        if matches:
            return [describe_input(match, f"{match.parent.name}/{match.name}") for match in matches]
        raise UsageError(f"'{given}' matches no file; check the pattern and the working directory.")
    raise UsageError(f"'{given}' does not exist; give a file, a folder, a pattern or a finished stage's folder.")


def _find_in_folder(folder: Path) -> list[InputFile]:
    if (folder / PLAN).exists():
        success = read_success(folder)
        return [
            InputFile(name=item.name, path=str(folder / item.name), bytes=item.bytes, digest=item.digest)
            for item in success.files
            if item.name.startswith("data/")
        ]
    inside = [path for path in folder.rglob("*") if path.is_file() and _is_visible(path.relative_to(folder))]
    if not inside:
        raise UsageError(f"'{folder}' holds no file to read; give a folder with shards in it.")
    root = folder.resolve()
    return [describe_input(path, f"{root.name}/{path.relative_to(folder).as_posix()}") for path in inside]


def _is_visible(relative: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in relative.parts)


def read_success(folder: Path) -> Success:
    """The success manifest of a finished stage; :class:`UsageError` if the folder is not one."""
    try:
        return msgspec.json.decode((folder / SUCCESS).read_bytes(), type=Success)
    except FileNotFoundError:
        raise UsageError(f"'{folder}' is not a finished stage (no {SUCCESS}); run it to its end first.") from None
    except msgspec.DecodeError as error:
        raise InputError(f"'{folder / SUCCESS}' is damaged ({error}); run that stage again with --overwrite.") from None


def output_file(folder: Path, name: str, rows: int = 0) -> OutputFile:
    """Measure a file that a shard wrote at ``folder / name``."""
    path = folder / name
    return OutputFile(name=name, bytes=path.stat().st_size, digest=files.digest_file(path), rows=rows)


def write_shard_record(folder: Path, record: ShardRecord, started: float) -> None:
    """Commit a finished shard: its numbers must add up, its files must be in place. Callable from any worker.

    ``started`` is ``time.perf_counter()`` at the shard's start; wall time and peak memory go to ``_run/``.
    """
    accounted = record.kept + sum(record.dropped.values()) + sum(record.unreadable.values())
    if record.records != accounted:
        raise AssertionError(f"shard {record.shard}: {record.records} records read but {accounted} accounted for")
    measured = {"seconds": time.perf_counter() - started, "peak_bytes": peak_memory_bytes(), "pid": os.getpid()}
    files.write_json(folder / RUN / f"{record.shard:05d}.json", measured)
    files.write_json(folder / SHARDS / f"{record.shard:05d}.json", record)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Stage:
    """An open stage folder. Use :func:`open_stage`."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        self.plan = plan
        self.key: str = plan["key"]
        self._started = time.perf_counter()

    def records(self) -> dict[int, ShardRecord]:
        """Valid shard records by shard number: readable, and their files present with the recorded size."""
        found: dict[int, ShardRecord] = {}
        for path in sorted((self.folder / SHARDS).glob("*.json")):
            with contextlib.suppress(msgspec.DecodeError):
                record = msgspec.json.decode(path.read_bytes(), type=ShardRecord)
                if all(self._is_in_place(item) for item in record.files):
                    found[record.shard] = record
        return found

    def _is_in_place(self, item: OutputFile) -> bool:
        path = self.folder / item.name
        return path.is_file() and path.stat().st_size == item.bytes

    def pending(self, shards: int) -> list[int]:
        """The numbers below ``shards`` that still have to be done."""
        done = self.records()
        return [shard for shard in range(shards) if shard not in done]

    def succeed(self, shards: int, checks: Sequence[Check] = (), facts: Mapping[str, Any] | None = None) -> Success:
        """Sum the records of all ``shards`` and write the success manifest; every shard must be done."""
        records = self.records()
        missing = [shard for shard in range(shards) if shard not in records]
        if missing:
            raise AssertionError(f"shards without a record: {missing[:5]}")
        success = _sum_up(self.plan, [records[shard] for shard in range(shards)], tuple(checks), dict(facts or {}))
        self._write_run(success)
        files.write_json(self.folder / SUCCESS, success)
        return success

    def _write_run(self, success: Success) -> None:
        measured = [files.read_json(path) for path in sorted((self.folder / RUN).glob("[0-9]*.json"))]
        peaks = [item["peak_bytes"] for item in measured] + [peak_memory_bytes()]
        run = {
            "seconds": time.perf_counter() - self._started,
            "shard_seconds": sum(item["seconds"] for item in measured),
            "workers": len({item["pid"] for item in measured}),
            "peak_bytes": max(peaks),
            "command": sys.argv,
            "python": platform.python_version(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        files.write_json(self.folder / RUN / "stage.json", run)


def _sum_up(
    plan: Mapping[str, Any], records: Sequence[ShardRecord], checks: tuple[Check, ...], facts: dict[str, Any]
) -> Success:
    outputs = tuple(sorted((item for record in records for item in record.files), key=lambda item: item.name))
    return Success(
        stage=plan["stage"],
        key=plan["key"],
        version=plan["version"],
        shards=len(records),
        records=sum(record.records for record in records),
        kept=sum(record.kept for record in records),
        dropped=_sum_counts(record.dropped for record in records),
        unreadable=_sum_counts(record.unreadable for record in records),
        counts=_sum_counts(record.counts for record in records),
        files=outputs,
        checks=checks,
        facts=facts,
        digest=files.digest_value([[item.name, item.digest] for item in outputs]),
    )


def _sum_counts(counts: Iterator[Mapping[str, int]] | Any) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


@contextlib.contextmanager
def open_stage(
    folder: Path, name: str, options: Mapping[str, Any], inputs: Sequence[InputFile], *, overwrite: bool = False
) -> Iterator[Stage]:
    """Begin or resume the stage ``name`` in ``folder``; holds a lock until the block ends.

    Raises :class:`StageMismatchError` when the folder was begun with another key (unless ``overwrite``, which empties it),
    :class:`UsageError` when it holds something else or another process is at work in it.
    """
    plan = make_plan(name, options, inputs)
    _prepare_folder(folder, plan, overwrite)
    with _lock(folder):
        files.remove_temporaries(folder)
        files.write_json(folder / PLAN, plan)
        yield Stage(folder, plan)


def finished(folder: Path, name: str, options: Mapping[str, Any], inputs: Sequence[InputFile]) -> Success | None:
    """The success manifest if ``folder`` already holds exactly this stage, finished; else None."""
    if not (folder / SUCCESS).exists():
        return None
    success = read_success(folder)
    return success if success.key == make_plan(name, options, inputs)["key"] else None


def make_plan(name: str, options: Mapping[str, Any], inputs: Sequence[InputFile]) -> dict[str, Any]:
    """The plan of a stage; its key is a digest of everything that decides the output."""
    plan: dict[str, Any] = {
        "stage": name,
        "version": glm_data.__version__,
        "options": dict(options),
        "inputs": [{"name": item.name, "bytes": item.bytes, "digest": item.digest} for item in inputs],
    }
    return {**plan, "key": files.digest_value(plan)}


def _prepare_folder(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; give a folder for the output.")
    if (folder / PLAN).exists():
        old = _read_plan(folder)
        if old is not None and old.get("key") == plan["key"]:
            return
        if not overwrite:
            raise StageMismatchError(
                f"'{folder}' was begun with other settings ({explain_difference(old, plan)}); "
                "give another output folder, or --overwrite to start afresh."
            )
        shutil.rmtree(folder)
    elif folder.exists() and any(path.name != RUN for path in folder.iterdir()):
        raise UsageError(f"'{folder}' already holds other files; give an empty or new folder.")
    folder.mkdir(parents=True, exist_ok=True)


def _read_plan(folder: Path) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = files.read_json(folder / PLAN)
    except msgspec.DecodeError:
        return None
    return plan


def explain_difference(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Name what differs between two plans, in a few words: options, inputs, version."""
    if old is None:
        return "its plan is damaged"
    heads = [field for field in ("stage", "version") if old.get(field) != new[field]]
    changes = [f"{field} {old.get(field)} -> {new[field]}" for field in heads]
    changes += _option_changes(old.get("options", {}), new["options"])
    before = {item["name"]: item["digest"] for item in old.get("inputs", [])}
    after = {item["name"]: item["digest"] for item in new["inputs"]}
    changes += [f"input {name} is gone" for name in before if name not in after]
    changes += [f"input {name} is new" for name in after if name not in before]
    changes += [f"input {name} has changed" for name in after if name in before and before[name] != after[name]]
    shown = changes[:4] + ([f"and {len(changes) - 4} more"] if len(changes) > 4 else [])
    return "; ".join(shown) or "its key differs"


def _option_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    changes: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += _option_changes(before, after, f"{prefix}{name}.")
        elif before != after:
            changes.append(f"{prefix}{name} {before!r} -> {after!r}")
    return changes


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    (folder / RUN).mkdir(parents=True, exist_ok=True)
    with (folder / RUN / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"another process is at work in '{folder}'; wait for it or give another folder."
            raise UsageError(message) from None
        yield
