"""Batches of eight random rows from packed shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Contestant, Work

BATCH, BATCHES = 8, 300


def batches(rows: int) -> Any:
    """``int64[BATCHES, BATCH]``: the same random row numbers for every contestant."""
    import numpy as np

    return np.random.default_rng(0).integers(0, rows, (BATCHES, BATCH))


def assembled(folder: Path) -> tuple[Work, float]:
    """Everything that a model needs: tokens, targets, positions, loss mask, segments."""
    from glm_data.loading import PackedRows

    packed = PackedRows.open(folder / "run" / "pack")
    wanted = batches(len(packed))
    return lambda: [packed.batch(batch) for batch in wanted], BATCH * BATCHES


def mapped_tokens(folder: Path) -> tuple[Work, float]:
    """Tokens alone, by the three lines of NumPy that docs/format.md shows."""
    import numpy as np

    from glm_data.stage import read_success

    pack = folder / "run" / "pack"
    facts = read_success(pack).facts
    shard = facts["shards"][0]
    shape = (shard["rows"], facts["seq_length"])
    tokens = np.memmap(pack / shard["file"], facts["token_type"], "r", shard["offset"], shape)
    wanted = batches(len(tokens))
    return lambda: [tokens[batch].astype(np.int32) for batch in wanted], BATCH * BATCHES


def hf_datasets(folder: Path) -> tuple[Work, float]:
    """The same folder opened by ``datasets.load_from_disk``, tokens alone, as NumPy."""
    import datasets

    data = datasets.load_from_disk(str(folder / "run" / "pack")).select_columns("tokens").with_format("numpy")
    wanted = batches(len(data)).tolist()
    return lambda: [data[batch]["tokens"] for batch in wanted], BATCH * BATCHES


CONTESTS = (
    Contest(
        title="Loading packed rows",
        unit="rows/s",
        contestants=(
            Contestant("glm-data, NumPy map, tokens alone", mapped_tokens),
            Contestant("HF datasets, NumPy format, tokens alone", hf_datasets),
            Contestant("glm-data, batches with targets, positions, loss mask, segments", assembled),
        ),
        note=f"{BATCHES} batches of {BATCH} random rows, one core, files in the page cache.",
    ),
)
