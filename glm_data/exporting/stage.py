"""The export stage: a finished pack to a folder that another trainer opens, resumable and with digests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from glm_data import stage as stages
from glm_data.config import Config, Doc, to_mapping
from glm_data.exporting import hf_dense, mds, megatron
from glm_data.exporting.columns import DENSE
from glm_data.exporting.jsonl import write_jsonl
from glm_data.inputs import stage_files
from glm_data.loading.rows import PackedRows
from glm_data.manifest import OutputFile
from glm_data.stage import Check, ShardRecord, Success

STAGE = "export"
Format = Literal["jsonl", "hf-dense", "megatron", "mds"]
_ROWS_A_FILE = 8192


class ExportOptions(Config, frozen=True):
    """What to write."""

    to: Annotated[Format, Doc("format: JSON lines, Arrow for datasets, Megatron-LM's .bin and .idx, mosaicml's MDS")]
    epoch: Annotated[int, Doc("mask set to write", 0)] = 0


@dataclass(frozen=True)
class _Task:
    """One file (or pair of files) of an export."""

    name: str
    rows: int
    """How many rows it adds to those that the stage has exported."""
    write: Callable[[Path], tuple[list[str], int]]
    """Takes the stage's folder; returns the names of the files written and the targets in them."""


def export_stage(pack: Path, out: Path, options: ExportOptions, *, overwrite: bool = False) -> Success:
    """Export the pack in ``pack`` to ``out``. Every row is exported, in the pack's order.

    The guard rail counts the targets of the exported loss masks against the pack's own. Raises as
    :meth:`PackedRows.open` and :func:`glm_data.stage.open_stage` do.
    """
    rows = PackedRows.open(pack, options.epoch)
    with stages.open_stage(out, STAGE, to_mapping(options), stage_files(pack), overwrite=overwrite) as stage:
        tasks = _TASKS[options.to](rows)
        for number in stage.pending(len(tasks)):
            started, task = time.perf_counter(), tasks[number]
            names, targets = task.write(out)
            files = tuple(stages.output_file(out, name, task.rows) for name in names)
            counts = {"targets": targets}
            record = ShardRecord(
                shard=number, input=task.name, records=task.rows, kept=task.rows, counts=counts, files=files
            )
            stages.write_shard_record(out, record, started)
        counted = sum(record.counts["targets"] for record in stage.records().values())
        return stage.succeed(len(tasks), [_check(rows, counted)], _facts(rows, options))


def _check(rows: PackedRows, counted: int) -> Check:
    parts = _parts(rows, _ROWS_A_FILE) if rows.epoch else []
    wanted = sum(int(rows.rows(np.arange(first, last)).spans[:, 2].sum()) for first, last in parts)
    if not rows.epoch:
        wanted = sum(count for name, count in rows.manifest.counts.items() if name.startswith("loss/"))
    return Check(name="targets", ok=counted == wanted, sentence=f"{counted} targets exported, {wanted} in the pack.")


def _facts(rows: PackedRows, options: ExportOptions) -> dict[str, Any]:
    kept = ("seq_length", "specials", "fingerprint", "vocab_size")
    facts = {name: rows.manifest.facts[name] for name in kept}
    return {**facts, "format": options.to, "epoch": options.epoch, "rows": len(rows), "pack": rows.manifest.digest}


def _parts(rows: PackedRows, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]


def _files(
    rows: PackedRows, size: int, name_of: Callable[[int, int], str], write: Callable[[PackedRows, int, int, Path], int]
) -> list[_Task]:
    """A task for each file of ``size`` rows."""
    parts = _parts(rows, size)

    def task(number: int, first: int, last: int) -> _Task:
        name = name_of(number, len(parts))
        return _Task(name, last - first, lambda out: ([name], write(rows, first, last, out / name)))

    return [task(number, *part) for number, part in enumerate(parts)]


def _jsonl(rows: PackedRows) -> list[_Task]:
    return _files(rows, _ROWS_A_FILE, lambda number, _: f"data/part-{number:05d}.jsonl", write_jsonl)


def _hf_dense(rows: PackedRows) -> list[_Task]:
    tasks = _files(
        rows, _ROWS_A_FILE, lambda number, count: f"data-{number:05d}-of-{count:05d}.arrow", hf_dense.write_arrow
    )
    names = [task.name for task in tasks]
    return [*tasks, _Task("sidecars", 0, lambda out: (hf_dense.write_sidecars(out, names, rows.seq_length), 0))]


def _megatron(rows: PackedRows) -> list[_Task]:
    def task(name: str) -> _Task:
        first = name == DENSE[0]

        def write(out: Path) -> tuple[list[str], int]:
            names, targets = megatron.write_column(rows, name, out)
            return names, targets if first else 0

        return _Task(name, len(rows) if first else 0, write)

    return [task(name) for name in DENSE]


def _mds(rows: PackedRows) -> list[_Task]:
    tasks = _files(
        rows, mds.rows_per_shard(rows.seq_length), lambda number, _: f"shard.{number:05d}.mds", mds.write_shard
    )

    def write_index(out: Path) -> tuple[list[str], int]:
        shards: list[OutputFile] = [stages.output_file(out, task.name, task.rows) for task in tasks]
        mds.write_index(out, shards, rows.seq_length)
        return [mds.INDEX], 0

    return [*tasks, _Task(mds.INDEX, 0, write_index)]


_TASKS: dict[str, Callable[[PackedRows], list[_Task]]] = {
    "jsonl": _jsonl,
    "hf-dense": _hf_dense,
    "megatron": _megatron,
    "mds": _mds,
}
