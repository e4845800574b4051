"""What a stage writes about itself: the types of its plan, shard records and success manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import InputError, UsageError

PLAN, SUCCESS, SHARDS, RUN = "_plan.json", "_SUCCESS.json", "_shards", "_run"
TASKS = "tasks.json"
"""In ``_run/``: the bytes that each shard's task reads, for whoever watches."""
INPUTS = "inputs.json"
"""In ``_run/``: where the inputs lay, by name. Nothing but looking at texts again depends on it."""
STAGE_ORDER = ("filter", "dedupe", "decontaminate", "tokenizer", "tokenize", "mip", "pack", "train", "quantize")


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
    seal: str = ""
    """xxh3-128 of everything else in this manifest and of all shard records, see :func:`sealed`."""

    @property
    def ok(self) -> bool:
        """Whether no guard rail tripped."""
        return all(check.ok for check in self.checks)


def unreadable_check(read: Iterable[ShardRecord | Success], most: float) -> Check:
    """The guard rail on records that could not be read: at most the share ``most`` of all.

    Among shards the worst input is named; what could not be read of it lies in the stage's ``unreadable/``.
    """
    items = list(read)
    total = sum(item.records for item in items)
    bad = sum(sum(item.unreadable.values()) for item in items)
    share = bad / total if total else 0.0
    sentence = f"{bad:,} of {total:,} records ({share:.2%}) are unreadable; the limit is {most:.2%}"
    if share > most:
        worst = max(items, key=lambda item: sum(item.unreadable.values()))
        if isinstance(worst, ShardRecord):
            sentence += f", worst is '{worst.input}': look at unreadable/"
        sentence += ", or raise --max-bad-fraction with --overwrite"
    return Check(name="unreadable", ok=share <= most, sentence=sentence + ".")


def sealed(success: Success, records: Sequence[ShardRecord]) -> Success:
    """``success`` with the seal that its other fields and the records of its shards, in their order, give."""
    rest = msgspec.structs.replace(success, seal="")
    return msgspec.structs.replace(success, seal=files.digest_value([rest, list(records)]))


def read_success(folder: Path) -> Success:
    """The success manifest of a finished stage; :class:`UsageError` if the folder is not one."""
    try:
        success: Success = files.read_json(folder / SUCCESS, Success)
        return success
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"'{folder}' is not a finished stage (no {SUCCESS}); run it to its end first.") from None
    except msgspec.DecodeError as error:
        raise InputError(f"'{folder / SUCCESS}' is damaged ({error}); run that stage again.") from None
    except OSError as error:
        raise InputError(f"'{folder / SUCCESS}' cannot be read ({error.strerror}).") from error


def output_file(folder: Path, name: str, rows: int = 0) -> OutputFile:
    """Measure a file that a shard wrote at ``folder / name``; ``name`` is relative, with ``/``."""
    path = folder / name
    return OutputFile(name=name, bytes=path.stat().st_size, digest=files.digest_file(path), rows=rows)


def is_in_place(folder: Path, item: OutputFile) -> bool:
    """Whether ``item`` lies in the stage ``folder`` with the recorded size."""
    path = folder / item.name
    return path.is_file() and path.stat().st_size == item.bytes


def stage_folders(run_dir: Path) -> list[Path]:
    """The stage folders of a run in the order of the work; the folder itself if it is one."""
    if (run_dir / PLAN).exists():
        return [run_dir.absolute()]
    if not run_dir.is_dir():
        raise UsageError(f"'{run_dir}' is no folder; give the folder of a run or of a stage.")
    found = [path for path in run_dir.iterdir() if (path / PLAN).exists()]
    if not found:
        raise UsageError(f"'{run_dir}' holds no stage; give the folder of a run or of a stage.")
    return sorted(found, key=_place_in_order)


def _place_in_order(folder: Path) -> tuple[int, str]:
    known = folder.name in STAGE_ORDER
    return (STAGE_ORDER.index(folder.name) if known else len(STAGE_ORDER), folder.name)
