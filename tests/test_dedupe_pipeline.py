import functools
import gzip
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import text_twin
from dedupe_runs import kept_rows, removals, run, run_in_process, write_jsonl
from dedupe_texts import PERTURBATIONS, noisy, other_numbers, write_documents
from text_twin import jaccard

from glm_data import stage
from glm_data.dedupe.signatures import best_lsh
from glm_data.documents import SCHEMA
from glm_data.errors import StageMismatchError
from pipelines import dedupe as pipeline
from pipelines import dedupe_steps
from pipelines.runner import RunnerOptions

shingles = functools.partial(text_twin.shingles, unit="auto")


@pytest.fixture
def _in_process(monkeypatch):
    monkeypatch.setattr(dedupe_steps, "run_tasks", run_in_process)


in_process = pytest.mark.usefixtures("_in_process")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two files of documents in both languages with copies of several kinds, in a fixed order."""
    folder = tmp_path_factory.mktemp("corpus")
    zh, en = write_documents("zh", 12), write_documents("en", 12)
    first = [*zh, *en, zh[0], "！！！", "。。。", "好", "ok", ""]
    second = [change(text) for change in PERTURBATIONS.values() for text in (zh[3], en[3])]
    second += [*write_documents("en", 6, seed=1), "OK!", "好。", "！！！", zh[3] + zh[3], en[4].replace("the", "a")]
    write_jsonl(folder / "first.jsonl", first)
    write_jsonl(folder / "second.jsonl", second, source="other")
    return folder, first, second


@in_process
def test_every_document_is_kept_or_explained(corpus, tmp_path):
    folder, first, second = corpus
    out = tmp_path / "out"
    success = run([folder / "first.jsonl", folder / "second.jsonl"], out)
    parts = {"first.jsonl": first, "second.jsonl": second}
    texts = {f"{folder.name}/{name}#{i}": text for name, part in parts.items() for i, text in enumerate(part)}
    kept = {row["id"]: row for row in kept_rows(out, success)}
    removed = {row["removed"]: row for row in removals(out)}
    assert kept.keys() | removed.keys() == texts.keys()
    assert not kept.keys() & removed.keys()
    assert all(row["text"] == texts[key] for key, row in kept.items())
    assert sum(row["duplicates"] for row in kept.values()) == len(texts) == success.records
    for row in removed.values():
        assert row["kept"] in kept
        pair = [shingles(texts[row[side]]) for side in ("removed", "kept")]
        assert row["jaccard"] == pytest.approx(jaccard(*pair))
        assert row["jaccard"] >= 0.8
        assert row["containment"] == pytest.approx(len(set(pair[0]) & set(pair[1])) / len(set(pair[0])))
        assert row["rule"] == "exact" if row["jaccard"] == 1 else "near"
    assert success.dropped == {rule: sum(row["rule"] == rule for row in removed.values()) for rule in ("exact", "near")}
    assert success.counts["in/own"] == len(first)
    assert success.counts["kept/own"] == sum(row["source"] == "own" for row in kept.values())


@in_process
def test_short_documents_are_compared_like_any_other(corpus, tmp_path):
    folder, _, _ = corpus
    success = run([folder / "first.jsonl", folder / "second.jsonl"], tmp_path / "out")
    texts = [row["text"] for row in kept_rows(tmp_path / "out", success)]
    assert [text for text in texts if len(text) < 4] == ["！！！", "。。。", "好", "ok", ""]


@in_process
@pytest.mark.parametrize("language", ["zh", "en"])
def test_changed_copies_are_found(language, tmp_path):
    originals = write_documents(language, 40, seed=2, sentences=16)
    changes = dict(PERTURBATIONS)
    if language == "zh":
        changes["noise"] = noisy
    texts = originals + [change(text) for change in changes.values() for text in originals]
    success = run([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out")
    number = {row["removed"]: int(row["removed"].split("#")[1]) for row in removals(tmp_path / "out")}
    for place, name in enumerate(changes, 1):
        found = {number[key] % 40 for key in number if number[key] // 40 == place}
        assert len(found) >= (36 if name == "noise" else 40), name
    assert all(int(row["kept"].split("#")[1]) % 40 == number[row["removed"]] % 40 for row in removals(tmp_path / "out"))
    assert not any(value < 40 for value in number.values())
    assert success.kept + len(number) == len(texts)


@in_process
def test_other_numbers_make_a_copy_only_where_digits_are_folded(tmp_path):
    originals = write_documents("zh", 10, seed=3)
    given = write_jsonl(tmp_path / "in.jsonl", originals + [other_numbers(text) for text in originals])
    assert run([given], tmp_path / "folded", fold_digits=True).dropped == {"exact": 10}
    assert run([given], tmp_path / "kept").dropped == {}


@in_process
def test_parts_are_removed_with_containment_alone(tmp_path):
    whole = write_documents("en", 10, seed=4)
    given = write_jsonl(tmp_path / "in.jsonl", whole + [text[: int(len(text) * 0.75)] for text in whole])
    assert run([given], tmp_path / "off").kept == 20
    success = run([given], tmp_path / "on", containment=0.9, bands=30, rows=4)
    assert success.dropped == {"contained": 10}
    assert all(row["containment"] > 0.9 > 0.8 > row["jaccard"] for row in removals(tmp_path / "on"))


def test_the_same_bytes_with_worker_processes(corpus, tmp_path):
    folder, _, _ = corpus
    inputs = [folder / "first.jsonl", folder / "second.jsonl"]
    digests = {run(inputs, tmp_path / str(workers), RunnerOptions(workers=workers)).digest for workers in (1, 2)}
    assert len(digests) == 1


@in_process
def test_the_same_bytes_for_any_number_of_partitions(corpus, tmp_path):
    folder, _, _ = corpus
    inputs = [folder / "first.jsonl", folder / "second.jsonl"]
    kept = [run(inputs, tmp_path / str(parts), partitions=parts).digest for parts in (0, 5)]
    assert kept[0] == kept[1]


def test_the_same_bytes_by_beams_own_shuffle(corpus, tmp_path):
    folder, _, _ = corpus
    inputs = [folder / "first.jsonl", folder / "second.jsonl"]
    runs = [run(inputs, tmp_path / how, partitions=3, shuffle=how) for how in ("files", "beam")]
    assert runs[0].digest == runs[1].digest
    edges = [(tmp_path / how / "_work/bands/00001.npy").read_bytes() for how in ("files", "beam")]
    assert edges[0] == edges[1]
    (tmp_path / "beam" / "_SUCCESS.json").unlink()
    (tmp_path / "beam" / "_work/bands/00001.npy").unlink()
    assert run(inputs, tmp_path / "beam", partitions=3, shuffle="beam") == runs[1]


@in_process
def test_how_documents_are_cut_into_files_changes_nothing(corpus, tmp_path):
    _, first, second = corpus
    texts = first + second
    whole = write_jsonl(tmp_path / "whole" / "in.jsonl", texts)
    cut = [write_jsonl(tmp_path / "cut" / f"{i}.jsonl", texts[i * 15 : i * 15 + 15]) for i in range(4)]
    first_run, second_run = run([whole], tmp_path / "a"), run(cut, tmp_path / "b")
    assert [row["text"] for row in kept_rows(tmp_path / "a", first_run)] == [
        row["text"] for row in kept_rows(tmp_path / "b", second_run)
    ]


@in_process
def test_a_stopped_run_goes_on_to_the_same_bytes(corpus, tmp_path, monkeypatch):
    folder, _, _ = corpus
    inputs = [folder / "first.jsonl", folder / "second.jsonl"]
    whole = run(inputs, tmp_path / "whole")
    out = tmp_path / "stopped"

    def fail(task):
        raise RuntimeError("stopped")

    for name in ("sign", "exact", "bands", "sets", "select", "output"):
        with monkeypatch.context() as patch:
            patch.setattr(dedupe_steps, f"{name}_shard", fail)
            with pytest.raises(RuntimeError, match="stopped"):
                run(inputs, out)
    for lost in ("sets/00000/hashes.bin", "select/00000.npy", "sign/00001/keys-000.npy"):
        (out / "_work" / lost).unlink()
    assert run(inputs, out).digest == whole.digest
    assert not list(out.rglob("documents.arrow"))
    assert not (out / "_work" / "sets").exists()


@in_process
def test_a_finished_run_is_left_alone_and_other_options_are_refused(corpus, tmp_path):
    folder, _, _ = corpus
    done = run([folder / "first.jsonl"], tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "_work")
    assert run([folder / "first.jsonl"], tmp_path / "out") == done
    with pytest.raises(StageMismatchError, match=r"threshold 0\.8 -> 0\.7"):
        run([folder / "first.jsonl"], tmp_path / "out", threshold=0.7)


@in_process
def test_bad_records_are_counted_and_kept_aside(tmp_path):
    good = write_documents("en", 3)
    lines = [json.dumps({"text": text}) for text in good]
    (tmp_path / "in.jsonl").write_text(f"{lines[0]}\n{{broken\n{lines[1]}\n[1]\n{lines[2]}\n{lines[0]}\n")
    success = run([tmp_path / "in.jsonl"], tmp_path / "out")
    assert (success.records, success.kept, success.dropped) == (6, 3, {"exact": 1})
    assert sum(success.unreadable.values()) == 2
    aside = [json.loads(line) for line in (tmp_path / "out/unreadable/part-00000.jsonl").read_text().splitlines()]
    assert [row["record"] for row in aside] == [1, 3]
    assert {row["input"] for row in aside} == {f"{tmp_path.name}/in.jsonl"}
    assert not success.ok
    assert [check.name for check in success.checks if not check.ok] == ["unreadable"]


@in_process
def test_inputs_without_documents_or_without_duplicates(tmp_path):
    with gzip.open(tmp_path / "none.jsonl.gz", "wt") as handle:
        handle.write("\n")
    one = write_jsonl(tmp_path / "one.jsonl", ["just one document"])
    success = run([tmp_path / "none.jsonl.gz", one], tmp_path / "out", max_bad_fraction=1.0)
    assert success.kept == 1
    assert removals(tmp_path / "out") == []
    assert kept_rows(tmp_path / "out", success)[0]["duplicates"] == 1


@in_process
def test_the_policy_decides_who_stays(tmp_path):
    text = write_documents("zh", 1)[0]
    longer = text + "（完）"
    first = write_jsonl(tmp_path / "a.jsonl", [text], source="web")
    second = write_jsonl(tmp_path / "b.jsonl", [longer], source="book")

    def kept(**options):
        out = tmp_path / "-".join(map(str, options.values()))
        return kept_rows(out, run([first, second], out, **options))[0]["source"]

    assert kept(keep=("id",)) == "web"
    assert kept(keep=("longest",)) == "book"
    assert kept(keep=("source-order", "longest"), source_order=("web",)) == "web"
    assert kept(keep=("source-order",), source_order=("book", "web")) == "book"


@in_process
def test_multiplicities_of_an_earlier_run_add_up(tmp_path):
    texts = write_documents("en", 3)
    columns = {"id": ["a", "b", "c"], "text": [texts[0], texts[0], texts[1]], "source": ["s"] * 3}
    columns |= {
        "lang": ["en"] * 3,
        "meta": ["{}"] * 3,
        "duplicates": pa.array([4, 3, 2], pa.uint32()),
        "extra": [1, 2, 3],
    }
    schema = pa.schema([*SCHEMA, ("duplicates", pa.uint32()), ("extra", pa.int64())])
    pq.write_table(pa.table(columns, schema=schema), tmp_path / "in.parquet")
    success = run([tmp_path / "in.parquet"], tmp_path / "out")
    rows = kept_rows(tmp_path / "out", success)
    assert [(row["id"], row["duplicates"], row["extra"]) for row in rows] == [("a", 7, 1), ("c", 2, 3)]


@in_process
def test_a_source_that_loses_nearly_everything_trips_the_guard_rail(tmp_path):
    given = write_jsonl(tmp_path / "in.jsonl", ["the same line again and again"] * 150, source="spam")
    success = run([given], tmp_path / "out")
    assert [check.name for check in success.checks if not check.ok] == ["source-loss"]
    assert "spam" in success.checks[0].sentence
    assert success.facts["largest_cluster"] == 150
    code = pipeline.main([str(given), "--output", str(tmp_path / "cli")])
    assert code == 3
    assert pipeline.main([str(given), "--output", str(tmp_path / "cli2"), "--max-source-loss", "1"]) == 0
    assert pipeline.main([str(given), "--output", str(tmp_path / "cli3"), "--threshold", "7"]) == 2


@in_process
def test_the_output_is_a_finished_stage_of_documents(corpus, tmp_path):
    folder, _, _ = corpus
    success = run([folder / "first.jsonl"], tmp_path / "out")
    assert stage.read_success(tmp_path / "out") == success
    again = run([tmp_path / "out"], tmp_path / "again")
    assert again.dropped == {}
    assert again.records == again.kept == success.kept


@in_process
def test_a_spooled_copy_changes_nothing(corpus, tmp_path):
    folder, _, _ = corpus
    inputs = [folder / "first.jsonl", folder / "second.jsonl"]
    assert run(inputs, tmp_path / "a", spool=False).digest == run(inputs, tmp_path / "b").digest


@in_process
def test_permutations_leave_bands_and_rows_to_the_optimiser(corpus, tmp_path):
    folder, _, _ = corpus
    success = run([folder / "first.jsonl", folder / "second.jsonl"], tmp_path / "out", permutations=128, threshold=0.7)
    assert (success.facts["bands"], success.facts["rows"]) == tuple(best_lsh(0.7, 128)[:2])
