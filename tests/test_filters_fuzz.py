"""Hostile input: whatever the bytes, the filter ends, and every record is kept, dropped or unreadable."""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import raw_files as raw
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.config import to_mapping
from glm_data.filters import ALL_STEPS, FilterOptions, FilterTask, Profile, filter_shard, load_profile
from glm_data.manifest import ShardRecord, ShardTask

PLAIN = raw.jsonl(
    {"text": f"The frogs in pond {n} were happy, for it had rained all day and night.\n雨下了一整天。", "meta": {}}
    for n in range(8)
)
ARRAY = json.dumps([{"title": f"题{n}", "content": f"第{n}天下雨，青蛙很高兴。", "dataType": "新闻"} for n in range(8)])


@cache
def profile() -> Profile:
    return load_profile("bilingual")


def filter_bytes(folder: Path, name: str, data: bytes, **options: object) -> ShardRecord:
    """Run one shard of these bytes in this process, with every step."""
    path = folder / name
    path.write_bytes(data)
    chosen = FilterOptions(**{"steps": ALL_STEPS, "to_simplified": True, **options})  # type: ignore[arg-type]
    task = FilterTask(options=chosen, profile=profile())
    return filter_shard(ShardTask(shard=0, folder=str(folder), input=raw.as_input(path), options=to_mapping(task)))


def check(folder: Path, record: ShardRecord) -> None:
    """The counts add up, and are those of the files."""
    assert record.records == record.kept + sum(record.dropped.values()) + sum(record.unreadable.values())
    rows = {item.name.split("/")[0]: item.rows for item in record.files}
    assert rows["data"] == record.kept == pq.read_metadata(folder / "data/part-00000.parquet").num_rows
    assert rows.get("dropped", 0) == sum(record.dropped.values())
    assert rows.get("signals", 0) == record.kept + sum(record.dropped.values())


def mutate(data: bytes, seed: int) -> bytes:
    """Some bytes changed, cut out, doubled, or replaced by what parsers stumble over."""
    random_ = random.Random(seed)
    mutable = bytearray(data)
    for _ in range(random_.randrange(1, 8)):
        at = random_.randrange(len(mutable) + 1)
        end = min(len(mutable), at + random_.randrange(40))
        odd = (
            b"\0",
            b"\xff\xfe",
            b"\xef\xbb\xbf",
            b"\r\n",
            b"\\ud800",
            b"\xed\xa0\x80",
            b'"',
            b"{[",
            b"\n\n",
            b"\xf4\x90\x80\x80",
        )
        mutable[at:end] = random_.choice((b"", mutable[at:end] * 2, random_.randbytes(4), random_.choice(odd)))
    return bytes(mutable)


@given(
    st.sampled_from(["a.jsonl", "a.json", "a.txt", "a.jsonl.zst", "a.jsonl.gz", "a.parquet"]), st.binary(max_size=300)
)
@settings(deadline=None, max_examples=20)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    check(folder, filter_bytes(folder, name, data))


@given(st.integers(0, 1 << 30), st.sampled_from(["lines", "array", "zst", "gz"]))
@settings(deadline=None, max_examples=50)
def test_mutated_shards(tmp_path_factory: pytest.TempPathFactory, seed: int, kind: str) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    data = mutate(ARRAY.encode() if kind == "array" else PLAIN, seed)
    if kind in ("zst", "gz"):
        data = zstandard.compress(data) if kind == "zst" else gzip.compress(data)
        data = mutate(data, seed) if seed % 2 else data
    name = {"lines": "a.jsonl", "array": "a.json", "zst": "a.jsonl.zst", "gz": "a.jsonl.gz"}[kind]
    check(folder, filter_bytes(folder, name, data))


@pytest.mark.parametrize(
    ("data", "kept", "unreadable"),
    [
        (b"\xef\xbb\xbf" + PLAIN, 8, {}),
        (PLAIN.replace(b"\n", b"\r\n"), 8, {}),
        (PLAIN + b'{"text": "half \\ud800 a pair, and then the rest of it"}\n', 8, {"lone_surrogate": 1}),
        (PLAIN + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"\n", 8, {"too_deep": 1}),
        (PLAIN + b'{"text": "' + b"long words " * 200_000 + b'"}\n' + PLAIN, 16, {"too_long": 1}),
    ],
)  # fmt: skip
def test_named_dangers(tmp_path: Path, data: bytes, kept: int, unreadable: dict[str, int]) -> None:
    record = filter_bytes(tmp_path, "a.jsonl", data, max_record_bytes=1 << 20)
    check(tmp_path, record)
    assert (record.kept, record.unreadable) == (kept, unreadable)


@pytest.mark.parametrize("name", ["bomb.jsonl.zst", "bomb.jsonl.gz"])
def test_a_line_of_a_hundred_megabytes_is_one_unreadable_record(tmp_path: Path, name: str) -> None:
    bomb = b'{"text": "' + b"a" * 100_000_000 + b'"}\n' + PLAIN
    data = zstandard.compress(bomb, 1) if name.endswith("zst") else gzip.compress(bomb, 1)
    assert len(data) < 1_000_000
    record = filter_bytes(tmp_path, name, data, max_record_bytes=1 << 20)
    check(tmp_path, record)
    assert (record.kept, record.unreadable) == (8, {"too_long": 1})


def test_nuls_and_invisible_characters_are_cleaned_and_nothing_is_lost(tmp_path: Path) -> None:
    texts = [
        "\0" * 100,
        "\0The frogs were\u200b happy, for it\ufeff had rained.\0",
        "\u202e" * 9 + "青蛙很高兴，因为下了一整天雨。",
    ]
    record = filter_bytes(tmp_path, "a.jsonl", raw.jsonl({"text": text} for text in texts))
    check(tmp_path, record)
    kept = pq.read_table(tmp_path / "data/part-00000.parquet").column("text").to_pylist()
    assert kept == ["The frogs were happy, for it had rained.", "青蛙很高兴，因为下了一整天雨。"]
