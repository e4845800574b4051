import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.documents import SCHEMA, document_id, make_block

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def test_the_id_names_input_and_record() -> None:
    assert document_id("pile/00.jsonl.zst", 123) == "pile/00.jsonl.zst#123"


def test_the_schema_is_five_strings_that_are_never_null() -> None:
    assert SCHEMA.names == ["id", "text", "source", "lang", "meta"]
    assert all(field.type == pa.string() and not field.nullable for field in SCHEMA)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), max_size=5))
def test_a_block_holds_what_it_was_given(rows: list[tuple[str, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []]
    block = make_block(*columns)
    block.validate(full=True)
    assert block.schema == SCHEMA
    assert [tuple(row.values()) for row in block.to_pylist()] == rows


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same length"):
        make_block(["a#0"], ["one", "two"], ["a"], ["en"], ["{}"])
