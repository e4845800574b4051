"""Two runs beside each other: options, inputs, counts, digests by stage, and documents that only one of them kept."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import GlmDataError
from glm_data.inspection import FinishedStage, Run, open_run, trace
from glm_data.report.collect import collect
from glm_data.report.text import flatten

MOST_IDS = 2_000_000
"""Documents of a stage that are compared by their ids; of more, every n-th by a hash of the id."""
_EXAMPLES = 5
_LOOKED_UP = ("filter", "dedupe", "decontaminate")


def compare(first: Path, second: Path) -> dict[str, Any]:
    """What differs between two runs, or two stages: ``same``, and by stage in the order of the work

    ``only`` (``first`` or ``second``) for a stage that one of them has, or ``same`` with ``options``, ``inputs``,
    ``counts`` as ``(name, before, after)`` and ``documents``: ids that one of them kept, with what the other did.
    Stages are matched by kind. Raises as :func:`glm_data.inspection.open_run`.
    """
    runs = open_run(first), open_run(second)
    told = collect(first)["stages"], collect(second)["stages"]
    by_kind = [{stage.kind: stage for stage in run.stages} for run in runs]
    stages: dict[str, Any] = {}
    for kind in dict.fromkeys([*by_kind[0], *by_kind[1]]):
        one, other = (kinds.get(kind) for kinds in by_kind)
        if one is None or other is None:
            stages[kind] = {"only": "second" if one is None else "first"}
        else:
            values = told[0][one.folder.name], told[1][other.folder.name]
            stages[kind] = _compare_stage(runs, (one, other), values)
    return {"same": all(stage.get("same", False) for stage in stages.values()), "stages": stages}


def _compare_stage(
    runs: tuple[Run, Run], stages: tuple[FinishedStage, FinishedStage], told: tuple[Any, Any]
) -> dict[str, Any]:
    one, other = stages
    same = one.success.digest == other.success.digest
    return {
        "same": same,
        "options": _changes(dict(flatten(told[0]["options"])), dict(flatten(told[1]["options"]))),
        "inputs": _changes(*({item["name"]: item["digest"] for item in stage.plan["inputs"]} for stage in stages)),
        "counts": [] if same else _changes(*(dict(_numbers(value)) for value in told)),
        "documents": [] if same or one.kind not in _LOOKED_UP else _documents(runs, stages),
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*before, *after])
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _numbers(stage: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Records, reasons, counters and numeric facts of a stage, by name."""
    yield from ((name, stage[name]) for name in ("records", "kept"))
    for group in ("dropped", "unreadable"):
        yield from ((f"{group}/{name}", count) for name, count in stage[group].items())
    yield from stage["counts"].items()
    for name, value in flatten(stage["facts"]):
        number = _number(value)
        if number is not None and "[" not in name:
            yield name, number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _documents(runs: tuple[Run, Run], stages: tuple[FinishedStage, FinishedStage]) -> list[dict[str, str]]:
    """Documents that only one of the stages kept, five a side, with what the other says of them."""
    ids = _kept_ids(*stages)
    found = []
    for side, run in ((0, runs[1]), (1, runs[0])):
        for id in sorted(ids[side] - ids[1 - side])[:_EXAMPLES]:
            found.append({"id": id, "kept_by": ("first", "second")[side], "other": _fate(run, id, stages[0].kind)})
    return found


def _kept_ids(*stages: FinishedStage) -> list[set[str]]:
    """Ids of kept documents in files that the stages do not have in common."""
    digests = [{item.digest for item in stage.success.files} for stage in stages]
    shared = digests[0] & digests[1]
    every = max(1, max(stage.success.kept for stage in stages) // MOST_IDS)
    found: list[set[str]] = []
    for stage in stages:
        own = [item for item in stage.success.files if item.name.startswith("data/") and item.digest not in shared]
        paths = [stage.folder / item.name for item in own if item.name.endswith(".parquet")]
        found.append({id for path in paths for id in _ids(path) if every == 1 or zlib.crc32(id.encode()) % every == 0})
    return found


def _ids(path: Path) -> Iterator[str]:
    """Ids in a file of documents; none of one that is gone or damaged, whose numbers are compared all the same."""
    with contextlib.suppress(OSError, pa.ArrowException), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["id"], use_threads=False):
            yield from batch.column("id").to_pylist()


def _fate(run: Run, id: str, kind: str) -> str:
    """What a run did with a document, up to a stage of that kind."""
    try:
        events = trace(run, id).events
    except GlmDataError:
        return "does not have it"
    return next((event.sentence for event in reversed(events) if event.outcome != "kept"), events[-1].sentence)
