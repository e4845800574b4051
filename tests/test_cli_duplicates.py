"""What de-duplication removed: clusters, texts side by side, the overlap of sources, and the audit."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dedupe_texts import PERTURBATIONS, write_documents
from hypothesis import given
from hypothesis import strategies as st
from text_twin import tokens as twin_tokens

from glm_data.cli.shell import run
from glm_data.inspection.audit import clopper_pearson, sample
from glm_data.inspection.plain import compare, tokens
from glm_data.text.shingles import distinct_sorted, shingle_texts
from glm_data.viewer.differences import passages

EN, ZH = write_documents("en", 6, seed=7), write_documents("zh", 6, seed=7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``raw`` and, made of it, ``dedupe``: a cluster of seven, one of two across sources, one of three."""
    folder = tmp_path_factory.mktemp("job")
    web = [*EN, *ZH, *[change(EN[0]) for change in PERTURBATIONS.values()], PERTURBATIONS["full width"](ZH[1])]
    book = [ZH[1], EN[2] + " \x1b]0;title\x07 \u202eover", "alone"]
    (folder / "raw").mkdir()
    for name, texts in (("a-web", web), ("b-book", book)):
        lines = [json.dumps({"text": text, "meta": {"pile_set_name": name[2:]}}) for text in texts]
        (folder / f"raw/{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert run(["dedupe", str(folder / "raw"), "--out", str(folder / "dedupe"), "-q"]) == 0
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy to damage; its inputs are found where they were read."""
    shutil.copytree(made / "dedupe", tmp_path / "dedupe")
    return tmp_path / "dedupe"


def shown(capsys, *arguments: str | Path, code: int = 0) -> Any:
    assert run(["duplicates", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_clusters_are_those_of_the_table_the_largest_first(made: Path, capsys) -> None:
    found = shown(capsys, made, "--clusters", "10")
    table = pq.read_table(made / "dedupe/duplicates.parquet").to_pylist()
    assert found["removed"] == len(table)
    counts = Counter(row["kept"] for row in table)
    assert [(item["kept"], item["documents"]) for item in found["clusters"]] == [
        (kept, count + 1) for kept, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    first = found["clusters"][0]
    own = [row for row in table if row["kept"] == first["kept"]]
    assert first["rules"] == dict(Counter(row["rule"] for row in own))
    assert first["removed"][0]["jaccard"] == min(row["jaccard"] for row in own)
    assert first["texts"][first["kept"]] == EN[0]
    assert first["texts"].keys() == {first["kept"], first["removed"][0]["id"]}


def test_the_overlap_counts_sources_of_removed_and_kept(made: Path, capsys) -> None:
    overlap = shown(capsys, made)["overlap"]
    assert overlap["sources"] == ["web", "book"]
    assert overlap["documents"] == [19, 3]
    assert overlap["removed"] == [[7, 0], [2, 0]]
    assert run(["duplicates", str(made), "--clusters", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[-2:]] == [
        ["1", "web", "19", "7", "7", "·"],
        ["2", "book", "3", "2", "2", "·"],
    ]


def test_texts_stand_side_by_side_with_what_differs_marked(made: Path, capsys) -> None:
    assert run(["duplicates", str(made), "--clusters", "3"]) == 0
    printed = capsys.readouterr().out
    assert "cluster 1: 7 documents, kept is raw/a-web.jsonl#0" in printed
    assert "[-Home > Stories⏎" in printed.replace(" -]", "-]")
    assert not set(printed) & {"\x1b", "\u202e", "\x07"}
    assert max(map(_cells, printed.splitlines())) <= 110


def _cells(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(line)


def test_colours_take_the_place_of_brackets_on_a_terminal(made: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(["duplicates", str(made), "--clusters", "1"]) == 0
    printed = capsys.readouterr().out
    assert "\x1b[1;31m" in printed
    assert "[-" not in printed


def test_inputs_that_have_moved_are_one_sentence_and_can_be_named(made: Path, copied: Path, tmp_path, capsys) -> None:
    places = copied / "_run/inputs.json"
    places.write_text(places.read_text().replace(str(made), "/gone"))
    found = shown(capsys, copied)
    assert found["clusters"][0]["texts"] == {}
    assert run(["duplicates", str(copied)]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "2 of 2 inputs of" in said
    assert "such as '/gone/raw/a-web.jsonl'" in said
    assert run(["duplicates", str(copied), "--audit", "3"]) == 1
    assert "have moved or changed" in capsys.readouterr().err
    assert shown(capsys, copied, "--audit", "3", "--inputs", made / "raw")["checked"] == 3
    assert shown(capsys, copied, "--inputs", made / "raw")["clusters"][0]["texts"] != {}


def test_outputs_of_a_stage_are_found_where_the_whole_run_was_moved(made: Path, tmp_path: Path, capsys) -> None:
    assert run(["filter", str(made / "raw"), "--out", str(tmp_path / "run/filter"), "-q"]) == 0
    assert run(["dedupe", str(tmp_path / "run/filter"), "--out", str(tmp_path / "run/dedupe"), "-q"]) == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    assert shown(capsys, tmp_path / "moved/dedupe", "--audit", "50")["false"] == []


def test_a_work_folder_that_is_gone_costs_the_overlap_alone(copied: Path, capsys) -> None:
    shutil.rmtree(copied / "_work")
    found = shown(capsys, copied)
    assert found["overlap"] is None
    assert found["clusters"]
    assert run(["duplicates", str(copied)]) == 0
    assert "the overlap of sources cannot be told" in capsys.readouterr().err


def test_a_run_without_duplicates(tmp_path: Path, capsys) -> None:
    (tmp_path / "raw.jsonl").write_text('{"text": "one"}\n{"text": "another"}\n')
    assert run(["dedupe", str(tmp_path / "raw.jsonl"), "--out", str(tmp_path / "out"), "-q"]) == 0
    found = shown(capsys, tmp_path / "out")
    assert (found["removed"], found["clusters"]) == (0, [])
    audited = shown(capsys, tmp_path / "out", "--audit", "10")
    assert (audited["checked"], audited["low"], audited["high"]) == (0, 0.0, 1.0)
    assert run(["duplicates", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == "0 of 2 documents removed\n"


# --- the audit --------------------------------------------------------------------------------------------------------


def test_an_audit_finds_nothing_false_in_an_honest_run(made: Path, capsys) -> None:
    found = shown(capsys, made, "--audit", "500")
    assert found["sampled"] == found["checked"] == found["removals"] == 9
    assert found["false"] == []
    assert found["largest_difference"] < 1e-12
    assert found["low"] == 0
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 9))
    assert run(["duplicates", str(made), "--audit", "500"]) == 0
    assert "0 false removals of 9: 0.00% (95 % confidence: 0.00% to 33.63%)" in capsys.readouterr().out


def test_an_audit_finds_what_is_false_and_ends_with_3(copied: Path, capsys) -> None:
    path = copied / "duplicates.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    removed_too = rows[1]["removed"]
    rows[0]["kept"] = "raw/b-book.jsonl#2"  # kept, but quite another text
    rows[1]["kept"] = rows[2]["removed"]  # near enough, but removed itself
    rows[3]["kept"] = "elsewhere#1"  # of a run that this one was compared with
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    found = shown(capsys, copied, "--audit", "500", code=3)
    assert [item["removed"] for item in found["false"]] == [rows[0]["removed"], removed_too]
    assert [item["kept_is_there"] for item in found["false"]] == [True, False]
    assert found["false"][0]["jaccard"] == 0
    assert found["checked"] == 8
    assert (found["low"], found["high"]) == pytest.approx(clopper_pearson(2, 8, 0.95))
    assert run(["duplicates", str(copied), "--audit", "500"]) == 3
    printed = capsys.readouterr().out
    assert "which is not among the kept" in printed
    assert "1 were removed for documents that are not among the inputs" in printed


def test_samples_are_functions_of_the_seed() -> None:
    assert sample(1000, 20, 3).tolist() == sample(1000, 20, 3).tolist() != sample(1000, 20, 4).tolist()
    assert len(set(sample(1000, 20, 3).tolist())) == 20
    assert sample(5, 20, 0).tolist() == [0, 1, 2, 3, 4]
    assert sample(0, 20, 0).tolist() == []


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (3, 500), (0, 1)])
def test_the_interval_is_where_the_tails_of_the_binomial_are_what_they_should_be(hits: int, trials: int) -> None:
    low, high = clopper_pearson(hits, trials, 0.95)

    def tail(rate: float, counts: range) -> float:
        return sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in counts)

    assert tail(low, range(hits, trials + 1)) == pytest.approx(0.025) if hits else low == 0
    assert tail(high, range(hits + 1)) == pytest.approx(0.025) if hits < trials else high == 1


ALPHABET = "ab Z9０１é, .中國国文字かガ한국ไก½ﬁ㌖ß\u0301\u200b\u00ad\ufe0f\n!_😀\U00020000Ωя"


@given(st.text(ALPHABET, max_size=40), st.booleans())
def test_plain_tokens_are_those_of_the_definition(text: str, fold_digits: bool) -> None:
    assert tokens(text, fold_digits=fold_digits) == twin_tokens(text, fold_digits)


@given(st.text(ALPHABET, max_size=60), st.text(ALPHABET, max_size=60), st.integers(1, 6))
def test_plain_similarity_is_that_of_the_compiled_sets(first: str, second: str, ngram: int) -> None:
    sets = distinct_sorted(shingle_texts(pa.array([first, second]), ngram))
    one, other = (set(sets.hashes[a:b].tolist()) for a, b in zip(sets.offsets, sets.offsets[1:], strict=False))
    alike = compare(first, second, ngram)
    assert alike.jaccard == len(one & other) / len(one | other)
    assert alike.containment == len(one & other) / len(one)


# --- the diff ---------------------------------------------------------------------------------------------------------


@given(st.text("ab. 中，\n。", max_size=60), st.text("ab. 中，\n。", max_size=60))
def test_a_diff_loses_nothing(left: str, right: str) -> None:
    found = list(passages(left, right))
    assert bool(found) == (left != right)
    rests = []
    for text, side in ((left, 0), (right, 1)):
        place = 0
        for passage in found:
            place += passage.alike_before
            piece = "".join(part for part, _ in passage[side])
            assert text[place : place + len(piece)] == piece
            place += len(piece)
        rests.append(text[place:])
    assert rests[0] == rests[1]
    for passage in found:
        alike = ["".join(part for part, differs in passage[side] if not differs) for side in (0, 1)]
        assert alike[0] == alike[1]


def test_words_and_single_characters_are_what_a_diff_tells_apart() -> None:
    (passage,) = passages("the red fox and 天下雨了", "the dead fox and 天下雪了")
    assert passage.left == (("the ", False), ("red", True), (" fox and 天下", False), ("雨", True), ("了", False))
    assert passage.right == (("the ", False), ("dead", True), (" fox and 天下", False), ("雪", True), ("了", False))


def test_words_that_differ_in_a_row_are_marked_as_one() -> None:
    (passage,) = passages("see one two three here", "see four five here")
    assert [part for part, differs in passage.left if differs] == ["one two three"]
    assert [part for part, differs in passage.right if differs] == ["four five"]


def test_long_texts_are_compared_in_time() -> None:
    sentences = [f"Sentence {n} has a few words of its own and ends here." for n in range(20_000)]
    changed = [*sentences[:9000], "Something new.", *sentences[9001:]]
    (passage,) = passages(" ".join(sentences), " ".join(changed))
    assert passage.right[-1][0].endswith("new. ") or "new" in "".join(part for part, _ in passage.right)
