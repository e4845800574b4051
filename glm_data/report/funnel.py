"""What became of the documents: from stage to stage, by source and by language, down to the packed tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glm_data.report.checks import DOCUMENT_STAGES

Stages = Mapping[str, Mapping[str, Any]]


def funnel(stages: Stages) -> list[dict[str, Any]]:
    """One step a stage of documents: read, kept, dropped and unreadable by reason; bytes and tokens where counted."""
    steps = []
    for name, stage in stages.items():
        if stage["stage"] not in DOCUMENT_STAGES:
            continue
        counts = stage["counts"]
        step = {"stage": name, **{field: stage[field] for field in ("records", "kept", "dropped", "unreadable")}}
        step["text_bytes_in"] = counts.get("text_bytes_in")
        step["text_bytes_kept"] = counts.get("text_bytes_kept", counts.get("text_bytes"))
        step["tokens"] = counts.get("tokens")
        steps.append(step)
    return steps


def items_looked_for(fact: Mapping[str, int]) -> int:
    """Of a benchmark's items in a decontaminate stage's facts, those that could be found: all different ones but such
    as are too short for a gram or have none that is not common."""
    return fact["items"] - fact["copies"] - fact["too_short"] - fact["common"]


def sources(stages: Stages) -> list[dict[str, Any]]:
    """By source: documents read by the first stage that counts them and kept by each, and what was packed of it."""
    documents = {name: stage["counts"] for name, stage in stages.items() if stage["stage"] in DOCUMENT_STAGES}
    counting = [name for name, counts in documents.items() if part(counts, "kept/")]
    packed = _packed(stages, "sources")
    if not counting and not packed:
        return []
    first = part(stages[counting[0]]["counts"], "in/") if counting else {}
    kept = {name: part(stages[name]["counts"], "kept/") for name in counting}
    names = {*first, *packed, *(source for counts in kept.values() for source in counts)}
    rows = [
        {
            "source": source,
            "in": first.get(source, 0),
            "kept": {name: kept[name].get(source, 0) for name in counting},
            "packed": packed.get(source),
        }
        for source in names
    ]
    return sorted(rows, key=lambda row: (-row["in"], -_tokens(row), row["source"]))


def languages(stages: Stages) -> list[dict[str, Any]]:
    """By language: documents and bytes kept by the filter, tokens and bytes of the tokenized text, what was packed."""
    by_kind = {stage["stage"]: stage for stage in stages.values()}
    filtered = by_kind.get("filter", {}).get("counts", {})
    tokenized = by_kind.get("tokenize", {}).get("counts", {})
    columns = {
        "documents": part(filtered, "kept_documents/"),
        "kept_bytes": part(filtered, "kept_bytes/"),
        "tokens": part(tokenized, "tokens/"),
        "tokenized_bytes": part(tokenized, "bytes/"),
    }
    packed = _packed(stages, "languages")
    names = sorted({*packed, *(name for column in columns.values() for name in column)})
    rows = [
        {
            "language": name,
            **{key: column.get(name, 0) for key, column in columns.items()},
            "packed": packed.get(name),
        }
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row["tokens"], -row["kept_bytes"], -_tokens(row), row["language"]))


def _packed(stages: Stages, what: str) -> dict[str, dict[str, Any]]:
    """Tokens there were and tokens packed by source or language, shares and epochs, as the pack tells them."""
    packs = [stage["facts"].get(what) for stage in stages.values() if stage["stage"] == "pack"]
    return packs[0] if packs and isinstance(packs[0], dict) else {}


def _tokens(row: Mapping[str, Any]) -> int:
    return int((row["packed"] or {}).get("tokens", 0))


def part(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    """The counters below ``prefix``, without it."""
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}
