"""The life of a document: what every stage of a run did with it, with the reason and the measured value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.errors import UsageError, did_you_mean
from glm_data.inspection.audit import TABLE
from glm_data.inspection.lookup import find_row, find_rows, find_unreadable
from glm_data.inspection.runs import FinishedStage, Run
from glm_data.loading.provenance import DOCUMENTS, rows_with, slices_of
from glm_data.loading.rows import PackedRows
from glm_data.manifest import SHARDS, ShardRecord

MOST_LISTED = 10
"""Copies and rows that an event names one by one."""
_MOST_COMPARED = 20_000
"""Ids that an unknown one without a record number is compared with."""
_SHOWN_META = 300


class Event(msgspec.Struct, frozen=True):
    """What one stage did with the document."""

    stage: str
    """The stage's folder."""
    outcome: str
    """``kept``, ``dropped``, ``removed``, ``unreadable``, ``tokenized``, ``packed`` or ``unused``."""
    sentence: str
    details: dict[str, Any] = {}


class Life(msgspec.Struct, frozen=True):
    """A document's way through a run."""

    id: str
    source: str
    lang: str
    text: str
    """As the earliest stage kept it; what could be read of a record that was unreadable."""
    events: tuple[Event, ...]
    unfinished: tuple[str, ...]
    """Stages of the run that may still have something to do with it."""


def trace(run: Run, id: str) -> Life:
    """Follow the document ``id`` through the finished stages of a run.

    Raises :class:`UsageError` for an id that no stage knows, with the nearest ones that could be meant.
    """
    facts: dict[str, str] = {}
    events = [event for stage in run.stages for event in _EVENTS.get(stage.kind, _of_documents)(stage, id, facts)]
    if not events:
        raise UsageError(f"no stage in '{run.folder}' knows the document '{id}'.{_suggest(run, id)}")
    source, lang, text = (facts.get(name, "") for name in ("source", "lang", "text"))
    return Life(id, source, lang, text, tuple(events), run.unfinished)


# --- stages -----------------------------------------------------------------------------------------------------------


def _of_documents(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    """Of a stage with kept documents in ``data/``, dropped ones in ``dropped/`` and records it could not read."""
    if (row := _find_document(stage, "data", id)) is not None:
        _note(facts, row)
        yield Event(stage.folder.name, "kept", _kept_sentence(row), _place(row))
    elif (row := _find_document(stage, "dropped", id)) is not None:
        _note(facts, row)
        yield _dropped(stage, row)
    elif (item := find_unreadable(stage.paths("unreadable"), id)) is not None:
        facts.setdefault("text", item.get("excerpt", ""))
        sentence = f"could not be read: {item['reason']} at byte {item['offset']:,} ({item['detail']})"
        yield Event(stage.folder.name, "unreadable", sentence, item)


def _find_document(stage: FinishedStage, below: str, id: str) -> dict[str, Any] | None:
    paths = [path for path in stage.paths(below) if path.suffix == ".parquet" or path.name.endswith(".jsonl.zst")]
    return find_row(paths, id)


def _note(facts: dict[str, str], row: Mapping[str, Any]) -> None:
    """Keep source, language and text, as the first stage that has them tells them."""
    texts = {"text": "".join(str(row.get(name) or "") for name in ("text", "prompt", "target"))}
    for name, value in {**row, **texts}.items():
        if name in ("source", "lang", "text") and value:
            facts.setdefault(name, value)


def _kept_sentence(row: Mapping[str, Any]) -> str:
    return f"kept, as {row['lang']}" if row.get("lang") else "kept"


def _place(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where a row stands, and its short columns."""
    long = {"text", "meta", "prompt", "target", "id"}
    return {name: value for name, value in row.items() if name not in long}


def _dropped(stage: FinishedStage, row: Mapping[str, Any]) -> Event:
    reason, value = str(row.get("reason") or "no reason given"), row.get("value")
    measured = "" if value is None else f": {value:.4g}"
    sentence = f"dropped for {reason}{measured}{_bounds(stage, reason)}"
    return Event(stage.folder.name, "dropped", sentence, _place(row))


def _bounds(stage: FinishedStage, reason: str) -> str:
    """What the profile's rule of that name asks for, in brackets."""
    rules = stage.plan["options"].get("profile")
    rules = rules.get("rules", ()) if isinstance(rules, Mapping) else ()
    for rule in rules:
        if rule.get("name") == reason:
            bounds = [f"{word} {rule[bound]:g}" for bound, word in _BOUNDS if rule.get(bound) is not None]
            return f" ({rule.get('signal', reason)}, {' and '.join(bounds)} allowed)"
    return ""


_BOUNDS = (("min", "at least"), ("max", "at most"))


def _of_decontaminate(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    """As any stage of documents, and what its ledger says was found in the document."""
    for event in _of_documents(stage, id, facts):
        found = list(find_rows(stage.paths("ledger"), id))
        items = list(dict.fromkeys(f"{row['benchmark']} {row['item']}" for row in found))
        listed = [_place(row) for row in found[:MOST_LISTED]]
        sentence = (
            f"{event.sentence}; {len(found):,} stretches of it hold {', '.join(items[:3])}" if found else event.sentence
        )
        more = f" and {len(items) - 3:,} more items" if len(items) > 3 else ""
        yield msgspec.structs.replace(event, sentence=sentence + more, details={**event.details, "found": listed})


def _of_dedupe(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    row = find_row([stage.folder / TABLE], id, "removed")
    if row is not None:
        details = {name: value for name, value in row.items() if name != "removed" and not name.startswith("_")}
        yield Event(stage.folder.name, "removed", _removed_sentence(row, stage.plan["options"]), details)
        return
    events = list(_of_documents(stage, id, facts))
    if not events and facts.get("text") and stage.plan["options"].get("lines", "off") != "off":
        yield Event(stage.folder.name, "dropped", "dropped, as all of its lines stand elsewhere")
    for event in events:
        if event.outcome != "kept":
            yield event
            continue
        for_it = find_rows([stage.folder / TABLE], id, "kept")
        listed = [item["removed"] for item in itertools.islice(for_it, MOST_LISTED)]
        many = int(event.details.get("duplicates") or 1)
        sentence = (
            f"kept; it stands for {many:,} documents, itself included" if many > 1 else "kept; it has no duplicate"
        )
        yield msgspec.structs.replace(event, sentence=sentence, details={**event.details, "removed_for_it": listed})


def _removed_sentence(row: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    kept = f"'{row['kept']}'" + (" of an earlier run" if row.get("earlier") else "")
    if row["rule"] == "exact":
        return f"removed, an exact copy of {kept} (but for case, width, script, accents, punctuation)"
    alike = f"similarity {row['jaccard']:.4f}, {options.get('threshold', 0):g} is enough"
    if row["rule"] == "contained":
        alike = f"{row['containment']:.1%} of it is in there, {options.get('containment', 0):.0%} is enough"
    return f"removed, a near duplicate of {kept} ({alike})"


def _of_tokenize(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    tables = [path for path in stage.paths("data") if path.name.endswith(".documents.parquet")]
    row = find_row(tables, id)
    if row is None:
        yield from _of_documents(stage, id, facts)
        return
    _note(facts, row)
    flat = row["_file"].replace(".documents.parquet", ".ids.npy")
    sentence = f"{row['length']:,} tokens, from {row['offset']:,} of data/{flat}"
    yield Event(stage.folder.name, "tokenized", sentence, _place(row))


def _of_pack(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    document = find_row([stage.folder / DOCUMENTS], id)
    if document is None:
        return
    _note(facts, document)
    pack = PackedRows.open(stage.folder)
    rows = rows_with(pack, document["_row"])
    slices = [
        _slice(pack, row, item) for row in rows[:MOST_LISTED] for item in _own_slices(pack, row, document["_row"])
    ]
    details = {"document": document["_row"], "rows": len(rows), "slices": slices}
    if not rows:
        yield Event(stage.folder.name, "unused", "none of its tokens were packed", details)
        return
    first = slices[0]
    sentence = f"in {len(rows):,} rows, first in row {first['row']}" if len(rows) > 1 else f"in row {first['row']}"
    yield Event(stage.folder.name, "packed", sentence, details)


def _own_slices(pack: PackedRows, row: int, document: int) -> Iterator[Any]:
    return (item for item in slices_of(pack, row) if item.document == document)


def _slice(pack: PackedRows, row: int, item: Any) -> dict[str, Any]:
    """Where tokens of the document stand: shard, row, piece and the piece's first place; which tokens they are."""
    path, within = pack.shards.place_of(row)
    start = int(pack.rows([row]).row_pieces(0)[item.piece][0])
    place = {"row": row, "shard": path.name, "row_in_shard": within, "piece": item.piece, "piece_start": start}
    return {**place, "kind": item.kind, "offset": item.offset, "tokens": len(item.ids)}


def _of_nothing(stage: FinishedStage, id: str, facts: dict[str, str]) -> Iterator[Event]:
    return iter(())


_EVENTS: dict[str, Callable[[FinishedStage, str, dict[str, str]], Iterator[Event]]] = {
    "dedupe": _of_dedupe,
    "decontaminate": _of_decontaminate,
    "tokenize": _of_tokenize,
    "pack": _of_pack,
    **dict.fromkeys(("tokenizer", "train", "quantize", "export"), _of_nothing),
}
"""How a stage is asked; all others are stages of documents."""


# --- ids that nobody knows --------------------------------------------------------------------------------------------


def _suggest(run: Run, id: str) -> str:
    """Which id may have been meant: another input, another number, another id."""
    name, mark, number = id.rpartition("#")
    sizes = dict(_inputs(run))
    if mark and name in sizes:
        return f" '{name}' has {sizes[name]:,} records, #0 to #{sizes[name] - 1}." if sizes[name] else ""
    if mark and (ends := [known for known in sizes if known.endswith(f"/{name}")]):
        return f" Did you mean '{ends[0]}#{number}'?"
    if mark and sizes and (hint := did_you_mean(name, sizes)):
        return hint.replace("'?", f"#{number}'?")
    return did_you_mean(id, _some_ids(run)) or f" Ids look like '{next(iter(_some_ids(run)), 'file#0')}'."


def _inputs(run: Run) -> Iterator[tuple[str, int]]:
    """Names of the inputs of all stages of documents, with the records that were read of them."""
    for stage in run.stages:
        for path in sorted((stage.folder / SHARDS).glob("*.json")):
            record = files.read_json(path, ShardRecord)
            if record.records:
                yield record.input, record.records


def _some_ids(run: Run) -> list[str]:
    """The first ids of the first stage that has any."""
    import pyarrow.parquet as pq

    for stage in run.stages:
        for path in stage.paths("data"):
            if path.suffix == ".parquet" and "id" in pq.read_schema(path).names:
                return _first_ids(path)
    return []


def _first_ids(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        batches = itertools.islice(file.iter_batches(1000, columns=["id"], use_threads=False), _MOST_COMPARED // 1000)
        return [id for batch in batches for id in batch.column("id").to_pylist()]
