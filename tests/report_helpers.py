"""A run's folder as the stages would leave it, with small numbers that can be added up by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from glm_data import files
from glm_data.formats.parquet import parquet_writer
from glm_data.stage import Check, InputFile, ShardRecord, describe_input, open_stage, output_file, write_shard_record

HOSTILE = '<script>alert("1")</script>&\'\u202egnp.exe\x1b[31m\u2066 <img src=http://evil/x onerror=alert(1)>'
SOURCES = {"Pile": {"available": 200, "documents": 5, "epochs": 2.0, "share": 0.4, "tokens": 400, "wanted": 0.41}}
METRICS = [{"step": step, "loss": 8 / step, "loss/mask": 7 / step, "lr": 0.1} for step in (1, 2, 4)]


def make_stage(
    run: Path,
    name: str,
    *,
    reads: Sequence[Path] = (),
    writes: Mapping[str, bytes] = {"data/part-00000.parquet": b"x"},
    records: Sequence[ShardRecord],
    checks: Sequence[Check] = (),
    facts: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    finish: bool = True,
) -> Path:
    """Write the stage ``run/name`` with these records; the first record lists all files."""
    inputs = tuple(describe_input(path, f"data/{path.name}") for path in reads)
    if not inputs:
        inputs = (InputFile(name="raw/00.jsonl.zst", path="/raw/00.jsonl.zst", bytes=5000, digest="d"),)
    folder = run / name
    with open_stage(folder, name, options or {}, inputs) as stage:
        for file, data in writes.items():
            if not (folder / file).exists():
                files.write_bytes(folder / file, data)
        listed = tuple(output_file(folder, file) for file in writes)
        for record in records:
            outputs = listed if record.shard == 0 else ()
            write_shard_record(folder, msgspec.structs.replace(record, files=outputs), 0.0)
        if finish:
            stage.succeed(len(records), checks, facts)
    return folder


def shard(shard: int, kept: int, dropped: dict[str, int], unreadable: dict[str, int], **counts: int) -> ShardRecord:
    return ShardRecord(
        shard=shard,
        input=f"raw/{shard:02d}",
        records=kept + sum(dropped.values()) + sum(unreadable.values()),
        kept=kept,
        dropped=dropped,
        unreadable=unreadable,
        counts={name.replace("__", "/"): count for name, count in counts.items()},
    )


def make_filter(run: Path, **changes: Any) -> Path:
    counts = {"in__Pile": 6, "in__新闻": 10, "kept__Pile": 5, "kept__新闻": 6, "text_bytes_in": 2_000_000}
    records = [
        shard(0, 11, {"language": 3, "short": 2}, {"truncated": 1}, text_bytes_kept=1_500_000, **counts),
        shard(1, 2, {"short": 1}, {}, in__Pile=3, kept__Pile=2, text_bytes_in=500_000, text_bytes_kept=100_000,
              kept_documents__zh=2, kept_bytes__zh=100_000),
    ]  # fmt: skip
    given = {"records": records, "checks": [Check(name="loss", ok=True, sentence="No source lost much.")]}
    return make_stage(run, "filter", writes={"data/part-00000.parquet": b"filtered"}, **{**given, **changes})


def make_dedupe(run: Path, **changes: Any) -> Path:
    table = run / "dedupe" / "duplicates.parquet"
    rows = [("p#3", "p#1", 0.83, 0.9, "near"), ("p#4", "p#1", 1.0, 1.0, "exact"), ("p#5", "p#2", 0.81, 1.0, "near")]
    names = ("removed", "kept", "jaccard", "containment", "rule")
    batch = pa.RecordBatch.from_pylist([dict(zip(names, row, strict=True)) for row in rows])
    record = shard(0, 10, {"near": 2, "exact": 1}, {}, in__Pile=7, in__新闻=6, kept__Pile=5, kept__新闻=5)
    reads = [run / "filter" / "data/part-00000.parquet"]

    class Late(dict[str, bytes]):
        """Writes the table once the stage has been opened."""

        def items(self) -> Any:
            with parquet_writer(table, batch.schema) as writer:
                writer.write(batch)
            return super().items()

    writes = Late({"data/part-00000.parquet": b"deduped", "duplicates.parquet": b""})
    given = {"reads": reads, "records": [record], "facts": {"largest_cluster": 3, "bands": 14}}
    return make_stage(run, "dedupe", writes=writes, **{**given, **changes})


def make_tokenize(run: Path, **changes: Any) -> Path:
    counts = {"tokens__zh": 300, "bytes__zh": 900, "tokens__en": 100, "bytes__en": 420}
    record = shard(0, 10, {}, {}, tokens=400, text_bytes=1320, byte_fallback=4, **counts)
    given = {"reads": [run / "dedupe" / "data/part-00000.parquet"], "records": [record]}
    return make_stage(run, "tokenize", **{**given, **changes})


def make_tokenizer(run: Path, **changes: Any) -> Path:
    record = shard(0, 8, {"not_sampled": 2}, {}, bytes__zh=1000, bytes__en=900)
    facts = {"tokenizer": {"kind": "bpe", "vocab_size": 2048, "fingerprint": "f" * 32}}
    return make_stage(run, "tokenizer", **{"records": [record], "facts": facts, **changes})


def make_mip(run: Path, **changes: Any) -> Path:
    record = shard(0, 20, {"too long": 2}, {}, kept__nli=12, kept__qa=8, lang__zh=20, template__nli__plain__kept=12)
    return make_stage(run, "mip", **{"records": [record], **changes})


def make_pack(run: Path, **changes: Any) -> Path:
    counts = {"tokens/gmask": 6000, "tokens/mask": 1800, "tokens/mip": 392, "padding": 0, "loss/gmask": 3000}
    record = msgspec.structs.replace(shard(0, 4, {}, {}), counts=counts)
    facts = {
        "rows": 4,
        "seq_length": 2048,
        "fill": 1.0,
        "mip_ratio": {"wanted": 0.05, "got": 0.0479, "of": "tokens"},
        "mask_rate": 0.15,
        "span_mean": 3.1,
        "documents": 10,
        "sources": SOURCES,
        "shards": [{"file": "x", "rows": 4}],
    }
    options = {"seed": 1, "spans": {"mean": 3}, "kinds": ["mask", "gmask"], "mip_ratio": None}
    return make_stage(run, "pack", **{"records": [record], "facts": facts, "options": options, **changes})


def make_train(run: Path, **changes: Any) -> Path:
    lines = b"".join(msgspec.json.encode(line) + b"\n" for line in METRICS)
    writes = {"metrics.jsonl": lines, "model.safetensors": b"weights"}
    facts = {"parameters": 1_700_000, "steps": 4, "epochs": 1.0, "last_loss": 2.0, "unigram_entropy": 6.5}
    return make_stage(run, "train", **{"writes": writes, "records": [shard(0, 4, {}, {})], "facts": facts, **changes})


MAKERS = {
    "filter": make_filter,
    "dedupe": make_dedupe,
    "tokenizer": make_tokenizer,
    "tokenize": make_tokenize,
    "mip": make_mip,
    "pack": make_pack,
    "train": make_train,
}


def make_run(run: Path) -> Path:
    for make in MAKERS.values():
        make(run)
    files.write_json(run / "infill.json", [{"prompt": "The [MASK] fox", "filled": ["快"]}])
    return run
