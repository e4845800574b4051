"""The filter as a stage: nothing is lost, all is counted, guard rails trip, exit codes tell."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import raw_files as raw
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data import documents
from glm_data.errors import ConfigError
from glm_data.filters import FilterOptions, check_shards, filter_block, load_profile
from glm_data.formats import read_blocks
from glm_data.formats.parquet import parquet_writer
from glm_data.stage import ShardRecord, Success, read_success
from pipelines.filter import main, run
from pipelines.runner import RunnerOptions

ENGLISH = "The frogs in the pond were happy, for it had rained all day and all of the night. Number {}."
CHINESE = "那天下了一整天的雨，池塘里的青蛙都很高兴，一共有{}只。"
TRADITIONAL = "那天下了一整天的雨，池塘裡的青蛙都很高興，後來有{}隻。"
JUNK = "1234567890 {} | 0987654321 | 11111 22222 33333 44444"


def write_inputs(folder: Path, junk: int = 3) -> list[str]:
    folder.mkdir(exist_ok=True)
    pile = [{"text": ENGLISH.format(n), "meta": {"pile_set_name": "Books"}} for n in range(40)]
    pile += [{"text": JUNK.format(n), "meta": {"pile_set_name": "Numbers"}} for n in range(junk)]
    wudao = [{"content": CHINESE.format(n), "dataType": "新闻", "title": f"青蛙{n}"} for n in range(30)]
    raw.write(folder / "00.jsonl.zst", raw.jsonl(pile) + b'{"text": broken}\n')
    raw.write(folder / "01.json", json.dumps(wudao, ensure_ascii=False).encode())
    raw.write(folder / "02.jsonl", raw.jsonl({"text": TRADITIONAL.format(n), "source": "港"} for n in range(5)))
    return [str(folder)]


def filter_inputs(tmp_path: Path, name: str = "out", **options: object) -> Success:
    chosen = FilterOptions(**{"max_bad_fraction": 0.5, **options})  # type: ignore[arg-type]
    return run(write_inputs(tmp_path / "in"), tmp_path / name, chosen, RunnerOptions(workers=1))


def rows(folder: Path, part: str) -> list[dict[str, object]]:
    tables = [pq.read_table(path) for path in sorted((folder / part).glob("*.parquet"))]
    return pa.concat_tables(tables).to_pylist() if tables else []


def test_every_record_is_kept_dropped_or_unreadable(tmp_path: Path) -> None:
    success = filter_inputs(tmp_path)
    kept, dropped = rows(tmp_path / "out", "data"), rows(tmp_path / "out", "dropped")
    assert (success.records, success.kept, success.dropped, success.unreadable) == (
        79, 75, {"language": 3}, {"malformed_json": 1},
    )  # fmt: skip
    assert len(kept) == 75
    assert [row["lang"] for row in kept] == ["en"] * 40 + ["zh-Hans"] * 30 + ["zh-Hant"] * 5
    assert kept[0]["id"] == "in/00.jsonl.zst#0"
    assert kept[40]["text"] == "青蛙0\n" + CHINESE.format(0)
    assert {row["reason"] for row in dropped} == {"language"}
    assert list(json.loads(str(dropped[0]["broken"]))) == ["language", "few_letters", "digits"]
    bad = json.loads((tmp_path / "out/unreadable/part-00000.jsonl").read_bytes())
    assert (bad["file"], bad["record"], bad["reason"]) == ("in/00.jsonl.zst", 43, "malformed_json")
    assert bad["excerpt"] == '{"text": broken}'


def test_counts_add_up(tmp_path: Path) -> None:
    counts = filter_inputs(tmp_path).counts
    sources = {name[3:]: count for name, count in counts.items() if name.startswith("in/")}
    assert sources == {"Books": 40, "Numbers": 3, "WuDao/新闻": 30, "港": 5}
    for source, count in sources.items():
        dropped = sum(lost for name, lost in counts.items() if name.startswith(f"dropped/{source}/"))
        assert count == counts.get(f"kept/{source}", 0) + dropped
    kept = rows(tmp_path / "out", "data")
    sizes = Counter()
    for row in kept:
        sizes[f"kept_bytes/{row['lang']}"] += len(str(row["text"]).encode())
        sizes[f"kept_documents/{row['lang']}"] += 1
    assert sizes == {name: count for name, count in counts.items() if name in sizes}
    assert counts["text_bytes_kept"] == sum(count for name, count in sizes.items() if "bytes" in name)
    assert counts["text_bytes_in"] == counts["text_bytes_kept"] + sum(
        len(str(row["text"]).encode()) for row in rows(tmp_path / "out", "dropped")
    ) - sum(len(f"青蛙{n}\n".encode()) for n in range(30))
    assert counts["cleaned/title"] == 30


def test_the_same_bytes_again_and_as_json_lines(tmp_path: Path) -> None:
    first, second = filter_inputs(tmp_path), filter_inputs(tmp_path, "again")
    assert first.digest == second.digest
    assert filter_inputs(tmp_path) == first
    success = filter_inputs(tmp_path, "lines", output_format="jsonl.zst")
    assert next(item.name for item in success.files if item.name.startswith("data/")) == "data/part-00000.jsonl.zst"
    read = [
        row
        for path in sorted((tmp_path / "lines/data").iterdir())
        for block in read_blocks(raw.as_input(path))
        for row in block.documents.to_pylist()
    ]
    assert read == rows(tmp_path / "out", "data")


def test_traditional_is_converted_by_choice(tmp_path: Path) -> None:
    success = filter_inputs(tmp_path, to_simplified=True)
    kept = rows(tmp_path / "out", "data")[-5:]
    assert [row["lang"] for row in kept] == ["zh-Hans"] * 5
    assert kept[0]["text"] == TRADITIONAL.format(0).translate(str.maketrans("裡興後來隻", "里兴后来只"))
    assert success.counts["cleaned/to_simplified"] == 5


def test_filtered_documents_can_be_filtered_again(tmp_path: Path) -> None:
    filter_inputs(tmp_path)
    again = run([tmp_path / "out"], tmp_path / "again", FilterOptions(), RunnerOptions(workers=1))
    assert rows(tmp_path / "again", "data") == rows(tmp_path / "out", "data")
    assert again.kept == again.records


def test_columns_of_later_stages_are_kept(tmp_path: Path) -> None:
    block = documents.make_block(["a", "b"], [ENGLISH, "5"], ["s", "s"], ["en", ""], ["{}", "{}"])
    table = pa.Table.from_batches([block]).append_column("duplicates", pa.array([3, 1], pa.uint32()))
    with parquet_writer(tmp_path / "a.parquet", table.schema) as writer:
        writer.write(table.to_batches()[0])
    run([tmp_path / "a.parquet"], tmp_path / "out", FilterOptions(), RunnerOptions(workers=1))
    assert [row["duplicates"] for row in rows(tmp_path / "out", "data")] == [3]
    assert [row["duplicates"] for row in rows(tmp_path / "out", "dropped")] == [1]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.lists(st.tuples(texts, st.sampled_from(["Books", "WuDao/新闻"]), texts), max_size=12), st.booleans())
@settings(deadline=None, max_examples=40)
def test_no_document_of_a_block_is_lost(given_rows: list[tuple[str, str, str]], simplify: bool) -> None:
    ids = [str(row) for row in range(len(given_rows))]
    metas = [json.dumps({"title": title}) for *_, title in given_rows]
    columns = [[row[at] for row in given_rows] for at in range(2)]
    block = documents.make_block(ids, columns[0], columns[1], [""] * len(ids), metas)
    found = filter_block(block, FilterOptions(to_simplified=simplify), load_profile("bilingual"))
    kept, dropped = found.kept.column("id").to_pylist(), found.dropped.column("id").to_pylist()
    assert sorted(kept + dropped, key=int) == ids
    assert found.reasons == Counter(found.dropped.column("reason").to_pylist())
    for part in (found.kept, found.dropped):
        assert part.column("meta").to_pylist() == [metas[int(name)] for name in part.column("id").to_pylist()]
        part.validate(full=True)


def test_numbers_of_meta_that_are_too_large_are_infinite() -> None:
    metas = ['{"perplexity": 1e300}', '{"perplexity": -1e300}', '{"perplexity": 500}']
    block = documents.make_block(["0", "1", "2"], [ENGLISH * 4] * 3, ["s"] * 3, [""] * 3, metas)
    found = filter_block(block, FilterOptions(), load_profile("ccnet-lines"))
    assert found.signals.column("perplexity").to_pylist() == [float("inf"), -float("inf"), 500]
    assert found.dropped.column("value").to_pylist() == [float("inf")]


def test_an_unreadable_file_does_not_stop_the_others(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in")
    (tmp_path / "in/03.jsonl").write_bytes(b"")
    (tmp_path / "in/04.parquet").write_bytes(b"PAR1 no more")
    success = run(inputs, tmp_path / "out", FilterOptions(), RunnerOptions(workers=1))
    assert success.unreadable == {"corrupt": 1, "empty": 1, "malformed_json": 1}
    assert success.kept == 75
    assert not success.ok


def record(number: int, counts: dict[str, int], unreadable: int = 0) -> ShardRecord:
    return ShardRecord(
        shard=number, input=f"in/{number}", records=100 + unreadable, counts=counts, unreadable={"empty": unreadable}
    )


def test_guard_rails_name_the_worst() -> None:
    options = FilterOptions(max_bad_fraction=0.1, max_source_loss=0.9)
    good = [record(0, {"in/A": 60, "kept/A": 6, "in/B": 5}), record(1, {"in/A": 40, "kept/A": 4}, 22)]
    bad, loss = check_shards(good, options)
    assert (bad.ok, loss.ok) == (True, True)
    assert loss.sentence == "'A' lost most, 90.0% of its 100 documents; the limit is 90.0%."
    bad, loss = check_shards([*good, record(2, {"in/C": 20}, 20)], options)
    assert (bad.ok, loss.ok) == (False, False)
    assert bad.sentence == (
        "42 of 342 records (12.28%) are unreadable; the limit is 10.00%, worst is 'in/1': "
        "look at unreadable/, or raise --max-bad-fraction with --overwrite."
    )
    assert loss.sentence.startswith("'C' lost most, 100.0% of its 20 documents; the limit is 90.0%: look at dropped/")
    assert all(check.ok for check in check_shards([], options))


def test_exit_codes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = write_inputs(tmp_path / "in"), str(tmp_path / "out")
    words = [*inputs, "--output", out, "--workers", "1"]
    assert main([*words, "--max-bad-fraction", "0.02"]) == 0
    assert (
        "filter: 79 records, 75 kept, 3 dropped (language 3), 1 unreadable (malformed_json 1)"
        in capsys.readouterr().out
    )
    assert main(words) == 2
    assert "max_bad_fraction 0.02 -> 0.01" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 3
    assert "guard rail: 1 of 79 records (1.27%) are unreadable; the limit is 1.00%" in capsys.readouterr().err
    assert read_success(tmp_path / "out").checks[0].ok is False
    assert main([*words, "--profil", "x"]) == 2
    assert "Did you mean '--profile'?" in capsys.readouterr().err
    assert main([str(tmp_path / "missing"), "--output", out]) == 2
    with pytest.raises(ConfigError):
        run(inputs, tmp_path / "new", FilterOptions(profile="none"), RunnerOptions())
