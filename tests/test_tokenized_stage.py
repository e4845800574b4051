"""The tokenize stage: ids that decode to the corpus, sums that add up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import StageMismatchError, UsageError
from glm_data.packing.tokenized import DOCUMENTS_SCHEMA, IdsWriter, TokenizeOptions, ids_type
from pipelines import tokenize_documents as tokenize
from tokenizer import Tokenizer, TrainOptions, train

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"


def paragraphs(lang: str) -> list[str]:
    text = (CORPUS / lang / "story.txt").read_text(encoding="utf-8")
    return [part for part in text.split("\n\n") if part.strip()][:40]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for lang in ("en", "zh"):
        rows = [{"text": text, "meta": {"pile_set_name": f"Stories-{lang}"}} for text in paragraphs(lang)]
        (folder / f"{lang}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stages") / "tokenizer"
    train([*paragraphs("en"), *paragraphs("zh")], out, TrainOptions(vocab_size=1500))
    return out


def test_ids_decode_to_the_corpus(corpus: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "ids"
    success = tokenize.run([corpus], trained, out)
    tokenizer = Tokenizer.load(trained)
    expected = {"en": paragraphs("en"), "zh": paragraphs("zh")}
    total = 0
    for shard, lang in enumerate(("en", "zh")):
        ids = np.load(out / "data" / f"part-{shard:05d}.ids.npy", mmap_mode="r", allow_pickle=False)
        table = pq.read_table(out / "data" / f"part-{shard:05d}.documents.parquet")
        assert table.schema == DOCUMENTS_SCHEMA
        assert ids.dtype == np.uint16
        rows = table.to_pylist()
        assert [tokenizer.decode(ids[r["offset"] : r["offset"] + r["length"]]) for r in rows] == expected[lang]
        assert [r["bytes"] for r in rows] == [len(text.encode()) for text in expected[lang]]
        assert {r["source"] for r in rows} == {f"Stories-{lang}"}
        assert {r["duplicates"] for r in rows} == {1}
        assert rows[-1]["offset"] + rows[-1]["length"] == len(ids)
        total += len(ids)
    assert success.counts["tokens"] == total == success.counts["tokens/unknown"]
    assert success.counts["text_bytes"] == sum(len(text.encode()) for texts in expected.values() for text in texts)
    assert 0 < success.counts["byte_fallback"] < total
    assert success.facts["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    assert success.facts["dtype"] == "uint16"


def test_another_tokenizer_is_another_stage(corpus: Path, trained: Path, tmp_path: Path) -> None:
    tokenize.run([corpus], trained, tmp_path / "ids")
    train(paragraphs("en"), tmp_path / "other", TrainOptions(vocab_size=900))
    with pytest.raises(StageMismatchError, match="tokenizer"):
        tokenize.run([corpus], tmp_path / "other", tmp_path / "ids")


def test_bad_records_are_kept_aside_and_trip_the_guard_rail(trained: Path, tmp_path: Path) -> None:
    shard = tmp_path / "in" / "a.jsonl"
    shard.parent.mkdir()
    shard.write_text('{"text": "good"}\n{"text": 3}\n{"te', encoding="utf-8")
    arguments = [str(shard), "--tokenizer", str(trained), "--output", str(tmp_path / "ids")]
    assert tokenize.main(arguments) == 3
    lost = [
        json.loads(line)
        for line in (tmp_path / "ids" / "unreadable" / "part-00000.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [item["reason"] for item in lost] == ["wrong_type", "malformed_json"]
    assert tokenize.main([*arguments, "--overwrite", "--max-bad-fraction", "1"]) == 0
    assert tokenize.run([shard], trained, tmp_path / "ids", TokenizeOptions(max_bad_fraction=1.0)).records == 3


def test_a_folder_without_a_tokenizer(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        tokenize.run([corpus], tmp_path, tmp_path / "out")
    assert tokenize.main([str(corpus), "--output", str(tmp_path / "out")]) == 2


def test_wide_vocabularies_get_wide_ids() -> None:
    assert ids_type(65_536) == np.uint16
    assert ids_type(65_537) == np.int32


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 65_535), max_size=20), max_size=5), st.sampled_from([np.uint16, np.int32]))
def test_the_npy_writer_is_numpys(parts: list[list[int]], kind: type) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        with IdsWriter(Path(folder) / "a.npy", np.dtype(kind)) as writer:
            for part in parts:
                writer.write(np.array(part, np.int32))
        expected = np.array([item for part in parts for item in part], kind)
        np.save(Path(folder) / "b.npy", expected)
        assert (Path(folder) / "a.npy").read_bytes() == (Path(folder) / "b.npy").read_bytes()
