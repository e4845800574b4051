"""A tiny stage for tests: it copies lines in upper case and drops empty ones."""

from __future__ import annotations

import time
from pathlib import Path

from glm_data import files
from glm_data.stage import (
    Check,
    InputFile,
    ShardRecord,
    Stage,
    Success,
    find_inputs,
    open_stage,
    output_file,
    write_shard_record,
)

OPTIONS = {"upper": True, "limits": {"low": 1, "high": 2.5}}


def write_shards(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(count):
        lines = [f"line {line} of 分片 {shard}" for line in range(shard + 2)] + [""]
        (folder / f"{shard:02d}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def do_shard(stage: Stage, shard: int, item: InputFile) -> ShardRecord:
    started = time.perf_counter()
    lines = Path(item.path).read_text(encoding="utf-8").split("\n")
    kept = [line.upper() for line in lines if line]
    name = f"data/{shard:05d}.txt"
    files.write_bytes(stage.folder / name, "\n".join(kept).encode())
    record = ShardRecord(
        shard=shard,
        input=item.name,
        records=len(lines),
        kept=len(kept),
        dropped={"empty": len(lines) - len(kept)},
        counts={"kept/text": len(kept)},
        files=(output_file(stage.folder, name, len(kept)),),
    )
    write_shard_record(stage.folder, record, started)
    return record


def run_stage(folder: Path, inputs: tuple[InputFile, ...], **options: object) -> Success:
    with open_stage(folder, "upper", {**OPTIONS, **options}, inputs) as stage:
        for shard in stage.pending(len(inputs)):
            do_shard(stage, shard, inputs[shard])
        return stage.succeed(len(inputs), [Check(name="some", ok=True, sentence="Some were kept.")], {"pair": (1, 2)})


def finished_stage(tmp_path: Path, name: str = "out") -> tuple[Path, tuple[InputFile, ...]]:
    inputs = find_inputs([write_shards(tmp_path / "shards")])
    run_stage(tmp_path / name, inputs)
    return tmp_path / name, inputs


def contents(folder: Path) -> dict[str, bytes]:
    """Every file outside ``_run/`` with its bytes."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if "_run" not in path.parts}
