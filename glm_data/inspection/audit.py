"""An audit of removals: a seeded sample of them, read again and compared by other means.

A removal is false if the removed document, read again from the inputs, does not reach the threshold with the document
it was removed for, or if that document is not among the kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data.inspection.lookup import find_documents
from glm_data.inspection.plain import compare
from glm_data.inspection.runs import FinishedStage
from glm_data.manifest import InputFile

TABLE = "duplicates.parquet"
CONFIDENCE = 0.95
_SLACK = 1e-9
"""Two ways of dividing the same integers may differ by this much."""


class Checked(msgspec.Struct, frozen=True):
    """One removal of the sample: as the run states it, and as it was found."""

    removed: str
    kept: str
    rule: str
    stated: float
    jaccard: float
    containment: float
    kept_is_there: bool


class Audit(msgspec.Struct, frozen=True):
    """What came of an audit."""

    removals: int
    """Removals of the run."""
    sampled: int
    seed: int
    checked: int
    """Removals whose two texts could be read: all of the sample, or the run compared with another one's documents."""
    false: tuple[Checked, ...]
    rate: float
    """False removals among those checked."""
    low: float
    high: float
    """Bounds of the rate at :data:`CONFIDENCE` (Clopper and Pearson's exact interval)."""
    largest_difference: float
    """Between a stated similarity and the one found."""


def audit(stage: FinishedStage, inputs: Sequence[InputFile], size: int, seed: int = 0) -> Audit:
    """Check ``size`` removals of a dedupe stage (all, if there are fewer) against the texts in ``inputs``."""
    table = pq.read_table(stage.folder / TABLE)
    rows = sample(table.num_rows, size, seed)
    options = stage.plan["options"]
    checked = list(check(table.take(rows), stage.paths("data"), inputs, options))
    false = tuple(item for item in checked if not is_true(item, options))
    low, high = clopper_pearson(len(false), len(checked), CONFIDENCE)
    return Audit(
        removals=table.num_rows,
        sampled=len(rows),
        seed=seed,
        checked=len(checked),
        false=false,
        rate=len(false) / max(1, len(checked)),
        low=low,
        high=high,
        largest_difference=max((abs(item.stated - item.jaccard) for item in checked), default=0.0),
    )


def sample(rows: int, size: int, seed: int) -> np.ndarray:
    """``int64[min(size, rows)]``: rows chosen without replacement, ascending."""
    chosen = np.random.default_rng(seed).choice(rows, min(size, rows), replace=False)
    return np.sort(chosen)


def check(
    removals: pa.Table, kept_files: Sequence[Path], inputs: Sequence[InputFile], options: Mapping[str, Any]
) -> list[Checked]:
    """Compare the texts of every removal whose two documents are found, in order."""
    rows = removals.to_pylist()
    texts = find_documents(inputs, {row[side] for row in rows for side in ("removed", "kept")}, options["format"])
    there = kept_among(kept_files, {row["kept"] for row in rows})
    found = []
    for row in rows:
        if row["removed"] not in texts or row["kept"] not in texts:
            continue
        removed, kept = (texts[row[side]]["text"] for side in ("removed", "kept"))
        alike = compare(removed, kept, options["ngram"], fold_digits=options["fold_digits"], unit=options["unit"])
        names = (row["removed"], row["kept"], row["rule"])
        found.append(Checked(*names, row["jaccard"], *alike, row["kept"] in there))
    return found


def kept_among(paths: Sequence[Path], ids: set[str]) -> set[str]:
    """Those of ``ids`` that stand in the column ``id`` of some parquet files."""
    wanted, found = pa.array(sorted(ids), pa.string()), set()
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id"], use_threads=False):
                column = batch.column("id")
                found.update(column.filter(pc.is_in(column, wanted)).to_pylist())
    return found


def is_true(item: Checked, options: Mapping[str, Any]) -> bool:
    """Whether a removal holds: the kept document is there, and near enough."""
    contained = options["containment"] > 0 and item.containment >= options["containment"] - _SLACK
    return item.kept_is_there and (item.jaccard >= options["threshold"] - _SLACK or contained)


def clopper_pearson(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """The exact confidence interval of a probability of which ``hits`` of ``trials`` came true."""
    from scipy.special import betaincinv

    if not trials:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high
