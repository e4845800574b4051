"""What a run is said to find, miss and cost, beside what it then does."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner
from dedupe_texts import noisy, write_documents
from text_twin import jaccard, shingles

from glm_data.cli import shell
from glm_data.dedupe import DedupeOptions
from glm_data.dedupe.plan import (
    costs,
    curve,
    false_candidates,
    false_share,
    missed_share,
    random_similarities,
    take_sample,
)
from glm_data.dedupe.signatures import Lsh
from glm_data.documents import make_block
from glm_data.errors import UsageError
from glm_data.inputs import find_inputs
from glm_data.text.shingles import distinct_sorted, shingle_texts


def command(*words):
    return CliRunner().invoke(shell.cli, words, standalone_mode=False, catch_exceptions=False)


def test_the_curve_and_its_tails_are_those_of_the_formula():
    lsh = Lsh(14, 8)
    assert dict(curve(lsh))[0.8] == pytest.approx(1 - (1 - 0.8**8) ** 14)
    at = (np.arange(100_000) + 0.5) / 100_000
    likely = 1 - (1 - at**8) ** 14
    assert missed_share(lsh, 0.75) == pytest.approx(1 - likely[at > 0.75].mean(), abs=1e-3)
    assert false_share(lsh, 0.75) == pytest.approx(likely[at < 0.75].mean(), abs=1e-3)


def test_random_similarities_are_exact():
    texts = [noisy(text) for text in write_documents("zh", 3, seed=8)] + write_documents("zh", 2, seed=8)
    found = random_similarities(distinct_sorted(shingle_texts(pa.array(texts))), pairs=200)
    pairs = {round(jaccard(shingles(a), shingles(b)), 9) for i, a in enumerate(texts) for b in texts[:i]}
    assert set(np.round(found, 9)) == pairs
    assert random_similarities(distinct_sorted(shingle_texts(pa.array(["alone"])))).size == 0


def test_false_candidates_grow_with_the_square_of_the_documents():
    similarities = np.array([0.0, 0.0, 0.5, 0.9])
    expected = Lsh().probability(0.5) / 4 * 1000 * 999 / 2
    assert false_candidates(similarities, Lsh(), 0.8, 1000) == pytest.approx(expected)
    assert false_candidates(np.empty(0), Lsh(), 0.8, 1000) == 0


def lines(texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_a_sample_speaks_for_files_of_every_format(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr("glm_data.dedupe.plan._SAMPLED_BYTES", 1_000_000)
    texts = write_documents("en", 2000, seed=6)
    data = lines(texts)
    path = tmp_path / f"in.{suffix}"
    if suffix == "parquet":
        ids = [str(i) for i in range(len(texts))]
        pq.write_table(pa.Table.from_batches([make_block(ids, texts, ids, ids, ["{}"] * len(ids))]), path)
    else:
        path.write_bytes(
            {"gz": gzip.compress, "zst": zstandard.compress, "onl": lambda data: data}[suffix[-3:].strip(".")](data)
        )
    sample = take_sample(find_inputs([path], digest=False), DedupeOptions())
    assert sample.documents == pytest.approx(2000, rel=0.15)
    assert sample.text_bytes == pytest.approx(sum(map(len, texts)), rel=0.15)
    assert sample.shingles == pytest.approx(np.mean([len(set(shingles(text))) for text in texts[:40]]), rel=0.1)
    assert sample.is_spooled == (suffix != "parquet")
    assert sample.seconds_per_byte > 0


def test_costs_grow_with_documents_bands_and_what_is_asked_for(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(write_documents("en", 20)))
    sample = take_sample(find_inputs([tmp_path / "in.jsonl"], digest=False), DedupeOptions())
    plain, twice = (costs(sample, DedupeOptions(), documents) for documents in (10_000, 20_000))
    assert twice.disk_bytes == pytest.approx(2 * plain.disk_bytes, rel=0.01)
    assert twice.cpu_seconds == pytest.approx(2 * plain.cpu_seconds)
    assert costs(sample, DedupeOptions(bands=40, rows=3), 10_000).disk_bytes > plain.disk_bytes
    assert costs(sample, DedupeOptions(export_index=True), 10_000).disk_bytes > plain.disk_bytes
    assert costs(sample, DedupeOptions(spool=False), 10_000).disk_bytes < plain.disk_bytes


def test_no_document_to_plan_with_is_said(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match="hold no document to plan with"):
        take_sample(find_inputs([tmp_path / "in.jsonl"], digest=False), DedupeOptions())


def test_the_command_tells_the_curve_without_inputs_and_the_costs_with_them(tmp_path):
    said = command("dedupe", "plan", "--threshold", "0.7", "--permutations", "128")
    assert said.return_value == 0
    assert "14 bands of 9 minima, threshold 0.7" in said.output
    assert "Give INPUTS" in said.output
    (tmp_path / "in.jsonl").write_bytes(lines(write_documents("zh", 30)))
    said = command("dedupe", "plan", str(tmp_path), "--documents", "5000", "--out", str(tmp_path / "out"), "--json")
    told = json.loads(said.output)
    assert told["documents"] == 5000
    assert told["files"] == 1
    assert told["disk_free_bytes"] > told["disk_bytes"] > 0
    assert not (tmp_path / "out").exists()


def test_a_plan_is_a_branch_and_an_input_of_that_name_still_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "in.jsonl").write_bytes(lines(["a text to keep"]))
    assert command("dedupe", "./plan", "--out", "out", "--quiet").return_value == 0
    assert "glm-data dedupe plan" in command("dedupe", "--help").output
    assert "Usage: glm-data dedupe plan [OPTIONS] [INPUTS]..." in command("dedupe", "plan", "--help").output.replace(
        "cli dedupe", "glm-data dedupe"
    )
