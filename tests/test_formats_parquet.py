"""Parquet of ours and of others, and plain text."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files as raw

from glm_data import documents
from glm_data.formats import read_blocks
from glm_data.formats.parquet import parquet_writer
from glm_data.inputs import describe_input


def own_block(count: int, text: str = "字") -> pa.RecordBatch:
    rows = range(count)
    return documents.make_block(
        [f"raw#{row}" for row in rows], [text * row for row in rows], ["s"] * count, ["en"] * count, ['{"a":1}'] * count
    )


def test_our_own_files_keep_every_column(tmp_path: Path) -> None:
    block = own_block(50)
    table = pa.Table.from_batches([block]).append_column("duplicates", pa.array(range(50), pa.uint32()))
    with parquet_writer(tmp_path / "a.parquet", table.schema) as writer:
        for batch in table.to_batches(max_chunksize=20):
            writer.write(batch)
    blocks = list(read_blocks(raw.as_input(tmp_path / "a.parquet")))
    assert pa.Table.from_batches([block.documents for block in blocks]).equals(table)
    assert all(block.unreadable == () for block in blocks)


def test_rows_of_others_are_taken_like_json_records(tmp_path: Path) -> None:
    day = datetime.date(2024, 5, 1)
    rows = {
        "text": pa.array(["a", None, "c" * 50, "d"], pa.large_string()),
        "meta": [{"pile_set_name": "Books"}] * 4,
        "day": [day] * 4,
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    found, unreadable = raw.read(raw.as_input(tmp_path / "a.parquet"), max_record_bytes=20)
    assert [(row["id"], row["text"], row["source"]) for row in found] == [
        ("a.parquet#0", "a", "Books"),
        ("a.parquet#3", "d", "Books"),
    ]
    assert json.loads(found[0]["meta"]) == {"day": "2024-05-01"}
    assert [(bad.record, bad.reason) for bad in unreadable] == [(1, "wrong_type"), (2, "too_long")]


def test_faulty_rows_of_ours_are_reported(tmp_path: Path) -> None:
    bad_utf8 = pa.StringArray.from_buffers(
        4, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\x2a\0\0\0\x2b\0\0\0"), pa.py_buffer(b"a\xff" + b"c" * 40 + b"d")
    )
    columns = {name: pa.array(["x"] * 4) for name in documents.SCHEMA.names} | {"text": bad_utf8}
    columns["source"] = pa.array(["x", "x", "x", None])
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found, unreadable = raw.read(raw.as_input(tmp_path / "a.parquet"), max_record_bytes=20)
    assert [row["text"] for row in found] == ["a"]
    assert [(bad.record, bad.reason) for bad in unreadable] == [(1, "invalid_utf8"), (2, "too_long"), (3, "wrong_type")]


def test_a_file_without_text_loses_all_its_rows_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "b", "c"]}), tmp_path / "a.parquet")
    (bad,) = raw.read(raw.as_input(tmp_path / "a.parquet"))[1]
    assert (bad.reason, bad.count) == ("no_text", 3)
    assert "its columns: body" in bad.detail
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert raw.reasons(raw.as_input(tmp_path / "b.parquet")) == ["empty"]


def test_damaged_parquet_keeps_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with parquet_writer(path, documents.SCHEMA) as writer:
        for _ in range(4):
            writer.write(own_block(900, "abc"))
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 3000):
        data[at] ^= 0x5A
    path.write_bytes(data)
    found, unreadable = raw.read(raw.as_input(path))
    assert [bad.reason for bad in unreadable] == ["corrupt"]
    assert len(found) + unreadable[0].count == 3600
    assert len(found) >= 900
    path.write_bytes(data[:-1])
    assert raw.reasons(raw.as_input(path)) == ["corrupt"]


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    item = raw.write(tmp_path / "a.txt.gz", b"\xef\xbb\xbfOne\r\n" + "二\n".encode())
    item = raw.InputFile(name="novels/a.txt.gz", path=item.path, bytes=item.bytes, digest="")
    found, unreadable = raw.read(item)
    assert unreadable == []
    assert found == [{"id": "novels/a.txt.gz#0", "text": "One\r\n二\n", "source": "novels", "lang": "", "meta": "{}"}]


@pytest.mark.parametrize(
    ("data", "reason"), [(b"a\xffb", "invalid_utf8"), (b"x" * 101, "too_long"), ("中文".encode("gbk"), "invalid_utf8")]
)
def test_an_unreadable_text_file_is_reported(tmp_path: Path, data: bytes, reason: str) -> None:
    item = raw.write(tmp_path / "a.txt", data)
    assert raw.read(item, max_record_bytes=100)[0] == []
    assert raw.reasons(item, max_record_bytes=100) == [reason]


def test_a_truncated_text_file_keeps_its_beginning(tmp_path: Path) -> None:
    text = "".join(f"第{number}行\n" for number in range(40_000))
    item = raw.write(tmp_path / "a.txt.zst", text.encode())
    Path(item.path).write_bytes(Path(item.path).read_bytes()[:-5])
    found, unreadable = raw.read(item)
    assert text.startswith(found[0]["text"])
    assert [bad.reason for bad in unreadable] == ["truncated"]


def test_a_file_that_is_parquet_by_name_alone_is_one_corrupt_record(tmp_path):
    path = tmp_path / "liar.parquet"
    path.write_text("One line of prose.\n", encoding="utf-8")
    (block,) = read_blocks(describe_input(path, "liar.parquet"))
    assert block.documents.num_rows == 0
    assert [item.reason for item in block.unreadable] == ["corrupt"]
