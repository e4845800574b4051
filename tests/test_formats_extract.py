"""Texts taken out of records by the compiled scan, beside the decoder that is trusted."""

import json
import random

import msgspec
import pytest
import raw_files as raw
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.formats.blocks import BadRecordError, Document
from glm_data.formats.extract import CONTENT, NOT_FLAT, extract_texts
from glm_data.formats.records import decode_document, name_source

TEXT = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('\n\t"\\/é字𠀀 ab')), max_size=40)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
KEYS = st.one_of(st.sampled_from(["text", "content", "raw_content", "meta", "title"]), TEXT)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=5)


def taken(record):
    """The text and what is left, or None where the record has to be decoded whole."""
    found = extract_texts(raw.records([record]))
    return (bytes(found.texts.data).decode(), bytes(found.rests.data)) if found.rests.data.size else None


@settings(deadline=None, max_examples=400)
@given(RECORDS, st.booleans(), st.sampled_from([None, 1]))
def test_the_text_is_what_the_decoder_finds(record, escaped, indent):
    data = json.dumps(record, ensure_ascii=escaped, indent=indent).encode()
    found = taken(data)
    field = next((name for name in ("text", "content", "raw_content") if name in record), None)
    if field is None or type(record[field]) is not str:
        assert found is None
        return
    if found is None:
        fields = [record[name] for name in ("text", "content", "raw_content") if name in record]
        unusual = [type(value) is not str for value in fields]
        assert any(unusual) or any("\\" in json.dumps(key, ensure_ascii=escaped) for key in record)
        return
    assert found[0] == record[field]
    assert json.loads(found[1]) == {**record, field: ""}


ESCAPES = r"a\u00e9\ud83d\ude00 字\n\"b\" \/ \b\f\r\t\\"
GOOD = f'{{"id": 1, "text": "{ESCAPES}", "meta": {{"n": [1, {{"text": "in"}}]}}}}'.encode()


def test_escapes_and_nested_fields_of_the_same_name():
    assert taken(GOOD)[0] == 'aé😀 字\n"b" / \b\f\r\t\\'
    assert taken(b'{"content": "c", "raw_content": "r", "text": "t"}')[0] == "t"
    assert taken(b'{"raw_content": "r", "content": "c"}') == ("c", b'{"raw_content": "r", "content": ""}')


@pytest.mark.parametrize(
    "record",
    [
        b"", b" ", b"[]", b"null", b'{"text": 1}', b'{"text": "a", "text": "b"}', b'{"te\\u0078t": "a"}',
        b'{"text": "a"} x', b'{"text": "a', b'{"text": "a"', b'{"text": "\\ud800"}', b'{"text": "\\udc00\\ud800"}',
        b'{"text": "\\ud800\\u0041"}', b'{"text": "\\x"}', b'{"text": "\\u12"}', b'{"text": "\\u12g4"}',
        b'{"text": "a\x01"}', b'{"text": "a\n"}', b'{"text": "\xff"}', b'{"text": "\xc0\x80"}',
        b'{"text": "\xed\xa0\x80"}', b'{"text": "\xe4\xb8"}', b'{"text": "\xf4\x90\x80\x80"}',
        b'{"text": "\xe0\x80\x80"}',
        b'{"text": "\\', b'{text: "a"}', b'{"text" "a"}', b'{"a": "b"}', b"{}",
    ],
)  # fmt: skip
def test_what_is_unusual_is_left_to_the_decoder(record):
    assert taken(record) is None


@settings(deadline=None, max_examples=300)
@given(RECORDS, st.randoms(use_true_random=False))
def test_of_damaged_records_nothing_is_read_that_the_decoder_would_not_read(record, damage):
    data = bytearray(json.dumps(record, ensure_ascii=False).encode())
    for _ in range(damage.randrange(1, 4)):
        data[damage.randrange(len(data))] = damage.choice(b'"\\{}[],: \n\xe4\xb8\xffa0')
    data = bytes(data)
    found = taken(data)
    if found is None:
        return
    try:
        rest = decode_document(found[1], "in", 0)
    except BadRecordError:
        return
    whole = decode_document(data, "in", 0)
    assert whole._replace(text="") == rest
    assert whole.text == found[0]


def test_many_records_keep_their_places():
    texts = ["".join(random.Random(i).choices('ab"\\\n字é', k=i % 30)) for i in range(500)]
    records = [msgspec.json.encode({"text": text, "n": i}) for i, text in enumerate(texts)]
    records[7] = b"{"
    found = extract_texts(raw.records(records))
    texts[7] = ""
    assert found.texts.strings().to_pylist() == texts
    assert found.rests.strings().to_pylist() == [f'{{"text":"","n":{i}}}' if i != 7 else "" for i in range(len(texts))]


PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(10**16), 10**16), st.floats(-1, 1), TEXT, st.just({"a": 1}))
FLAT_KEYS = st.sampled_from(["dataType", "pile_set_name", "source", "lang", "title", "标题", "id", "content", "text"])
VALUE = st.one_of(PLAIN, st.dictionaries(FLAT_KEYS, PLAIN))
FLAT = st.dictionaries(st.one_of(FLAT_KEYS, st.just("meta")), VALUE, max_size=8)


@settings(deadline=None, max_examples=400)
@given(FLAT, TEXT, st.sampled_from([None, (",", ":")]))
def test_flat_fields_become_what_decoder_and_encoder_make_of_them(fields, text, separators):
    record = json.dumps({**fields, "text": text}, ensure_ascii=False, separators=separators).encode()
    found = described(record)
    assert found is None or found == decode_document(record, "in", 3)._replace(text="")


@pytest.mark.parametrize(
    ("record", "is_flat"),
    [
        ({"text": "t", "url": "u", "n": -12, "ok": True, "no": None, "source": "s"}, True),
        ({"content": "c", "dataType": "d", "title": "标题", "source": "s"}, True),
        ({"content": "c", "dataType": ""}, True),
        ({"content": "c", "dataType": 3}, True),
        ({"raw_content": "c", "n": 0}, True),
        ({"text": "t", "n": 1.5}, False),
        ({"text": "t", "n": 10**15}, False),
        ({"text": "t", "n": 'a\nb "c" \\', "m": "\t\r\b\f"}, True),
        ({"text": "t", "n": "a\0b"}, False),
        ({"text": "t", "a\nb": 1}, False),
        ({"text": "t", "source": "a\nb"}, False),
        ({"text": "t", "pile_set_name": "p", "source": "s"}, False),
        ({"text": "t", "meta": "m"}, False),
        ({"text": "t", **{f"n{i}": i for i in range(16)}}, False),
        ({"text": "t", "meta": {"pile_set_name": "p", "n": 1}, "url": "u"}, True),
        ({"meta": {"lang": "en"}, "content": "c", "dataType": "d", "source": "s"}, True),
        ({"text": "t", "meta": {}}, False),
        ({"text": "t", "meta": {"url": "v"}, "url": "u"}, False),
        ({"text": "t", "meta": {"content": "c"}}, False),
        ({"text": "t", "meta": {"meta": 1}}, False),
        ({"text": "t", "meta": {"a": {"b": 1}}}, False),
        ({"text": "t", "meta": {"source": "s"}, "pile_set_name": "p"}, False),
        ({"id": "1", "text": "t", "source": "s", "lang": "en", "meta": {"n": 1}}, False),
    ],
)
def test_which_records_are_flat(record, is_flat):
    data = json.dumps(record, ensure_ascii=False).encode()
    assert described(data) == (decode_document(data, "in", 3)._replace(text="") if is_flat else None)


@pytest.mark.parametrize("value", [b"-0", b"01", b"1e3", b"tru", b"truex", b"nul", b"-", b"", b'"a" 1', b"1 2"])
def test_odd_values_are_not_flat(value):
    assert described(b'{"text": "t", "n": ' + value + b"}") is None
    assert described(b'{"text": "t", "n": 1, "n": ' + value + b"}") is None


def described(record):
    """The document that the flat fields of a record make, or None if they are not flat."""
    found = extract_texts(raw.records([record]))
    (field,) = found.fields.tolist()
    if field == NOT_FLAT:
        assert (found.metas.at(0), found.sources.at(0)) == (b"", b"")
        return None
    source = name_source(found.sources.at(0).decode(), "in", field == CONTENT)
    return Document("in#3", "", source, "", found.metas.at(0).decode())
