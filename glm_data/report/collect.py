"""A run's folder as one plain value: what each stage says about itself, side by side and checked against the others.

``collect`` returns a dict that JSON can hold; all of it but ``run`` is a function of inputs, options and code::

    ok, checks            every guard rail of every stage, and whether the numbers of the stages fit together
    unfinished            stages that have not come to their end, with the shards that they have done
    stages                by folder name: counts, facts, options, digests
    funnel, sources       records in -> kept, dropped by reason, unreadable; documents by source after each stage
    languages             documents, bytes and tokens by language
    filtering             dropped by source and language, documents changed, examples at the border of each rule
    duplicates            removed by rule, how similar, examples
    training              loss by step (thinned out), unigram entropy
    samples               infill.json
    run                   folder, commands, seconds, memory
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.manifest import PLAN, RUN, SHARDS, SUCCESS, Check, Success, read_success
from glm_data.report.checks import DOCUMENT_STAGES, cross_checks
from glm_data.report.duplicates import summarise_duplicates
from glm_data.report.filtering import summarise_filtering
from glm_data.report.training import read_curve

STAGE_ORDER = ("filter", "dedupe", "decontaminate", "tokenizer", "tokenize", "mip", "pack", "train", "quantize")
INFILL = "infill.json"
_LONG_FACTS = frozenset({"shards"})
"""Facts that list something by file; they stand in the stage's manifest."""


def collect(run_dir: Path) -> dict[str, Any]:
    """Everything a report shows of a run's folder, or of one stage's; :class:`UsageError` if it holds no stage."""
    folders = stage_folders(run_dir)
    plans = {folder.name: _read_plan(folder) for folder in folders}
    finished = {folder.name: read_success(folder) for folder in folders if (folder / SUCCESS).exists()}
    stages = {name: _stage(success, plans[name]) for name, success in finished.items()}
    unfinished = {
        folder.name: len(list((folder / SHARDS).glob("[0-9]*.json")))
        for folder in folders
        if folder.name not in finished
    }
    checks = [_check(name, check) for name, success in finished.items() for check in success.checks]
    checks += [_check("report", check) for check in cross_checks(finished, plans)]
    by_kind = {value["stage"]: value for value in stages.values()}
    places = {folder.name: folder for folder in folders}
    return {
        "ok": all(check["ok"] for check in checks) and not unfinished,
        "checks": checks,
        "unfinished": unfinished,
        "stages": stages,
        "funnel": funnel(stages),
        "sources": sources(stages),
        "languages": languages(by_kind),
        "filtering": _of_kind("filter", finished, places, summarise_filtering),
        "duplicates": _of_kind("dedupe", finished, places, summarise_duplicates),
        "training": _of_kind("train", finished, places, read_curve),
        "samples": _read_samples(run_dir / INFILL),
        "run": _run(run_dir, places),
    }


def stage_folders(run_dir: Path) -> list[Path]:
    """The stage folders of a run in the order of the work; the folder itself if it is one."""
    if (run_dir / PLAN).exists():
        return [run_dir.absolute()]
    if not run_dir.is_dir():
        raise UsageError(f"'{run_dir}' is no folder; give the folder of a run or of a stage.")
    found = [path for path in run_dir.iterdir() if (path / PLAN).exists()]
    if not found:
        raise UsageError(f"'{run_dir}' holds no stage; give the folder of a run or of a stage.")
    return sorted(found, key=_place)


def _place(folder: Path) -> tuple[int, str]:
    known = folder.name in STAGE_ORDER
    return (STAGE_ORDER.index(folder.name) if known else len(STAGE_ORDER), folder.name)


def _read_plan(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(msgspec.DecodeError):
        plan = files.read_json(folder / PLAN)
        if isinstance(plan, dict) and isinstance(plan.get("inputs"), list):
            return plan
    raise InputError(f"'{folder / PLAN}' is damaged; run that stage again with --overwrite.")


def _check(stage: str, check: Check) -> dict[str, Any]:
    return {"stage": stage, **msgspec.to_builtins(check)}


def _stage(success: Success, plan: Mapping[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = msgspec.to_builtins(success)
    listed = value.pop("files")
    value.pop("checks")
    value["facts"] = {name: fact for name, fact in value["facts"].items() if name not in _LONG_FACTS}
    value["options"] = plan["options"]
    value["inputs"] = {"files": len(plan["inputs"]), "bytes": sum(item["bytes"] for item in plan["inputs"])}
    value["outputs"] = {"files": len(listed), "bytes": sum(item["bytes"] for item in listed)}
    return value


def funnel(stages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records of each document stage: read, kept, dropped by reason, unreadable by reason; bytes where counted."""
    steps = []
    for name, stage in stages.items():
        if stage["stage"] not in DOCUMENT_STAGES:
            continue
        fields = ("records", "kept", "dropped", "unreadable")
        step = {"stage": name, **{field: stage[field] for field in fields}}
        for field in ("text_bytes_in", "text_bytes_kept"):
            step[field] = stage["counts"].get(field)
        steps.append(step)
    return steps


def sources(stages: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Documents by source: read by the first stage that counts them, and kept by each; the largest first."""
    documents = {name: stage["counts"] for name, stage in stages.items() if stage["stage"] in DOCUMENT_STAGES}
    counting = [name for name, counts in documents.items() if part(counts, "kept/")]
    if not counting:
        return []
    first = part(stages[counting[0]]["counts"], "in/")
    kept = {name: part(stages[name]["counts"], "kept/") for name in counting}
    names = {*first, *(source for counts in kept.values() for source in counts)}
    rows = [
        {"source": source, "in": first.get(source, 0), "kept": {name: kept[name].get(source, 0) for name in counting}}
        for source in names
    ]
    return sorted(rows, key=lambda row: (-row["in"], row["source"]))


def languages(by_kind: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Documents and bytes kept by the filter, and tokens and bytes of the tokenized text, by language."""
    filtered = by_kind.get("filter", {}).get("counts", {})
    tokenized = by_kind.get("tokenize", {}).get("counts", {})
    columns = {
        "documents": part(filtered, "kept_documents/"),
        "kept_bytes": part(filtered, "kept_bytes/"),
        "tokens": part(tokenized, "tokens/"),
        "tokenized_bytes": part(tokenized, "bytes/"),
    }
    names = sorted({name for column in columns.values() for name in column})
    rows = [{"language": name, **{key: column.get(name, 0) for key, column in columns.items()}} for name in names]
    return sorted(rows, key=lambda row: (-row["tokens"], -row["kept_bytes"], row["language"]))


def part(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The counters below ``prefix``, without it."""
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}


def _of_kind(
    kind: str, finished: Mapping[str, Success], places: Mapping[str, Path], read: Any
) -> dict[str, Any] | None:
    for name, success in finished.items():
        if success.stage == kind:
            found: dict[str, Any] = read(places[name], success)
            return found
    return None


def _read_samples(path: Path) -> list[dict[str, Any]]:
    try:
        samples = files.read_json(path)
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise InputError(f"'{path}' is damaged ({error}); delete it or infill again.") from None
    return [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []


def _run(run_dir: Path, places: Mapping[str, Path]) -> dict[str, Any]:
    stages = {}
    for name, folder in places.items():
        with contextlib.suppress(OSError, msgspec.DecodeError):
            stages[name] = files.read_json(folder / RUN / "stage.json")
    return {"folder": str(run_dir.absolute()), "stages": stages, "commands": _commands(list(stages.values()))}


def _commands(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The commands that made the run, each once, with the working directory and the version of Python."""
    found = []
    for run in runs:
        command = {"command": run.get("command", []), "folder": run.get("folder"), "python": run.get("python")}
        if command["command"] and command not in found:
            found.append(command)
    return found
