"""Rows of data sets: stretches of them, counts, tables without headers, and what is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from glm_data.errors import InputError
from glm_data.formats import Unreadable
from glm_data.formats.rows import TableForm, count_rows, read_rows

ROWS: list[dict[str, Any]] = [{"text": f"row {number}", "label": number} for number in range(50)]


def sources(folder: Path) -> list[Path]:
    """The same fifty rows in every format, the last with row groups of seven."""
    import datasets

    lines = [json.dumps(row) for row in ROWS]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "a.json").write_text("[" + ",\n".join(lines) + "]", encoding="utf-8")
    table = "".join(f"{row['text']}{{0}}{row['label']}\n" for row in ROWS)
    (folder / "a.tsv").write_text("text\tlabel\n" + table.replace("{0}", "\t"), encoding="utf-8")
    (folder / "a.csv").write_text("text,label\n" + table.replace("{0}", ","), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet", row_group_size=7)
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder / "saved"))
    return sorted(folder.iterdir())


def test_stretches_and_chosen_rows_are_those_of_the_whole(tmp_path: Path) -> None:
    wanted = [range(10), range(10, 33), range(33, 10**9), range(60, 70), frozenset({0, 7, 49})]
    for path in sources(tmp_path):
        assert count_rows(path) == 50, path
        for some in wanted:
            expected = [(number, row) for number, row in enumerate(ROWS) if number in some]
            assert list(read_rows(path, wanted=some)) == expected, (path, some)


def test_a_table_without_a_header_takes_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('3,"a, b"\n1,c\n', encoding="utf-8")
    rows = list(read_rows(tmp_path / "a.csv", form=TableForm(("label", "text"))))
    assert rows == [(0, {"label": 3, "text": "a, b"}), (1, {"label": 1, "text": "c"})]
    assert count_rows(tmp_path / "a.csv", form=TableForm(("label", "text"))) == 2


def test_quotation_marks_and_line_ends_are_as_the_form_says(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('"Ann" left.\\nWhy?\tno\n"x\ty\n', encoding="utf-8")
    rows = list(read_rows(tmp_path / "a.tsv", form=TableForm(("q", "a"), quoted=False, escaped=True)))
    assert rows == [(0, {"q": '"Ann" left.\nWhy?', "a": "no"}), (1, {"q": '"x', "a": "y"})]
    kept = list(read_rows(tmp_path / "a.tsv", form=TableForm(("q", "a"), quoted=False)))
    assert kept[0] == (0, {"q": '"Ann" left.\\nWhy?', "a": "no"})


def test_text_that_is_not_utf8_is_a_bad_row_or_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\nfein,1\n" + "schön,2\n".encode("latin-1"))
    good, bad = read_rows(tmp_path / "a.csv")
    assert good == (0, {"text": "fein", "label": 1})
    assert isinstance(bad, Unreadable)
    assert (bad.record, bad.reason) == (1, "invalid_utf8")
    (tmp_path / "b.csv").write_bytes("schön,x\n1,2\n".encode("latin-1"))
    with pytest.raises(InputError, match="no CSV table"):
        list(read_rows(tmp_path / "b.csv"))


def test_a_damaged_row_group_costs_its_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"text": f"{number} " * 50} for number in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 16] = b"\xff" * 16
    path.write_bytes(data)
    found = list(read_rows(path))
    lost = [item for item in found if isinstance(item, Unreadable)]
    assert [(item.record, item.reason, item.count) for item in lost] == [(10, "corrupt", 10)]
    assert [item[0] for item in found if not isinstance(item, Unreadable)] == [*range(10), *range(20, 40)]
    parts = [[item for item in read_rows(path, wanted=part) if isinstance(item, Unreadable)]
             for part in (range(15), range(15, 10**9))]  # fmt: skip
    assert [sum(item.count for item in part) for part in parts] == [5, 5]
    assert count_rows(path) == 40
