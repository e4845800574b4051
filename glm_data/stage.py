"""A stage's folder and its promise: plan first, a record a shard, success last; resume to the same bytes.

::

    out/_plan.json           stage, options, inputs (name, bytes, digest), code version, key       written first
    out/_shards/00000.json   counts, reasons and files (bytes, digest) of one finished shard       one a shard
    out/_SUCCESS.json        sums over all shards, checks (guard rails), digest of all outputs     written last
    out/_run/                what differs from run to run: wall time, memory, host, command, places; and the lock
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import glm_data
from glm_data import files
from glm_data.errors import GlmDataError, StageMismatchError, UsageError
from glm_data.inputs import check_unchanged, describe_input, find_inputs
from glm_data.manifest import (
    INPUTS,
    PLAN,
    RUN,
    SHARDS,
    SUCCESS,
    Check,
    InputFile,
    OutputFile,
    ShardRecord,
    ShardTask,
    Success,
    is_in_place,
    output_file,
    read_success,
    sealed,
)

__all__ = [
    "PLAN",
    "RUN",
    "SHARDS",
    "SUCCESS",
    "Check",
    "InputFile",
    "OutputFile",
    "ShardRecord",
    "ShardTask",
    "Stage",
    "Success",
    "bookkeeping_fault",
    "check_unchanged",
    "describe_input",
    "explain_difference",
    "find_inputs",
    "finished",
    "is_in_place",
    "make_plan",
    "open_stage",
    "output_file",
    "peak_memory_bytes",
    "read_success",
    "write_shard_record",
]

_LOCK = "lock"
_SHOWN_VALUES = 200
"""Characters up to which two values of an option are said in a sentence."""
_NOTED_PACKAGES = ("apache-beam", "numba", "numpy", "pyarrow", "torch")


def write_shard_record(folder: Path, record: ShardRecord, started: float) -> None:
    """Commit a finished shard: its numbers must add up, its files must be in place. Callable from any worker.

    ``started`` is ``time.perf_counter()`` at the shard's start; wall time and peak memory go to ``_run/``.
    """
    accounted = record.kept + sum(record.dropped.values()) + sum(record.unreadable.values())
    if record.records != accounted:
        raise AssertionError(f"shard {record.shard}: {record.records} records read but {accounted} accounted for")
    missing = [item.name for item in record.files if not is_in_place(folder, item)]
    if missing:
        raise AssertionError(f"shard {record.shard}: {missing[0]} is not in place")
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
        self._resumed = len(self.records())

    def records(self) -> dict[int, ShardRecord]:
        """Valid shard records by shard number: readable, and their files present with the recorded size."""
        found: dict[int, ShardRecord] = {}
        for path in sorted((self.folder / SHARDS).glob("*.json")):
            with contextlib.suppress(msgspec.DecodeError):
                record = files.read_json(path, ShardRecord)
                if all(is_in_place(self.folder, item) for item in record.files):
                    found[record.shard] = record
        return found

    def pending(self, shards: int) -> list[int]:
        """The numbers below ``shards`` that still have to be done."""
        done = self.records()
        return [shard for shard in range(shards) if shard not in done]

    def succeed(self, shards: int, checks: Sequence[Check] = (), facts: Mapping[str, Any] | None = None) -> Success:
        """Sum the records of all ``shards`` and write the success manifest; every shard must be done.

        A stage that was finished already keeps its manifest and the measurements of the run that finished it.
        """
        records = self.records()
        missing = [shard for shard in range(shards) if shard not in records]
        if missing:
            raise AssertionError(f"shards without a record: {missing[:5]}")
        success = _sum_up(self.plan, [records[shard] for shard in range(shards)], tuple(checks), dict(facts or {}))
        if success != _finished_whole(self.folder):
            self._write_run()
            files.write_json(self.folder / SUCCESS, success)
        return success

    def _write_run(self) -> None:
        measured = self._measured()
        run = {
            "seconds": time.perf_counter() - self._started,
            "shard_seconds": sum(item["seconds"] for item in measured),
            "resumed_shards": self._resumed,
            "workers": len({item["pid"] for item in measured}),
            "peak_bytes": max([item["peak_bytes"] for item in measured] + [peak_memory_bytes()]),
            "command": sys.argv,
            "folder": str(Path.cwd()),
            "host": platform.node(),
            "python": platform.python_version(),
            "packages": _versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        files.write_json(self.folder / RUN / "stage.json", run)

    def _measured(self) -> list[dict[str, Any]]:
        """What the shards' workers measured; a damaged one is left out, as nothing but a report depends on it."""
        found = []
        for path in sorted((self.folder / RUN).glob("[0-9]*.json")):
            with contextlib.suppress(msgspec.DecodeError):
                found.append(files.read_json(path))
        return found


def _sum_up(
    plan: Mapping[str, Any], records: Sequence[ShardRecord], checks: tuple[Check, ...], facts: dict[str, Any]
) -> Success:
    outputs = tuple(sorted((item for record in records for item in record.files), key=lambda item: item.name))
    if len({item.name for item in outputs}) < len(outputs):
        raise AssertionError("two shards wrote a file of one name")
    success = Success(
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
        facts=_as_json(facts),
        digest=files.digest_value([[item.name, item.digest] for item in outputs]),
    )
    return sealed(success, records)


def bookkeeping_fault(folder: Path) -> str:
    """What is wrong with the plan, the records or the success manifest of a finished stage; empty if they agree."""
    success, plan = read_success(folder), _read_plan(folder)
    if plan is None or plan["key"] != files.digest_value({name: plan[name] for name in plan if name != "key"}):
        return f"{PLAN} is damaged"
    if plan["key"] != success.key:
        return f"{PLAN} and {SUCCESS} are of two runs"
    records = Stage(folder, plan).records()
    missing = [shard for shard in range(success.shards) if shard not in records]
    if missing:
        return f"the record of shard {missing[0]} is missing or damaged"
    in_order = [records[shard] for shard in range(success.shards)]
    written = {SUCCESS: success, PLAN: plan} | {
        f"{SHARDS}/{shard:05d}.json": record for shard, record in records.items()
    }
    changed = [name for name, value in written.items() if not files.holds_json(folder / name, value)]
    if changed:
        return f"{changed[0]} was changed after it was written"
    if _sum_up(plan, in_order, success.checks, success.facts) != success:
        return f"{SUCCESS} or a record in {SHARDS} was changed after it was written"
    return ""


def _versions() -> dict[str, str]:
    """The installed packages that results or speed depend on, with their versions."""
    from importlib import metadata  # here, as it would be a fifth of what --help takes

    found = {}
    for name in _NOTED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _as_json(value: Any) -> Any:
    """``value`` as it will be read back from JSON (tuples become lists, for one), so that plans can be compared."""
    return msgspec.json.decode(msgspec.json.encode(value, order="sorted"))


def _sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


@contextlib.contextmanager
def open_stage(
    folder: Path, name: str, options: Mapping[str, Any], inputs: Sequence[InputFile], *, overwrite: bool = False
) -> Iterator[Stage]:
    """Begin or resume the stage ``name`` in ``folder``; holds a lock until the block ends.

    Raises :class:`StageMismatchError` when the folder was begun with another key and holds work of it (unless
    ``overwrite``, which empties it; with the same key it is resumed either way), :class:`UsageError` when it holds
    something else or another process is at work in it, :class:`OutputError` when it cannot be written.
    """
    plan = make_plan(name, options, inputs)
    _refuse_foreign(folder)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_lock(folder))
            _settle(folder, plan, overwrite)
            _note_places(folder, inputs)
        except OSError as error:
            raise files.output_error(folder, error) from error
        yield Stage(folder, plan)


def _settle(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
    """Make the locked folder one that was begun with ``plan``, holding finished work of that plan alone."""
    if (folder / PLAN).exists():
        old = _read_plan(folder)
        if old is None or old["key"] != plan["key"]:
            if not overwrite and not _is_bare(folder):
                raise StageMismatchError(
                    f"'{folder}' was begun with other settings ({explain_difference(old, plan)}); "
                    "give another output folder, or --overwrite to start afresh."
                )
            _empty(folder)
    files.remove_temporaries(folder)
    if (folder / SUCCESS).exists() and _finished_whole(folder) is None:
        (folder / SUCCESS).unlink()
    if not (folder / PLAN).exists():
        files.write_json(folder / PLAN, plan)


def _is_bare(folder: Path) -> bool:
    """Whether a begun folder holds no work yet, as where its options or a list that they name were refused."""
    return all(path.name in (PLAN, RUN) or path.name.startswith(files.TEMPORARY_PREFIX) for path in folder.iterdir())


def _note_places(folder: Path, inputs: Sequence[InputFile]) -> None:
    """Keep where the inputs lie, for whoever wants to see their texts later."""
    path, places = folder / RUN / INPUTS, {item.name: item.path for item in inputs if item.path}
    with contextlib.suppress(OSError, msgspec.DecodeError):
        if files.read_json(path) == places:
            return
    if places:
        files.write_json(path, places)


def _empty(folder: Path) -> None:
    """Delete everything but the lock: the manifest first, the plan last, so that a kill leaves an unfinished stage."""
    (folder / SUCCESS).unlink(missing_ok=True)
    spared = (folder / RUN, folder / RUN / _LOCK, folder / PLAN)
    for path in [*folder.iterdir(), *(folder / RUN).iterdir()]:
        if path in spared:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    (folder / PLAN).unlink()


def _finished_whole(folder: Path) -> Success | None:
    """The success manifest if it is readable and every file that it lists is in place."""
    try:
        success = read_success(folder)
    except GlmDataError:
        return None
    return success if all(is_in_place(folder, item) for item in success.files) else None


def finished(folder: Path, name: str, options: Mapping[str, Any], inputs: Sequence[InputFile]) -> Success | None:
    """The success manifest if ``folder`` already holds exactly this stage, finished and whole; else None."""
    success = _finished_whole(folder)
    if success is None or success.key != make_plan(name, options, inputs)["key"]:
        return None
    return success


def make_plan(name: str, options: Mapping[str, Any], inputs: Sequence[InputFile]) -> dict[str, Any]:
    """The plan of a stage; its key is a digest of everything that decides the output."""
    plan: dict[str, Any] = {
        "stage": name,
        "version": glm_data.__version__,
        "options": _as_json(dict(options)),
        "inputs": [{"name": item.name, "bytes": item.bytes, "digest": item.digest} for item in inputs],
    }
    return {**plan, "key": files.digest_value(plan)}


def _refuse_foreign(folder: Path) -> None:
    """Raise :class:`UsageError` for a file, or a folder that holds something and was not begun by a stage."""
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"'{folder}' is a file; give a folder for the output.")
        if not folder.exists() or (folder / PLAN).exists():
            return
        foreign = sorted(path.name for path in folder.iterdir() if not _is_ours(path.name))
    except OSError as error:
        raise files.output_error(folder, error) from error
    if foreign:
        raise UsageError(f"'{folder}' already holds other files ('{foreign[0]}'); give an empty or new folder.")


def _is_ours(name: str) -> bool:
    """Whether a stage killed before its plan was written may have left this."""
    return name == RUN or name.startswith(files.TEMPORARY_PREFIX)


class _Plan(msgspec.Struct):
    stage: str
    version: str
    options: dict[str, Any]
    inputs: list[dict[str, Any]]
    key: str


def _read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan of a stage folder, or None if it is damaged."""
    try:
        plan = files.read_json(folder / PLAN, _Plan)
    except msgspec.DecodeError:
        return None
    return msgspec.structs.asdict(plan)


def explain_difference(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Name what differs between two plans, in a few words: another stage, or version, options and inputs."""
    if old is None:
        return "its plan is damaged"
    if old["stage"] != new["stage"]:
        return f"stage {old['stage']} -> {new['stage']}"
    changes = [f"version {old['version']} -> {new['version']}"] if old["version"] != new["version"] else []
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
            values = f"{before!r} -> {after!r}"
            changes.append(f"{prefix}{name} {values if len(values) <= _SHOWN_VALUES else 'has changed'}")
    return changes


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the stage's lock, which the system lifts when the process ends in whatever way."""
    (folder / RUN).mkdir(parents=True, exist_ok=True)
    with (folder / RUN / _LOCK).open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            message = f"{holder} is at work in '{folder}'; wait for it or give another folder."
            raise UsageError(message) from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {platform.node()}")
        handle.flush()
        yield
