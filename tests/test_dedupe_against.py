"""Increments against earlier runs, and the index that they compare with and that datasketch loads."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash
from dedupe_runs import kept_rows, removals, run, run_in_process, write_jsonl
from dedupe_texts import full_width, traditional, with_boilerplate, write_documents

from glm_data.dedupe.index import load_minhash_lsh, minhash_of, read_index
from glm_data.errors import InputError, UsageError
from glm_data.text.shingles import shingle_texts
from pipelines import dedupe_steps


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr(dedupe_steps, "run_tasks", run_in_process)


ZH, EN = write_documents("zh", 8, seed=5), write_documents("en", 8, seed=5)
NEWER = [traditional(ZH[1]), with_boilerplate(EN[1]), full_width(EN[2]), ZH[6], EN[7] + " More.", "short", "short"]


def texts(out, success):
    return [row["text"] for row in kept_rows(out, success)]


@pytest.fixture
def old(tmp_path):
    given = write_jsonl(tmp_path / "old" / "in.jsonl", [*ZH[:6], *EN[:6], ZH[0], "short"])
    success = run([given], tmp_path / "run1", export_index=True)
    shutil.rmtree(tmp_path / "old")
    shutil.rmtree(tmp_path / "run1" / "data")
    shutil.rmtree(tmp_path / "run1" / "_work")
    return tmp_path / "run1", success


def test_what_an_earlier_run_kept_is_removed_without_its_text(old, tmp_path):
    given = write_jsonl(tmp_path / "new" / "in.jsonl", NEWER)
    success = run([given], tmp_path / "run2", against=(str(old[0]),))
    assert texts(tmp_path / "run2", success) == [ZH[6], EN[7] + " More."]
    rows = removals(tmp_path / "run2")
    assert [row["removed"] for row in rows] == [f"new/in.jsonl#{i}" for i in (0, 1, 2, 5, 6)]
    assert [row["kept"] for row in rows] == [f"old/in.jsonl#{i}" for i in (1, 7, 8, 13, 13)]
    assert {row["earlier"] for row in rows} == {old[1].key[:8]}
    assert [row["rule"] for row in rows] == ["near", "near", "exact", "exact", "exact"]
    assert all(row["jaccard"] >= 0.8 for row in rows)
    assert success.records == len(NEWER)


def test_an_increment_comes_to_what_one_run_over_both_comes_to(old, tmp_path):
    given = write_jsonl(tmp_path / "new" / "in.jsonl", NEWER)
    both = write_jsonl(tmp_path / "both" / "in.jsonl", [*ZH[:6], *EN[:6], ZH[0], "short", *NEWER])
    increment = run([given], tmp_path / "run2", against=(str(old[0]),), partitions=3)
    whole = run([both], tmp_path / "whole")
    assert texts(tmp_path / "whole", whole)[13:] == texts(tmp_path / "run2", increment)


def test_a_run_and_its_increment_serve_the_next(old, tmp_path):
    second = write_jsonl(tmp_path / "new" / "in.jsonl", NEWER)
    third = write_jsonl(tmp_path / "newest" / "in.jsonl", [EN[0], ZH[6], EN[7], "the only new one"])
    first, increment = str(old[0]), str(tmp_path / "run2")
    run([second], tmp_path / "run2", against=(first,), export_index=True)
    success = run([third], tmp_path / "run3", against=(first, increment))
    assert texts(tmp_path / "run3", success) == ["the only new one"]
    assert len({row["earlier"] for row in removals(tmp_path / "run3")}) == 2
    with pytest.raises(UsageError, match="give both: --against EARLIER --against LATER"):
        run([third], tmp_path / "run4", against=(increment,))
    with pytest.raises(UsageError, match="given twice"):
        run([third], tmp_path / "run4", against=(first, first))


def test_copies_within_earlier_runs_stay_theirs(tmp_path):
    folders = []
    for name in ("a", "b"):
        given = write_jsonl(tmp_path / name / "in.jsonl", [ZH[0], EN[0]])
        run([given], tmp_path / f"run-{name}", export_index=True)
        folders.append(str(tmp_path / f"run-{name}"))
    success = run([write_jsonl(tmp_path / "c" / "in.jsonl", [EN[0], EN[1]])], tmp_path / "out", against=tuple(folders))
    assert [(row["removed"], row["kept"]) for row in removals(tmp_path / "out")] == [("c/in.jsonl#0", "a/in.jsonl#1")]
    assert success.kept == 1


def test_where_the_earlier_run_lies_changes_nothing(old, tmp_path):
    given = write_jsonl(tmp_path / "new" / "in.jsonl", NEWER)
    first = run([given], tmp_path / "run2", against=(str(old[0]),))
    shutil.move(old[0], tmp_path / "moved")
    assert run([given], tmp_path / "run2", against=(str(tmp_path / "moved"),)) == first


def test_runs_that_cannot_be_compared_are_refused(old, tmp_path):
    given = write_jsonl(tmp_path / "new" / "in.jsonl", NEWER)
    plain = str(tmp_path / "plain")
    run([given], tmp_path / "plain")
    for against, said, options in (
        (plain, "has no index to compare with; make one with --export-index", {}),
        (str(old[0]), "its index has ngram 5, .* this run ngram 4", {"ngram": 4}),
        (str(old[0]), "120 permutations, this run .* 112 permutations", {"bands": 14, "rows": 8}),
        (str(tmp_path / "new"), "is not a finished stage", {}),
    ):
        with pytest.raises(UsageError, match=said):
            run([given], tmp_path / "out", against=(against,), **options)
    (old[0] / "index" / "part-00000.parquet").write_bytes(b"cut")
    with pytest.raises(InputError, match="not as its stage left it"):
        run([given], tmp_path / "out", against=(str(old[0]),))


def test_the_index_holds_keys_signatures_and_sets_of_the_kept(old):
    path = old[0] / "index" / "part-00000.parquet"
    (block,) = read_index(path)
    assert block.ids.to_pylist() == [f"old/in.jsonl#{i}" for i in (*range(12), 13)]
    sketch = MinHash(num_perm=120, seed=1, scheme="affine32", hashfunc=lambda value: value)
    shingles = set(shingle_texts(pa.array([ZH[3]]), unit="auto").hashes.tolist())
    sketch.update_batch([value >> 32 for value in shingles])
    assert np.array_equal(block.signatures[3], sketch.hashvalues)
    assert pq.read_table(path, columns=["shingles"])["shingles"][3].as_py() == sorted(shingles)


def test_datasketch_loads_the_signatures_and_finds_copies(old):
    index = load_minhash_lsh(old[0])
    assert (index.b, index.r) == (20, 6)
    assert len(index.keys) == 13
    assert index.query(minhash_of(traditional(ZH[4]), old[0])) == ["old/in.jsonl#4"]
    assert index.query(minhash_of(with_boilerplate(EN[2]), old[0])) == ["old/in.jsonl#8"]
    assert index.query(minhash_of(EN[7], old[0])) == []
    chosen = load_minhash_lsh(old[0], threshold=0.9)
    assert (chosen.b, chosen.r) != (20, 6)
    assert chosen.query(minhash_of(ZH[0], old[0])) == ["old/in.jsonl#0"]
