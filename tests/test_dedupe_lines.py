"""Lines and paragraphs cut where a better document has them; counts turned into repeats."""

import re

import numpy as np
import pyarrow as pa
import pytest
from dedupe_runs import kept_rows, removals, run, run_in_process, write_jsonl
from dedupe_texts import full_width, traditional, write_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.dedupe.lines import cut_units, split_units, unit_keys
from glm_data.dedupe.options import parse_repeats
from glm_data.dedupe.output import repeats
from glm_data.errors import ConfigError
from glm_data.packing.tokenized import documents_batch
from pipelines import dedupe_steps


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr(dedupe_steps, "run_tasks", run_in_process)


def units_of(text, paragraphs):
    """The twin: lines with their ends; paragraphs end before a line that follows a blank one."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    if not paragraphs:
        return lines
    joined = []
    for place, line in enumerate(lines):
        if not joined or (place and not lines[place - 1].strip(" \t\n\v\f\r") and line.strip(" \t\n\v\f\r")):
            joined.append("")
        joined[-1] += line
    return joined


TEXTS = st.lists(st.text(st.sampled_from("ab \n\n\t。字"), max_size=12), min_size=1, max_size=4)


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.booleans(), st.integers(0, 2))
def test_units_cover_the_texts(texts, paragraphs, skipped):
    column = pa.array(["zz\n"] * skipped + texts)[skipped:]
    units = split_units(column, paragraphs)
    cut = [bytes(units.data[a:b]).decode() for a, b in zip(units.bounds[:-1], units.bounds[1:], strict=True)]
    found = [cut[a:b] for a, b in zip(units.first[:-1], units.first[1:], strict=True)]
    assert found == [units_of(text, paragraphs) for text in texts]


@settings(deadline=None, max_examples=100)
@given(TEXTS, st.booleans(), st.randoms())
def test_cut_units_are_gone_and_all_else_stays(texts, paragraphs, random):
    split = [units_of(text, paragraphs) for text in texts]
    cuts = [(row, unit) for row, units in enumerate(split) for unit in range(len(units)) if random.random() < 0.4]
    rows, numbers = (np.array([cut[i] for cut in cuts], np.int64) for i in range(2))
    found = cut_units(pa.array(texts), rows, numbers, paragraphs).to_pylist()
    for row, (text, units) in enumerate(zip(texts, split, strict=True)):
        left = "".join(unit for number, unit in enumerate(units) if (row, number) not in cuts)
        changed = left != text and not text.endswith("\n")
        assert found[row] == (left.rstrip("\r\n") if changed else left)


def test_keys_do_not_see_case_digits_punctuation_space_and_script():
    lines = [
        "Read 12 more articles!",
        " read 7 more ARTICLES",
        full_width("Read 12 more articles!"),
        "Read more articles",
    ]
    lines += ["请先登录，再阅读全文。", "请先登录 再阅读全文", traditional("请先登录，再阅读全文。")]
    keys = [tuple(key) for key in unit_keys(split_units(pa.array(lines), False))]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert keys[4] == keys[5] == keys[6]


BAR = "Home | News | Sports | Weather | Contact us"


def documents():
    en, zh = ([text.replace("\n", " ") for text in write_documents(name, 2, seed=9)] for name in ("en", "zh"))
    return [f"{BAR}\n\n{en[0]}", f"{en[1]}\n\n{BAR.upper()}\n\nOK", zh[0], f"{zh[1]}\n\n{BAR}"]


def test_a_line_stays_in_the_first_document_alone(tmp_path):
    given = documents()
    success = run([write_jsonl(tmp_path / "in.jsonl", given)], tmp_path / "out", lines="line")
    kept = [row["text"] for row in kept_rows(tmp_path / "out", success)]
    assert kept[0] == given[0]
    assert kept[1] == given[1].replace(f"{BAR.upper()}\n", "")
    assert kept[3] == given[3].removesuffix(f"\n\n{BAR}")
    assert [text.count(BAR) + text.count(BAR.upper()) for text in kept] == [1, 0, 0, 0]
    assert removals(tmp_path / "out") == []


def test_the_policy_decides_which_document_keeps_a_line(tmp_path):
    first, second = f"{BAR}\nalpha beta gamma delta epsilon", f"{BAR}\n{documents()[0]}"
    given = write_jsonl(tmp_path / "in.jsonl", [first, second])
    success = run([given], tmp_path / "out", lines="line", keep=("longest",))
    assert [row["text"] for row in kept_rows(tmp_path / "out", success)] == [
        first.removeprefix(f"{BAR}\n"),
        second.removeprefix(f"{BAR}\n"),
    ]


def test_short_lines_stay_and_a_document_without_any_other_is_dropped(tmp_path):
    given = write_jsonl(tmp_path / "in.jsonl", [f"{BAR}\nOK\nfirst of its kind, this line", f"OK\n{BAR}", BAR])
    success = run([given], tmp_path / "out", lines="line", containment=0.0)
    assert [row["text"] for row in kept_rows(tmp_path / "out", success)] == [
        f"{BAR}\nOK\nfirst of its kind, this line",
        "OK",
    ]
    assert success.dropped == {"lines": 1}
    assert success.records == 3


def test_cuts_do_not_depend_on_files_and_partitions(tmp_path, monkeypatch):
    texts = documents() * 2
    whole = run([write_jsonl(tmp_path / "one" / "in.jsonl", texts)], tmp_path / "a", lines="paragraph", threshold=1.0)
    monkeypatch.setattr(dedupe_steps, "KEYS_IN_PARTITION", 5)
    cut = [write_jsonl(tmp_path / "many" / f"{i}.jsonl", texts[i * 3 : i * 3 + 3]) for i in range(3)]
    parts = run(cut, tmp_path / "b", lines="paragraph", threshold=1.0)
    found = [[row["text"] for row in kept_rows(tmp_path / name, run_)] for name, run_ in (("a", whole), ("b", parts))]
    assert found[0] == found[1]
    assert whole.counts["text_bytes_kept"] == parts.counts["text_bytes_kept"] < sum(len(t.encode()) for t in texts[:4])
    assert not (tmp_path / "a" / "_work" / "lines").exists()


def test_counts_become_repeats_by_fineweb2s_table():
    sizes = np.array([1, 2, 3, 4, 5, 99, 100, 999, 1000, 123456], np.uint32)
    assert repeats(sizes, "fineweb2").tolist() == [1, 2, 3, 3, 5, 5, 8, 8, 1, 1]
    assert repeats(sizes, "1:0,4:7").tolist() == [0, 0, 0] + [7] * 7


def test_repeats_are_a_column_beside_the_true_counts(tmp_path):
    texts = ["the same text again and again"] * 4 + ["alone"]
    success = run([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out", rehydrate="fineweb2")
    rows = kept_rows(tmp_path / "out", success)
    assert [(row["duplicates"], row["repeats"]) for row in rows] == [(4, 3), (1, 1)]
    again = run([tmp_path / "out"], tmp_path / "again", rehydrate="1:2")
    assert [(row["duplicates"], row["repeats"]) for row in kept_rows(tmp_path / "again", again)] == [(4, 2), (1, 2)]


def test_the_packer_is_told_repeats_where_they_were_decided(tmp_path):
    success = run(
        [write_jsonl(tmp_path / "in.jsonl", ["one and the same text"] * 6)], tmp_path / "out", rehydrate="1:1,5:2"
    )
    rows = pa.RecordBatch.from_pylist(kept_rows(tmp_path / "out", success))
    offsets = np.array([0, 5])
    assert documents_batch(rows, offsets, 0).column("duplicates").to_pylist() == [2]
    assert documents_batch(rows.drop_columns(["repeats"]), offsets, 0).column("duplicates").to_pylist() == [6]


@pytest.mark.parametrize("table", ["fineweb", "2:1", "1:1,5:2,3:1", "1:x", "1:1,1:2", "1:-1", "1"])
def test_tables_that_cannot_be_meant_are_refused(table):
    with pytest.raises(ConfigError, match="give fineweb2, or ascending SIZE:REPEATS pairs"):
        parse_repeats(table)
