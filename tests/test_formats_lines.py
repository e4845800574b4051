"""JSON lines: Pile's conventions, our own files, and every kind of bad record by its reason."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import raw_files as raw
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_data import documents
from glm_data.errors import InputError, UsageError
from glm_data.formats import FORMATS, read_blocks, sniff
from glm_data.formats.blocks import BlockBuilder, Document, Record, Unreadable
from glm_data.formats.jsonl import jsonl_writer
from glm_data.formats.lines import LineSplitter

PILE = {"text": "a\n句", "meta": {"pile_set_name": "Github", "stars": 3}}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "no-suffix"])
def test_pile_records(tmp_path: Path, name: str) -> None:
    records = [PILE, {"text": "b", "meta": json.dumps(PILE["meta"])}, {"text": "c", "url": "u"}]
    rows, unreadable = raw.read(raw.write(tmp_path / name, raw.jsonl(records)))
    assert unreadable == []
    assert [row["id"] for row in rows] == [f"{name}#0", f"{name}#1", f"{name}#2"]
    assert [row["text"] for row in rows] == ["a\n句", "b", "c"]
    assert [row["source"] for row in rows] == ["Github", "Github", name]
    assert [row["lang"] for row in rows] == ["", "", ""]
    assert [json.loads(row["meta"]) for row in rows] == [{"stars": 3}, {"stars": 3}, {"url": "u"}]


@pytest.mark.parametrize("ahead", [0, 1, 40])
def test_lines_of_any_length_end_where_they_end(ahead: int) -> None:
    lines = [b"x" * size for size in (*range(1, 140), 1, 1, 63, 64, 65)]
    data = b"\n" * ahead + b"\n".join(lines) + b"\n"
    found = [record.data for records in LineSplitter(1000).feed(data) for record in records.each()]
    assert found == lines


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (None, {}),
        ("just words", {"meta": "just words"}),
        ("{broken", {"meta": "{broken"}),
        (["x"], {"meta": ["x"]}),
        ({"url": "inner"}, {"url": "outer", "meta": {"url": "inner"}}),
    ],
)
def test_odd_meta_is_kept(tmp_path: Path, meta: object, expected: object) -> None:
    record = {"text": "t", "meta": meta} | ({"url": "outer"} if meta == {"url": "inner"} else {})
    rows, _ = raw.read(raw.write(tmp_path / "a.jsonl", raw.jsonl([record])))
    assert json.loads(rows[0]["meta"]) == expected


BAD = {
    b'{"text": "half': "malformed_json",
    b'{"text": "a"} trailing': "malformed_json",
    b'{"text": "raw \x01 control"}': "malformed_json",
    b'{"text": NaN}': "malformed_json",
    b"not JSON at all": "malformed_json",
    b'{"text": "\xff\xfe"}': "invalid_utf8",
    b'{"text": "\xed\xa0\x80"}': "invalid_utf8",
    rb'{"text": "\ud83d alone"}': "lone_surrogate",
    rb'{"text": "a", "\udc00": 1}': "lone_surrogate",
    rb'{"text": "\\ud800" oops}': "malformed_json",
    b"[" * 5000 + b"]" * 5000: "too_deep",
    b'{"text": 5}': "wrong_type",
    b'{"text": null}': "wrong_type",
    b'["text"]': "wrong_type",
    b'"text"': "wrong_type",
    b'{"body": "a"}': "no_text",
    b"{}": "no_text",
    b'{"text": "' + b"x" * 20_000 + b'"}': "too_long",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_is_kept_with_place_and_reason(tmp_path: Path, bad: bytes) -> None:
    good = raw.jsonl([{"text": "before"}])
    item = raw.write(tmp_path / "a.jsonl", good + bad + b"\r\n\r\n" + raw.jsonl([{"text": "after"}]))
    rows, unreadable = raw.read(item, max_record_bytes=15_000)
    assert [row["text"] for row in rows] == ["before", "after"]
    assert [row["id"] for row in rows] == ["a.jsonl#0", "a.jsonl#2"]
    (found,) = unreadable
    assert (found.record, found.offset, found.reason) == (1, len(good), BAD[bad])
    assert found.detail
    assert found.excerpt == bad[:160].decode("utf-8", "replace")


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    assert raw.texts(raw.write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + raw.jsonl([PILE]))) == ["a\n句"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \r\n"])
@pytest.mark.parametrize("format", [*FORMATS, "auto"])
def test_an_empty_file_is_reported(tmp_path: Path, data: bytes, format: str) -> None:
    found = raw.reasons(raw.write(tmp_path / "a.bin", data), format)
    assert found == (["corrupt"] if format == "parquet" else ["empty"])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_truncated_compression_adds_one_unreadable_record(tmp_path: Path, name: str) -> None:
    texts = [f"{number} " + "字" * (number % 50) for number in range(3000)]
    item = raw.write(tmp_path / name, raw.jsonl({"text": text} for text in texts))
    data = Path(item.path).read_bytes()
    for cut in (len(data) // 2, len(data) - 3):
        Path(item.path).write_bytes(data[:cut])
        rows, unreadable = raw.read(item)
        assert [row["text"] for row in rows] == texts[: len(rows)]
        assert [bad.reason for bad in unreadable] == ["truncated"]
        assert unreadable[0].record == len(rows)


def test_a_record_before_the_break_is_whole_if_it_decodes(tmp_path: Path) -> None:
    item = raw.write(tmp_path / "a.jsonl.gz", raw.jsonl([{"text": "whole"}]).rstrip())
    Path(item.path).write_bytes(Path(item.path).read_bytes()[:-1])
    rows, unreadable = raw.read(item)
    assert [row["text"] for row in rows] == ["whole"]
    assert [(bad.record, bad.reason, bad.excerpt) for bad in unreadable] == [(1, "truncated", "")]


@example([b"\xef\xbb\xbf" + b"a" * 40, b"b"], 7)
@example([b"\xef\xbb\xbf" + b"a" * 41, b"b"], 7)
@example([b"a" * 60, b"b"], 7)
@given(st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=12), st.integers(1, 30))
@settings(deadline=None, max_examples=150)
def test_lines_do_not_depend_on_chunks(lines: list[bytes], step: int) -> None:
    limit, data = 40, b"\n".join(lines)
    splitter, found = LineSplitter(limit), []
    for at in range(0, len(data), step):
        found += raw.each(splitter.feed(data[at : at + step]))
    found += raw.each(splitter.finish(None))
    expected, offset = [], 0
    for line in lines:
        solid = line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line
        if len(solid) > limit or solid.strip():
            expected.append(
                (len(expected), offset + len(line) - len(solid), "too_long" if len(solid) > limit else solid)
            )
        offset += len(line) + 1
    if not expected:
        expected = [(0, 0, "empty")]
    assert [as_tuple(item) for item in found] == expected


def as_tuple(item: Record | Unreadable) -> tuple[int, int, object]:
    if isinstance(item, Record):
        return item.number, item.offset, item.data
    return item.record, item.offset, item.reason


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=40)
def test_noise_in_any_format_is_reported_and_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("noise") / "x"
    for start in (b"", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08", b"PAR1", b'{"text": "a"}\n', b"[", b"{"):
        path.write_bytes(start + data)
        for format in ("auto", *FORMATS):
            rows, unreadable = raw.read(raw.as_input(path), format)
            assert rows or unreadable or (start + data).strip(b" \n\r\t,]}[\x0b\x0c") in (b"", b"{")


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(texts, texts, texts, st.dictionaries(texts, texts, max_size=3)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=50)
def test_what_we_write_we_read_unchanged(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple]) -> None:
    path = tmp_path_factory.mktemp("own") / "part.jsonl.zst"
    metas = [json.dumps(meta, ensure_ascii=False, separators=(",", ":")) for *_, meta in rows]
    ids = [f"raw.jsonl#{row}" for row in range(len(rows))]
    columns = [[row[at] for row in rows] for at in range(3)]
    block = documents.make_block(ids, *columns, metas)
    with jsonl_writer(path) as writer:
        writer.write(block)
    (read,) = read_blocks(raw.as_input(path))
    assert read.documents.equals(block)
    assert read.unreadable == ()


@pytest.mark.parametrize(
    "record",
    [{"text": "x" * 1000}, {"text": "x", "note": "y" * 1000}, {"text": "x", "notes": ["y" * 1000]}],
    ids=["text", "flat meta", "nested meta"],
)
def test_blocks_stay_small(tmp_path: Path, record: dict[str, object]) -> None:
    item = raw.write(tmp_path / "a.jsonl", raw.jsonl({**record, "n": n} for n in range(9000)))
    blocks = list(read_blocks(item))
    assert sum(block.documents.num_rows for block in blocks) == 9000
    assert max(block.documents.num_rows for block in blocks) <= documents.BLOCK_ROWS
    assert max(block.documents.nbytes for block in blocks) <= 2 * documents.BLOCK_BYTES


@pytest.mark.parametrize(
    ("name", "data", "format"),
    [
        ("a", b'{"text": "x"}\n', "jsonl"),
        ("a.json", b'{"text": "x"}\n{"text": "y"}\n', "jsonl"),
        ("a", b'[{"text": "x"}]', "wudao"),
        ("a", b"\xef\xbb\xbf [\n {", "wudao"),
        ("a.jsonl", b"[]", "wudao"),
        ("a", b'{"RECORDS": [{"id": 1}]}', "wudao"),
        ("a", b'{"total": 2, "data": [ {"id": 1}]}', "wudao"),
        pytest.param("a", b'{"n": 1,' + b"\r\n \t" * 20_000 + b'"data": [{"id": 1}]}', "wudao", id="blanks in a head"),
        ("a", b'{"data": [{"id": 1}], "text": "x"}\n', "jsonl"),
        pytest.param("a", b'{"text": "' + b" " * 80_000 + b'"}\n', "jsonl", id="blanks in a text"),
        ("a.json", b"\xff\xfe damaged", "wudao"),
        ("a.jsonl.gz", b"damaged", "jsonl"),
        ("a.txt", b'{"text": "x"}', "text"),
        ("a.txt.zst", b"[1] A footnote.", "text"),
        ("a", b"[1] A footnote.", "text"),
        ("a", b"Plain words.", "text"),
        ("a", b"", "text"),
        ("a", b"PAR1....", "parquet"),
    ],
)
def test_formats_are_known_by_their_content(tmp_path: Path, name: str, data: bytes, format: str) -> None:
    assert sniff(Path(raw.write(tmp_path / name, data).path)) == format


def test_wrong_names_and_missing_files_are_one_sentence(tmp_path: Path) -> None:
    item = raw.write(tmp_path / "a.jsonl", b"{}")
    with pytest.raises(UsageError, match=r"unknown format 'wuda'\. Did you mean 'wudao'\?"):
        next(read_blocks(item, "wuda"))
    Path(item.path).unlink()
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); check the file\."):
        next(read_blocks(item))


def test_what_documents_say_beside_their_texts_counts_in_bytes_whichever_way_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(documents, "BLOCK_BYTES", 1000)
    meta, size = "字" * 200, np.ones(1, np.int32)
    columns = [pa.array([value], pa.string()) for value in ("i", "s", "", meta)]
    by_rows, by_columns = BlockBuilder(), BlockBuilder()
    rows = [by_rows.add([Document("i", "", "s", "", meta)], b"x", size) for _ in range(2)]
    assert rows == [by_columns.add_columns(columns, b"x", size) for _ in range(2)] == [False, True]
    assert by_rows.take().documents.equals(by_columns.take().documents)


def test_memory_does_not_grow_with_fields_that_differ(tmp_path: Path) -> None:
    records = ({"text": "字" * 30_000, "meta": {"list": [number, "x" * 100_000]}} for number in range(300))
    item, held = raw.write(tmp_path / "a.jsonl", raw.jsonl(records)), []
    for _ in read_blocks(item):  # kernels are compiled
        break
    tracemalloc.start()
    try:
        for _ in read_blocks(item):
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert max(held) < 2 * held[0]
