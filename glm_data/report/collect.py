"""A run's folder as one plain value: what each stage says about itself, side by side and checked against the others.

``collect`` returns a dict that JSON can hold; all of it but ``run`` is a function of inputs, options and code::

    ok, checks            every guard rail of every stage, and whether the numbers of the stages fit together
    unfinished            stages that have not come to their end, with the shards that they have done
    stages                by folder name: counts, facts, options, digests
    funnel, sources       records in -> kept, dropped by reason, unreadable; documents and packed tokens by source
    languages             documents, bytes, tokens and packed tokens by language
    filtering             dropped by source and language, documents changed, examples at the border of each rule
    duplicates            removed by rule, how similar, the largest clusters, sources by sources, examples
    tokenizer             three lines cut into their pieces
    rows                  span lengths seen and expected, [gMASK] suffixes, a piece of each kind as text
    training              loss by step (thinned out), unigram entropy
    samples               infill.json
    run                   folder, commands, seconds, memory, versions, where each option's value comes from
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import InputError
from glm_data.manifest import PLAN, RUN, SHARDS, SUCCESS, Check, Success, read_success, stage_folders
from glm_data.report.checks import cross_checks
from glm_data.report.duplicates import summarise_duplicates
from glm_data.report.filtering import summarise_filtering
from glm_data.report.funnel import funnel, languages, sources
from glm_data.report.origin import ORIGIN, where_from
from glm_data.report.rows import summarise_rows, summarise_tokenizer
from glm_data.report.training import read_curve

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
    places = {folder.name: folder for folder in folders}

    def of_kind(kind: str, summarise: Callable[[Path, Success, dict[str, Any]], Any]) -> Any:
        """What ``summarise`` tells of the first finished stage of a kind."""
        names = [name for name, success in finished.items() if success.stage == kind]
        return summarise(places[names[0]], finished[names[0]], plans[names[0]]) if names else None

    return {
        "ok": all(check["ok"] for check in checks) and not unfinished,
        "checks": checks,
        "unfinished": unfinished,
        "stages": stages,
        "funnel": funnel(stages),
        "sources": sources(stages),
        "languages": languages(stages),
        "filtering": of_kind("filter", summarise_filtering),
        "duplicates": of_kind("dedupe", summarise_duplicates),
        "tokenizer": of_kind("tokenizer", summarise_tokenizer) or of_kind("pack", summarise_tokenizer) or [],
        "rows": of_kind("pack", summarise_rows),
        "training": of_kind("train", read_curve),
        "samples": _read_samples(run_dir / INFILL),
        "run": _run(run_dir, places, stages),
    }


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


def _read_samples(path: Path) -> list[dict[str, Any]]:
    try:
        samples = files.read_json(path)
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        raise InputError(f"'{path}' is damaged ({error}); delete it or infill again.") from None
    return [sample for sample in samples if isinstance(sample, dict)] if isinstance(samples, list) else []


def _run(run_dir: Path, places: Mapping[str, Path], stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    runs, origins = {}, {}
    for name, folder in places.items():
        with contextlib.suppress(OSError, msgspec.DecodeError):
            runs[name] = files.read_json(folder / RUN / "stage.json")
        if name in stages:
            origins[name] = where_from(folder / RUN / ORIGIN, stages[name]["options"])
    return {
        "folder": str(run_dir.absolute()),
        "stages": runs,
        "origins": origins,
        "commands": _commands([*runs.values()]),
    }


def _commands(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The commands that made the run, each once, with the working directory and the version of Python."""
    found = []
    for run in runs:
        command = {"command": run.get("command", []), "folder": run.get("folder"), "python": run.get("python")}
        if command["command"] and command not in found:
            found.append(command)
    return found
