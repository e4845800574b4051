"""What the viewer's page waits for: a pack of many rows opened, and any row of it drawn as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import loader
from benchmarks.contest import Contest, Contestant, Work

ROWS, DOCUMENTS = 100, 1_000_000


def write_many(folder: Path) -> None:
    """Prepares ``many``, as for the loaders, with a million documents in its table."""
    import pyarrow.parquet as pq

    loader.write_many(folder)
    table = pq.read_table(folder / "run" / "pack" / "documents.parquet")
    with pq.ParquetWriter(folder / "many" / "documents.parquet", table.schema) as writer:
        for _ in range(-(-DOCUMENTS // len(table))):
            writer.write_table(table)


def opened(folder: Path) -> tuple[Work, float]:
    """The pack opened, and its first row drawn."""

    def work() -> None:
        _pack(folder).row(0, 0)

    return work, 1


def drawn(folder: Path) -> tuple[Work, float]:
    """Random rows of the opened pack as the JSON that the page gets."""
    import msgspec
    import numpy as np

    pack = _pack(folder)
    wanted = np.random.default_rng(0).integers(0, loader.MANY_ROWS, ROWS).tolist()
    return lambda: [msgspec.json.encode(pack.row(row, 0)) for row in wanted], ROWS


def _pack(folder: Path) -> Any:
    from glm_data.viewer.desk import PackDesk

    return PackDesk(folder / "many")


CONTESTS = (
    Contest(
        name="Rows for the viewer",
        unit="rows/s",
        contestants=(
            Contestant("a random row as JSON", drawn),
            Contestant("a pack opened and its first row", opened),
        ),
        time=("ms a row", 1e3),
        note=f"A pack of {loader.MANY_ROWS:,} rows, one shard listed again and again, and of a million documents.",
        prepare=write_many,
    ),
)
