"""What a run found, by benchmark, and its guard rails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from glm_data.decontaminate.index import COUNTS, Index
from glm_data.decontaminate.options import DecontaminateOptions
from glm_data.decontaminate.shard import LEDGER
from glm_data.formats.parquet import read_batches
from glm_data.manifest import Check, ShardRecord, unreadable_check

EXAMPLES = 5
"""Findings that the manifest shows of each benchmark, those with the highest containment."""
SMALLEST_SOURCE = 100
"""Documents from which a source can trip the guard rail on what is touched."""


def read_ledger(folder: Path, records: Sequence[ShardRecord]) -> pa.Table:
    """The ledgers of all shards, one after the other."""
    names = [item.name for record in records for item in record.files if item.name.startswith("ledger/")]
    batches = [batch for name in names for batch in read_batches(folder / name)]
    return pa.Table.from_batches(batches, LEDGER)


def describe(index: Index, ledger: pa.Table, counts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Facts by benchmark: items indexed and left out, items found, documents touched, examples."""
    facts = {}
    for place, name in enumerate(index.benchmarks.tolist()):
        own = ledger.filter(pc.equal(ledger["benchmark"], name))
        facts[name] = {
            **dict(zip(COUNTS, index.counts[place].tolist(), strict=True)),
            "items_found": pc.count_distinct(own["item"]).as_py(),
            "documents": counts.get(f"hit/{name}", 0),
            "near_documents": counts.get(f"near/{name}", 0),
            "spared_documents": counts.get(f"spared/{name}", 0),
            "examples": _examples(own),
        }
    return facts


def _examples(ledger: pa.Table) -> list[dict[str, Any]]:
    """The fullest findings, one a document and item."""
    keys = [("containment", "descending"), ("id", "ascending"), ("item", "ascending"), ("start", "ascending")]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in ledger.sort_by(keys).slice(0, EXAMPLES * 20).to_pylist():
        found.setdefault((row["id"], row["item"]), row)
    shown = ("id", "item", "containment", "text", "action")
    return [{name: row[name] for name in shown} for row in list(found.values())[:EXAMPLES]]


def checks(counts: Mapping[str, int], records: Sequence[ShardRecord], options: DecontaminateOptions) -> list[Check]:
    """The guard rails: no source and no benchmark touches many documents, and few records are unreadable."""
    total = sum(record.records for record in records)
    lost = sum(sum(record.unreadable.values()) for record in records)
    unreadable = unreadable_check(records, options.max_bad_fraction)
    return [_source_check(counts, options), _benchmark_check(counts, total - lost, options), unreadable]


def _source_check(counts: Mapping[str, int], options: DecontaminateOptions) -> Check:
    shares = [
        (_share(counts.get(f"dropped/{name[3:]}", 0) + counts.get(f"cut/{name[3:]}", 0), before), name[3:])
        for name, before in counts.items()
        if name.startswith("in/") and before >= SMALLEST_SOURCE
    ]
    worst, source = max(shares, default=(0.0, ""))
    what = f"{worst:.2%} of source '{source}' was cut or dropped" if source else "no source is large enough to judge"
    limit = options.max_source_hits
    return Check(name="source-hits", ok=worst <= limit, sentence=f"{what} (limit {limit:.2%}).")


def _benchmark_check(counts: Mapping[str, int], documents: int, options: DecontaminateOptions) -> Check:
    shares = [(_share(count, documents), name[4:]) for name, count in counts.items() if name.startswith("hit/")]
    worst, benchmark = max(shares, default=(0.0, ""))
    what = f"'{benchmark}' was found in {worst:.2%} of the documents" if benchmark else "no benchmark was found"
    limit = options.max_benchmark_hits
    return Check(
        name="benchmark-hits", ok=worst <= limit or documents < SMALLEST_SOURCE, sentence=f"{what} (limit {limit:.2%})."
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
