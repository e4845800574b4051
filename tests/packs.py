"""Small finished stages for tests of what stands on them: a tokenizer, tokenised documents, MIP rows, a pack."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data import files
from glm_data import stage as stages
from glm_data.manifest import sealed
from glm_data.packing.options import PackOptions
from glm_data.packing.stage import pack_stage
from glm_data.stage import ShardRecord, Success
from tokenizer import Tokenizer, TrainOptions, train

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Beijing is the capital of China, and Paris is the capital of France.",
    "床前明月光，疑是地上霜。举头望明月，低头思故乡。",
    "一年有四季，春夏秋冬；千里之行，始于足下。",
    "def add(a, b):\n    return a + b  # 两数之和\n",
)


def texts(count: int, seed: int = 0) -> list[str]:
    """``count`` documents of a few sentences each."""
    rng = np.random.default_rng(seed)
    return [
        f"{number}: " + " ".join(SENTENCES[i] for i in rng.integers(0, len(SENTENCES), rng.integers(1, 12)))
        for number in range(count)
    ]


def make_tokenizer(folder: Path, vocab_size: int = 560) -> Tokenizer:
    return train(texts(80), folder, TrainOptions(vocab_size=vocab_size))


def make_tokenized(folder: Path, tokenizer: Tokenizer, documents: list[str], shards: int = 2) -> Success:
    with stages.open_stage(folder, "tokenize", {"tokenizer": tokenizer.fingerprint}, []) as stage:
        for shard in range(shards):
            part = documents[shard::shards]
            ids, offsets = tokenizer.encode_batch(part)
            stem = f"data/part-{shard:05d}"
            (folder / "data").mkdir(exist_ok=True)
            np.save(folder / f"{stem}.ids.npy", ids.astype(np.uint16))
            table = pa.table(
                {
                    "id": [f"in/{shard}#{number}" for number in range(len(part))],
                    "source": ["test"] * len(part),
                    "lang": ["en"] * len(part),
                    "offset": offsets[:-1],
                    "length": np.diff(offsets),
                    "bytes": [len(text.encode()) for text in part],
                    "duplicates": pa.array([1] * len(part), pa.uint32()),
                }
            )
            pq.write_table(table, folder / f"{stem}.documents.parquet")
            names = (f"{stem}.ids.npy", f"{stem}.documents.parquet")
            files = tuple(stages.output_file(folder, name) for name in names)
            record = ShardRecord(shard=shard, input=stem, records=len(part), kept=len(part), files=files)
            stages.write_shard_record(folder, record, time.perf_counter())
        return stage.succeed(shards, facts={"fingerprint": tokenizer.fingerprint})


def make_mip(folder: Path, rows: list[tuple[str, str]]) -> Success:
    with stages.open_stage(folder, "mip", {}, []) as stage:
        (folder / "data").mkdir(exist_ok=True)
        table = pa.table(
            {
                "id": [f"copa/t#{number}" for number in range(len(rows))],
                "dataset": ["copa"] * len(rows),
                "lang": ["en"] * len(rows),
                "prompt": [prompt for prompt, _ in rows],
                "target": [target for _, target in rows],
            }
        )
        pq.write_table(table, folder / "data/part-00000.parquet")
        files = (stages.output_file(folder, "data/part-00000.parquet", len(rows)),)
        record = ShardRecord(shard=0, input="copa", records=len(rows), kept=len(rows), files=files)
        stages.write_shard_record(folder, record, time.perf_counter())
        return stage.succeed(1)


def make_inputs(folder: Path, documents: int = 120, mip_rows: int = 60) -> tuple[Tokenizer, Path, Path, Path]:
    """A tokenizer, tokenised documents and MIP rows below ``folder``; returns (tokenizer, its folder, ids, mip)."""
    tokenizer = make_tokenizer(folder / "tokenizer")
    make_tokenized(folder / "ids", tokenizer, texts(documents))
    make_mip(folder / "mip", [(f"{text} Is it true?", "yes it is") for text in texts(mip_rows, 1)])
    return tokenizer, folder / "tokenizer", folder / "ids", folder / "mip"


def make_pack(folder: Path, **options: object) -> Path:
    """A small pack at ``folder/pack``."""
    _, tokenizer, ids, mip = make_inputs(folder)
    pack_stage(ids, folder / "pack", PackOptions(seq_length=256, **options), tokenizer=tokenizer, mip=mip)  # type: ignore[arg-type]
    return folder / "pack"


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Apply ``change`` to a finished stage's manifest and its records' files, as someone would who forges them all."""
    manifest = files.read_json(folder / "_SUCCESS.json")
    change(manifest)
    records = []
    for path in sorted((folder / "_shards").glob("*.json")):
        record = files.read_json(path)
        listed = {item["name"]: item for item in manifest["files"]}
        record["files"] = [listed[item["name"]] for item in record["files"]]
        records.append(msgspec.convert(record, ShardRecord))
        files.write_json(path, records[-1])
    success = msgspec.convert(manifest, Success)
    outputs = [[item.name, item.digest] for item in success.files]
    success = msgspec.structs.replace(success, digest=files.digest_value(outputs))
    files.write_json(folder / "_SUCCESS.json", sealed(success, records))


def redigest(folder: Path, name: str) -> None:
    """Make all bookkeeping agree with a file that was changed."""

    def change(manifest: dict[str, Any]) -> None:
        for item in manifest["files"]:
            if item["name"] == name:
                item["bytes"], item["digest"] = (folder / name).stat().st_size, files.digest_file(folder / name)

    reseal(folder, change)
