"""Batches of eight random rows from packed shards, and the same rows in the formats of other loaders.

Beside these, opening a pack of ten million rows: one shard, listed again and again.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks import peer_loaders
from benchmarks.contest import Contest, Contestant, Work
from benchmarks.peer_loaders import BATCH, BATCHES, batches, drain

MANY_ROWS, SHARD_ROWS = 10_000_000, 8192


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

    exported = folder / "export-megatron"
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

    data = datasets.load_from_disk(str(folder / "export-hf-dense")).with_format("numpy")
    wanted = batches(len(data)).tolist()
    return lambda: drain(data[batch] for batch in wanted), BATCH * BATCHES


def write_tokens(folder: Path) -> None:
    """Prepares the tokens for the others: as Megatron-LM's files, and ``tokens.npy``, ``int32[rows, seq_length]``."""
    import numpy as np

    from glm_data.loading import PackedRows

    export(folder, "megatron")
    packed = PackedRows.open(folder / "run" / "pack")
    shape = (len(packed), packed.seq_length)
    out = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.int32, shape)
    for first in range(0, len(packed), 1024):
        out[first : first + 1024] = packed.tokens(range(first, min(first + 1024, len(packed))))


def write_dense(folder: Path) -> None:
    """Prepares the dense columns for the others."""
    export(folder, "hf-dense")
    export(folder, "mds")


def export(folder: Path, to: Literal["hf-dense", "mds", "megatron"]) -> None:
    """The pack in another format, in ``export-<to>``."""
    from glm_data.exporting.stage import ExportOptions, export_stage

    export_stage(folder / "run" / "pack", folder / f"export-{to}", ExportOptions(to), overwrite=True)


# --- a pack of ten million rows ---------------------------------------------------------------------------------------


def write_many(folder: Path) -> None:
    """Prepares ``many``: a pack of one shard, the run's rows again and again, that its manifest lists until there are
    ``MANY_ROWS``."""
    import pyarrow as pa

    from glm_data import files
    from glm_data.manifest import SUCCESS, output_file
    from glm_data.packing.shards import token_offset, write_shard

    pack, out, name = folder / "run" / "pack", folder / "many", "data.arrow"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(pack, out, ignore=lambda _, names: [name for name in names if name.endswith(".arrow")])
    manifest, state = files.read_json(pack / SUCCESS), files.read_json(pack / "state.json")
    shards = manifest["facts"]["shards"]
    table = pa.concat_tables(_read(pack / shards[0]["file"]) for _ in range(-(-SHARD_ROWS // shards[0]["rows"])))
    (batch,) = table.slice(0, SHARD_ROWS).combine_chunks().to_batches()
    write_shard(out / name, batch)
    shard = {"file": name, "rows": SHARD_ROWS, "offset": token_offset(out / name)}
    times = -(-MANY_ROWS // SHARD_ROWS)
    manifest["facts"] |= {"shards": [shard] * times, "rows": SHARD_ROWS * times}
    manifest["files"].append(output_file(out, name, SHARD_ROWS))
    state["_data_files"] = [{"filename": name}] * times
    files.write_json(out / SUCCESS, manifest)
    files.write_json(out / "state.json", state)


def _read(shard: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(shard)) as source:
        return pa.ipc.open_stream(source).read_all()


def opened(name: str) -> Callable[[Path], tuple[Work, float]]:
    """Open a pack and assemble a first batch of random rows."""

    def setup(folder: Path) -> tuple[Work, float]:
        from glm_data.loading import PackedRows

        def work() -> None:
            packed = PackedRows.open(folder / name)
            packed.batch(batches(len(packed))[0])

        return work, 1

    return setup


def opened_by_hf(folder: Path) -> tuple[Work, float]:
    """``load_from_disk`` of the same folder, and the tokens of a first batch of random rows."""
    import datasets

    datasets.disable_progress_bars()

    def work() -> None:
        data = datasets.load_from_disk(str(folder / "many")).select_columns("tokens").with_format("numpy")
        data[batches(len(data))[0].tolist()]

    return work, 1


_NOTE = (
    f"{BATCHES} batches of {BATCH} random rows, one core, files in the page cache. mosaicml-streaming is asked for "
    "rows by number, where it is faster than iterating; litdata iterates in its own shuffled order, its faster way."
)
CONTESTS = (
    Contest(
        name="Loading packed rows: tokens alone",
        unit="rows/s",
        contestants=(
            Contestant("glm-data, rows gathered from all shards", gathered_tokens),
            Contestant("glm-data, NumPy map of one shard", mapped_tokens),
            Contestant("Megatron-style .bin and .idx, NumPy", indexed_tokens),
            Contestant("HF datasets, NumPy format", hf_datasets),
            Contestant("mosaicml-streaming 0.13", peer_loaders.mds_tokens, True, peer_loaders.write_mds),
            Contestant("litdata 0.2.76, TokensLoader", peer_loaders.litdata_tokens, True, peer_loaders.write_litdata),
        ),
        note=_NOTE,
        prepare=write_tokens,
    ),
    Contest(
        name="Loading packed rows: targets, positions, loss mask and segments too",
        unit="rows/s",
        contestants=(
            Contestant("glm-data, batches assembled", assembled),
            Contestant("glm-data, loader with order, state and weights", loaded),
            Contestant("HF datasets, NumPy format, columns exported dense", hf_dense),
            Contestant("mosaicml-streaming 0.13, columns exported dense", peer_loaders.mds_dense, True),
            Contestant(
                "litdata 0.2.76, dense columns", peer_loaders.litdata_dense, True, peer_loaders.write_litdata_dense
            ),
        ),
        note=_NOTE + " Only ours derives the columns from tokens and spans; the others read them.",
        prepare=write_dense,
    ),
    Contest(
        name="Opening a pack of ten million rows",
        unit="a second",
        contestants=(
            Contestant("glm-data, and a first batch assembled", opened("many")),
            Contestant("glm-data, the same with the run's own pack", opened("run/pack")),
            Contestant("HF datasets, and a first batch of tokens", opened_by_hf),
        ),
        note=f"One shard of {SHARD_ROWS} of the run's rows, listed in the manifest again and again. Manifest, maps, "
        "and eight random rows.",
        time=("ms", 1e3),
        prepare=write_many,
    ),
)
