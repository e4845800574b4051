"""The tokenizer and tokenize stages: a weighted sample by hash, ids that decode to the corpus, sums that add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import ConfigError, InputError, StageMismatchError, UsageError
from glm_data.packing.tokenized import (
    DOCUMENTS_SCHEMA,
    MOST_REPEATS,
    IdsWriter,
    TokenizeOptions,
    TokenizerOptions,
    guess_language,
    ids_type,
    share_out,
    take_bytes,
    train_stage,
)
from pipelines import tokenize_documents as tokenize
from tokenizer import Tokenizer

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
OPTIONS = TokenizerOptions(vocab_size=1500)


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
    train_stage([corpus], out, OPTIONS)
    return out


def test_the_sample_is_half_and_half_by_bytes(corpus: Path, trained: Path, tmp_path: Path) -> None:
    success = train_stage([corpus], trained, OPTIONS)  # finished: read back
    counts = success.counts
    assert abs(counts["sample_bytes/en"] - counts["sample_bytes/zh"]) <= 3
    assert success.facts["tokenizer"]["fingerprint"] == Tokenizer.load(trained).fingerprint
    assert {item.name for item in success.files} == {"tokenizer.json", "tokenizer.model"}
    weights = {"zh": 0.25, "en": 0.75}
    other = train_stage(
        [corpus], tmp_path / "t", TokenizerOptions(vocab_size=1200, weights=weights, sample_bytes=20_000)
    )
    assert other.counts == {"sample_bytes/en": 15_000, "sample_bytes/zh": pytest.approx(5_000, abs=3)}
    assert other.records == success.records == other.kept + other.dropped["not_sampled"]


def test_files_and_their_order_decide_nothing(corpus: Path, trained: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / corpus.name
    moved.mkdir(parents=True)
    for path in corpus.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    again = train_stage([moved / "zh.jsonl", moved / "en.jsonl"], tmp_path / "again", OPTIONS)
    assert again.digest == train_stage([corpus], trained, OPTIONS).digest
    assert (tmp_path / "again" / "tokenizer.model").read_bytes() == (trained / "tokenizer.model").read_bytes()


def test_another_seed_is_another_sample(corpus: Path, tmp_path: Path) -> None:
    made = [
        train_stage([corpus], tmp_path / str(seed), TokenizerOptions(vocab_size=1200, sample_bytes=12_000, seed=seed))
        for seed in (0, 1)
    ]
    assert made[0].digest != made[1].digest


@pytest.mark.parametrize(
    "options",
    [
        {"vocab_size": 10},
        {"weights": {}},
        {"weights": {"zh": -1.0, "en": 2.0}},
        {"weights": {"zh": 0.0}},
        {"sample_bytes": 0},
        {"pad_multiple": 0},
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tokenizer: "):
        train_stage([corpus], tmp_path / "out", TokenizerOptions(**options))
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_said_with_the_sample(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"too little .* The sample holds, in bytes: en 100, zh 9[0-9]"):
        train_stage([corpus], tmp_path / "out", TokenizerOptions(sample_bytes=200))


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
    train_stage([corpus], tmp_path / "other", TokenizerOptions(vocab_size=1300))
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


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=4), st.integers(1, 10**9))
def test_shares_follow_the_weights_and_the_limits(available: list[int], most: int) -> None:
    weights = np.arange(1, len(available) + 1, dtype=np.float64)
    sizes = np.array(available)
    budget = share_out(sizes, weights, most)
    assert budget.sum() <= most
    assert (budget <= MOST_REPEATS * sizes).all()
    assert not budget[sizes == 0].any()
    present = sizes > 0
    if present.any():
        assert np.ptp(budget[present] / weights[present]) <= 1  # exact but for whole bytes
        assert (budget <= sizes).any()


def test_taking_bytes_cuts_at_a_character_and_repeats_when_it_must() -> None:
    assert take_bytes(["abc", "def"], 4) == (["abc", "d"], 2)
    assert take_bytes(["狐狸"], 5) == (["狐"], 1)
    assert take_bytes(["ab", "c"], 7) == (["ab", "c", "ab", "c", "a"], 2)
    assert take_bytes([], 5) == ([], 0)
    assert take_bytes(["", ""], 5) == ([], 0)


def test_unlabelled_texts_are_told_apart() -> None:
    assert guess_language("The quick brown fox") == "en"
    assert guess_language("敏捷的 fox 跳过懒狗") == "zh"
