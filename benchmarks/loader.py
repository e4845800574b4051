"""Batches of eight random rows from packed shards, and the same rows in the formats of other loaders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from benchmarks.contest import Contest, Contestant, Work

BATCH, BATCHES = 8, 300


def batches(rows: int) -> Any:
    """``int64[BATCHES, BATCH]``: the same random row numbers for every contestant."""
    import numpy as np

    return np.random.default_rng(0).integers(0, rows, (BATCHES, BATCH))


def drain(steps: Iterable[object]) -> None:
    """Take every step and keep none, as a training loop does."""
    for _ in steps:
        pass


def gathered_tokens(folder: Path) -> tuple[Work, float]:
    """Tokens alone, gathered from the maps of all shards by compiled code."""
    from glm_data.loading import PackedRows

    packed = PackedRows.open(folder / "run" / "pack")
    wanted = batches(len(packed))
    return lambda: drain(packed.tokens(batch) for batch in wanted), BATCH * BATCHES


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
    return lambda: drain(tokens[batch].astype(np.int32) for batch in wanted), BATCH * BATCHES


def hf_datasets(folder: Path) -> tuple[Work, float]:
    """The same folder opened by ``datasets.load_from_disk``, tokens alone, as NumPy."""
    import datasets

    data = datasets.load_from_disk(str(folder / "run" / "pack")).select_columns("tokens").with_format("numpy")
    wanted = batches(len(data)).tolist()
    return lambda: drain(data[batch]["tokens"] for batch in wanted), BATCH * BATCHES


def indexed_tokens(folder: Path) -> tuple[Work, float]:
    """Tokens alone from ``.bin`` and ``.idx``, a document at a time through the index, as Megatron-LM reads them."""
    import numpy as np

    exported = export(folder, "megatron")
    index: Any = np.memmap(exported / "input_ids.idx", mode="r")
    data: Any = np.memmap(exported / "input_ids.bin", mode="r")
    values = memoryview(data)
    kind: Any = {4: np.dtype(np.int32), 8: np.dtype(np.uint16)}[int(index[17])]
    rows = int(np.frombuffer(index, np.int64, 1, 18)[0])
    lengths = np.frombuffer(index, np.int32, rows, 34)
    starts = np.frombuffer(index, np.int64, rows, 34 + 4 * rows)

    def read(batch: Any) -> Any:
        return np.stack([np.frombuffer(values, kind, lengths[row], starts[row]) for row in batch]).astype(np.int32)

    wanted = batches(rows)
    return lambda: drain(read(batch) for batch in wanted), BATCH * BATCHES


def assembled(folder: Path) -> tuple[Work, float]:
    """Everything that a model needs: tokens, targets, positions, loss mask, segments."""
    from glm_data.loading import PackedRows

    packed = PackedRows.open(folder / "run" / "pack")
    wanted = batches(len(packed))
    return lambda: drain(packed.batch(batch) for batch in wanted), BATCH * BATCHES


def loaded(folder: Path) -> tuple[Work, float]:
    """The same and weights, from a loader that plans the order and keeps a state for every step."""
    from glm_data.loading import Loader, LoaderOptions, PackedRows

    options = LoaderOptions(batch_rows=BATCH, weighting="per-sequence")
    loader = Loader([PackedRows.open(folder / "run" / "pack")], options)
    steps = loader.steps(loader.start())
    return lambda: drain(step.batch.loss_weights for step in itertools.islice(steps, BATCHES)), BATCH * BATCHES


def hf_dense(folder: Path) -> tuple[Work, float]:
    """The five dense columns that ``glm-data export --to hf-dense`` writes, as NumPy."""
    import datasets

    data = datasets.load_from_disk(str(export(folder, "hf-dense"))).with_format("numpy")
    wanted = batches(len(data)).tolist()
    return lambda: drain(data[batch] for batch in wanted), BATCH * BATCHES


def export(folder: Path, to: Literal["hf-dense", "megatron"]) -> Path:
    """The pack in another format, below ``folder``."""
    from glm_data.exporting.stage import ExportOptions, export_stage

    out = folder / f"export-{to}"
    export_stage(folder / "run" / "pack", out, ExportOptions(to), overwrite=True)
    return out


CONTESTS = (
    Contest(
        title="Loading packed rows: tokens alone",
        unit="rows/s",
        contestants=(
            Contestant("glm-data, rows gathered from all shards", gathered_tokens),
            Contestant("glm-data, NumPy map of one shard", mapped_tokens),
            Contestant("Megatron-style .bin and .idx, NumPy", indexed_tokens),
            Contestant("HF datasets, NumPy format", hf_datasets),
        ),
        note=f"{BATCHES} batches of {BATCH} random rows, one core, files in the page cache.",
    ),
    Contest(
        title="Loading packed rows: targets, positions, loss mask and segments too",
        unit="rows/s",
        contestants=(
            Contestant("glm-data, batches assembled", assembled),
            Contestant("glm-data, loader with order, state and weights", loaded),
            Contestant("HF datasets, NumPy format, columns exported dense", hf_dense),
        ),
        note=f"{BATCHES} batches of {BATCH} random rows, one core, files in the page cache.",
    ),
)
