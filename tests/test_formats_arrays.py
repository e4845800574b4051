"""WuDao arrays: cut at the same places as a JSON parser would, in bounded memory, past damage."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import raw_files as raw
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glm_data.formats.arrays import ArraySplitter
from glm_data.formats.blocks import Record, Unreadable
from glm_data.formats.streams import CHUNK_BYTES, BrokenStreamError


def wudao(number: int, content: str = "正文") -> dict[str, object]:
    return {"id": number, "uniqueKey": "k", "titleUkey": "t", "dataType": "科技", "title": "标题", "content": content}


def compact(records: list[object]) -> bytes:
    return json.dumps(records, ensure_ascii=False).encode()


def split(data: bytes, step: int = 1 << 20, limit: int = 1 << 20, broken: bool = False) -> list[Record | Unreadable]:
    splitter, found = ArraySplitter(limit), []
    for at in range(0, len(data), step):
        found += raw.each(splitter.feed(data[at : at + step]))
    return found + list(raw.each(splitter.finish(BrokenStreamError("truncated", "cut") if broken else None)))


def contents(found: list[Record | Unreadable]) -> list[object]:
    return [json.loads(item.data) for item in found if isinstance(item, Record)]


def reasons(found: list[Record | Unreadable]) -> list[str]:
    return [item.reason for item in found if isinstance(item, Unreadable)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=8), st.sampled_from([None, 1, "\t"]), st.booleans(), st.integers(1, 40))
@settings(deadline=None, max_examples=100)
def test_elements_are_those_of_a_json_parser(elements: list[object], indent: object, escaped: bool, step: int) -> None:
    data = json.dumps(elements, indent=indent, ensure_ascii=escaped).encode("utf-8", "replace")
    found = split(data, step)
    assert contents(found) == json.loads(data)
    assert reasons(found) == []
    for number, item in enumerate(found):
        assert item.number == number
        assert data[item.offset : item.offset + len(item.data)] == item.data


def test_blanks_inside_the_object_around_an_array_may_be_many() -> None:
    blanks = b"\r\n \t" * 20_000
    data = b'{"total": 1,' + blanks + b'"data": [{"id": 1}]' + blanks + b'}\n{"id": 2}'
    assert contents(split(data, 5_000)) == [{"id": 1}, {"id": 2}] == contents(split(data))


@pytest.mark.parametrize("key", ["RECORDS", "records", "data"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_an_object_around_the_array_is_looked_through(key: str, step: int) -> None:
    records = [wudao(1), wudao(2)]
    for wrapped in ({key: records}, {"total": 2, "name": "x", key: records, "next": None}):
        for indent in (None, 2):
            found = split(json.dumps(wrapped, indent=indent).encode(), step)
            assert contents(found) == records
            assert reasons(found) == []


def test_arrays_without_brackets_or_one_after_the_other_are_read() -> None:
    one, two = compact([wudao(1)]), compact([wudao(2)])
    for data in (one + two, one + b"\n" + two, one[1:-1] + b"," + two[1:-1], one[1:-1] + b"\n" + two[1:-1]):
        assert contents(split(data)) == [wudao(1), wudao(2)]
        assert reasons(split(data)) == []
    assert reasons(split(b"")) == reasons(split(b" \n ")) == ["empty"]
    assert split(b"[]") == split(b"\xef\xbb\xbf[ ]\n") == []


DAMAGES = {
    "quote lost": lambda element: element.replace(b'"content": "', b'"content": ', 1),
    "closing quote lost": lambda element: element.replace('正文"'.encode(), "正文".encode()),
    "brace lost": lambda element: element[:-1],
    "opening brace lost": lambda element: element[1:],
    "half lost": lambda element: element[: len(element) // 2],
    "raw line end": lambda element: element.replace("正文".encode(), b"a\nb"),
    "raw NUL": lambda element: element.replace("正文".encode(), b"a\x00b"),
    "noise": lambda element: random.Random(3).randbytes(len(element)),
    "extra brace": lambda element: element + b"}",
    "colon lost": lambda element: element.replace(b'"title":', b'"title"', 1),
    "two values": lambda element: element.replace(b'"id": 2', b'"id": 2 2', 1),
    "bracket for brace": lambda element: element[:-1] + b"]",
    "quote in text": lambda element: element.replace("正文".encode(), '正"文'.encode()),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_damage_costs_one_element(damage: str, indent: int | None, step: int) -> None:
    elements = [json.dumps(wudao(number), ensure_ascii=False, indent=indent).encode() for number in range(5)]
    elements[2] = DAMAGES[damage](elements[2])
    assert elements[2] != json.dumps(wudao(2), ensure_ascii=False, indent=indent).encode()
    found = split(b"[" + b",\n".join(elements) + b"]", step)
    kept = [record["id"] for record in contents([item for item in found if is_sound(item)])]
    assert kept in ([0, 1, 3, 4], [0, 1, 2, 3, 4] if damage == "extra brace" else [0, 1, 3, 4])
    assert damage == "extra brace" or len(found) - len(kept) == 1


def is_sound(item: Record | Unreadable) -> bool:
    try:
        return isinstance(item, Record) and isinstance(json.loads(item.data), dict)
    except ValueError:
        return False


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_any_mutation_keeps_the_elements_far_from_it(data: st.DataObject) -> None:
    elements = [
        json.dumps(wudao(number, f"第{number}篇，说“好”。"), ensure_ascii=False).encode() for number in range(9)
    ]
    victim = data.draw(st.integers(1, 7))
    element = bytearray(elements[victim])
    at = data.draw(st.integers(0, len(element) - 1))
    element[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
    elements[victim] = bytes(element)
    found = split(b"[" + b",".join(elements) + b"]", data.draw(st.sampled_from([1, 33, 1000])))
    kept = {record["id"] for record in contents([item for item in found if is_sound(item)]) if "id" in record}
    assert kept >= set(range(9)) - {victim, victim + 1}


EMPTY_OBJECT = re.compile(rb'\{"RECORDS":\[\s*\]\s*\}[\s,\]}]*')


@example(b"]", 1)
@example(b"]}", 1)
@given(st.binary(max_size=300), st.integers(1, 50))
@settings(deadline=None, max_examples=200)
def test_noise_never_crashes(data: bytes, step: int) -> None:
    for head in (b"", b"[", b'[{"id":1},', b'{"RECORDS":['):
        found = split(head + data, step)
        is_closed = EMPTY_OBJECT.fullmatch(head + data)
        assert found or head + data in (b"[]",) or is_closed or not (head + data).strip(b" \n\r\t,]}[\x0b\x0c")


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("array", ["[]", "[ ]", '[{"id": 1}]', '[{"id": 1}, {"id": 2}]'])
def test_an_object_cut_before_its_brace_is_truncated(array: str, step: int) -> None:
    for head in ('{"RECORDS":', '{"total": 2, "data": '):
        for tail in ("", " ", "\n\n", ",", ", ", "]"):
            found = split(f"{head}{array}{tail}".encode(), step)
            assert (contents(found), reasons(found)) == (json.loads(array), ["truncated"])
            assert split(f"{head}{array}}}{tail}".encode(), step) == found[:-1]


@pytest.mark.parametrize("opening", [b"[", b'{"RECORDS": ['])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a"])
def test_blanks_before_an_array_mean_nothing_however_many(tmp_path: Path, opening: bytes, name: str) -> None:
    blanks = b" \n" * 35_000
    data = blanks + opening + compact([wudao(1), wudao(2)])[1:] + (b"}" if len(opening) > 1 else b"")
    assert contents(split(data, step=len(blanks) + 4)) == [wudao(1), wudao(2)]
    assert raw.texts(raw.write(tmp_path / name, data)) == ["正文"] * 2


def test_a_truncated_file_keeps_all_whole_elements() -> None:
    data = compact([wudao(number) for number in range(4)])
    for cut in range(2, len(data)):
        whole = data[:cut].count(b"}")
        for broken in (False, True):
            found = split(data[:cut], broken=broken)
            assert [record["id"] for record in contents(found)] == list(range(whole))
            assert reasons(found) == ["truncated"]


def test_an_element_that_is_too_long_is_passed_over() -> None:
    records = [wudao(0), wudao(1, 'x"}],[{\\' * 3000), wudao(2)]
    for step in (50, 1000, 1 << 20):
        found = split(compact(records), step, limit=5000)
        assert contents(found) == [records[0], records[2]]
        assert reasons(found) == ["too_long"]
        assert [getattr(item, "number", getattr(item, "record", None)) for item in found] == [0, 1, 2]


def test_memory_does_not_grow_with_the_file() -> None:
    splitter, count = ArraySplitter(1 << 20), 0
    element = compact([wudao(1, "长" * 20_000)])[1:-1]

    def chunks() -> Iterator[bytes]:
        yield b"["
        for _ in range(20):
            yield (element + b",") * (CHUNK_BYTES // len(element))
        yield element + b"]"

    for chunk in chunks():
        count += sum(1 for _ in raw.each(splitter.feed(chunk)))
        assert len(splitter._buffer) <= len(element) + CHUNK_BYTES
    assert not list(splitter.finish(None))
    assert count > 300


def test_documents_of_wudao(tmp_path: Path) -> None:
    for name in ("a.json", "b.json.gz", "c.json.zst"):
        item = raw.write(tmp_path / name, compact([wudao(7), {"content": "无类"}, {"content": 5}, ["x"], {"x": 1}]))
        documents, unreadable = raw.read(item)
        assert [(row["id"], row["text"], row["source"], row["lang"]) for row in documents] == [
            (f"{name}#0", "正文", "WuDao/科技", ""),
            (f"{name}#1", "无类", "WuDao", ""),
        ]
        assert json.loads(documents[0]["meta"]) == {"id": 7, "uniqueKey": "k", "titleUkey": "t", "title": "标题"}
        assert [(bad.record, bad.reason) for bad in unreadable] == [
            (2, "wrong_type"),
            (3, "wrong_type"),
            (4, "no_text"),
        ]
        assert "'content' is a number" in unreadable[0].detail


def test_a_truncated_archive_adds_one_unreadable_record(tmp_path: Path) -> None:
    texts = [random.Random(number).randbytes(3000).hex() for number in range(200)]
    item = raw.write(tmp_path / "a.json.zst", compact([wudao(0, text) for text in texts]))
    data = Path(item.path).read_bytes()
    Path(item.path).write_bytes(data[: len(data) * 3 // 4])
    documents, unreadable = raw.read(item)
    assert [row["text"] for row in documents] == texts[: len(documents)]
    assert 100 < len(documents) < 200
    assert [bad.reason for bad in unreadable] == ["truncated"]
    assert unreadable[0].record == len(documents)
