"""Counting in Beam and training on the counts: exact sums and weights, the same vocabulary anywhere, refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from glm_data.errors import ConfigError, InputError
from glm_data.stage import ShardTask, Stage, Success, read_success
from glm_data.vocabulary import TokenizerOptions
from glm_data.vocabulary import stage as stages
from glm_data.vocabulary.count import languages_of
from glm_data.vocabulary.stage import check_memory, cut_checks, train_from_counts
from glm_data.vocabulary.words import FINENESS, count_groups, load_words, weigh
from pipelines import count_words, train_tokenizer
from pipelines.runner import RunnerOptions, run_and_record
from tests.test_tokenizer_counting import naive
from tokenizer import Tokenizer, TrainOptions, train

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
OPTIONS = TokenizerOptions(vocab_size=1500)


def paragraphs(lang: str, kind: str = "story") -> list[str]:
    return (CORPUS / lang / f"{kind}.txt").read_text(encoding="utf-8").split("\n\n")[:60]


def write(folder: Path, name: str, texts: list[str], source: str) -> None:
    rows = [{"text": text, "meta": {"pile_set_name": source}} for text in texts]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "in"
    write(folder, "a.jsonl", paragraphs("en"), "Stories")
    write(folder, "b.jsonl", paragraphs("en", "code"), "Github")
    write(folder, "c.jsonl", paragraphs("zh"), "Stories")
    return folder


@pytest.fixture(scope="module")
def counts(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("count") / "count"
    count_words.run([corpus], out)
    return out


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Success]:
    out = tmp_path_factory.mktemp("trained") / "tokenizer"
    return out, train_tokenizer.run([corpus], out, OPTIONS)


def words_of(folder: Path) -> Counter[tuple[str, str, str]]:
    rows = pq.read_table(folder / "data" / "words-00000.parquet").to_pylist()
    return Counter({(row["word"].decode(), row["lang"], row["source"]): row["count"] for row in rows})


def test_words_are_counted_by_language_and_source(counts: Path) -> None:
    expected: Counter[tuple[str, str, str]] = Counter()
    for lang, kind, source in (("en", "story", "Stories"), ("en", "code", "Github"), ("zh", "story", "Stories")):
        for text in paragraphs(lang, kind):
            guessed = "zh" if len(text.encode()) > 1.6 * len(text) else "en"
            expected.update((word, guessed, source) for word in naive(text))
    assert words_of(counts) == expected
    groups = count_groups(counts)
    assert sum(group["documents"] for group in groups.values()) == 162
    characters = pq.read_table(counts / "characters.parquet").to_pylist()
    found = {(row["lang"], chr(row["point"])): row["count"] for row in characters}
    assert found["zh", "的"] == sum(text.count("的") for text in paragraphs("zh"))


def test_partitions_and_files_decide_nothing(
    corpus: Path, counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_words, "TEXT_IN_PARTITION", 20_000)
    monkeypatch.setattr(count_words, "SMALL_STEP_BYTES", 0)
    write(tmp_path / "one", "all.jsonl", [*paragraphs("zh"), *paragraphs("en")], "Stories")
    write(tmp_path / "one", "b.jsonl", paragraphs("en", "code"), "Github")
    success = count_words.run([tmp_path / "one"], tmp_path / "out")
    assert success.shards > 3
    parts = sorted((tmp_path / "out" / "data").glob("words-*.parquet"))
    rows = [row for path in parts for row in pq.read_table(path).to_pylist()]
    assert Counter({(r["word"].decode(), r["lang"], r["source"]): r["count"] for r in rows}) == words_of(counts)
    record, _ = train_from_counts(tmp_path / "out", tmp_path / "here", OPTIONS)
    other, _ = train_from_counts(counts, tmp_path / "there", OPTIONS)
    assert record.files == other.files


def test_the_order_of_shards_decides_nothing(
    corpus: Path, counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(stage: Stage, function: Any, tasks: list[ShardTask], runner: RunnerOptions) -> None:
        for task in tasks[::-1]:
            run_and_record(function, task)

    monkeypatch.setattr(count_words, "run_tasks", backwards)
    success = count_words.run([corpus], tmp_path / "out")
    assert success.digest == read_success(counts).digest


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_decide_nothing(
    workers: int, corpus: Path, trained: tuple[Path, Success], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_words, "TEXT_IN_PARTITION", 20_000)
    monkeypatch.setattr(count_words, "SMALL_STEP_BYTES", 0)  # words are merged by the workers too
    out = tmp_path / "out"
    success = train_tokenizer.run([corpus], out, OPTIONS, RunnerOptions(workers=workers))
    assert success.files == trained[1].files
    for name in ("tokenizer.model", "tokenizer.json"):
        assert (out / name).read_bytes() == (trained[0] / name).read_bytes()


def test_counted_in_beam_or_in_this_process_is_one_vocabulary(tmp_path: Path) -> None:
    texts = [text for text in paragraphs("zh") if len(text.encode()) > 1.6 * len(text)]
    write(tmp_path / "in", "zh.jsonl", texts, "Stories")
    count_words.run([tmp_path / "in"], tmp_path / "count")
    for kind in ("bpe", "unigram"):
        options = TokenizerOptions(vocab_size=1200, model_type=kind, weights={"zh": 1.0})
        train_tokenizer.run([tmp_path / "count"], tmp_path / kind, options)
        here = train(texts[::-1], tmp_path / f"{kind}-here", TrainOptions(vocab_size=1200, model_type=kind))
        assert (tmp_path / kind / "tokenizer.model").read_bytes() == here.model_bytes


def test_shares_are_those_asked_for(counts: Path) -> None:
    groups = count_groups(counts)
    size = {lang: sum(g["bytes"] for name, g in groups.items() if name.startswith(lang)) for lang in ("en", "zh")}
    weights = weigh(groups, TokenizerOptions(weights={"zh": 0.25, "en": 0.75}))
    en, zh = weights.factors["en/Github"], weights.factors["zh/Stories"]
    assert en * size["en"] == pytest.approx(3 * zh * size["zh"])
    assert min(en, zh) == 1.0
    doubled = weigh(groups, TokenizerOptions(weights={"zh": 0.25, "en": 0.75}, sources={"Github": 2.0}))
    assert doubled.factors["en/Github"] == 2 * doubled.factors["en/Stories"]
    total = sum(doubled.factors[name] * group["bytes"] for name, group in groups.items() if name.startswith("en"))
    assert total == pytest.approx(3 * doubled.factors["zh/Stories"] * size["zh"])
    alone = weigh(groups, TokenizerOptions(weights={"zh": 1.0}))
    assert (alone.factors["en/Stories"], alone.factors["zh/Stories"]) == (0.0, 1.0)


def test_weighted_counts_are_exact_to_a_sixteenth(counts: Path) -> None:
    weights = weigh(count_groups(counts), TokenizerOptions(weights={"zh": 0.3, "en": 0.7}))
    loaded = load_words(counts, weights, 1)
    expected: Counter[str] = Counter()
    for (word, lang, source), count in words_of(counts).items():
        expected[word] += count * weights.factors[f"{lang}/{source}"]  # type: ignore[assignment]
    found = dict(zip(map(bytes.decode, loaded.words.to_pylist()), loaded.counts.tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert all(abs(found[word] - FINENESS * value) <= 0.5 + 1e-6 for word, value in expected.items())
    frequent = load_words(counts, weights, 3)
    seen = Counter(word for word, _, _ in words_of(counts).elements())
    assert set(map(bytes.decode, frequent.words.to_pylist())) == {word for word, count in seen.items() if count >= 3}


def test_the_stage_says_what_it_did(corpus: Path, trained: tuple[Path, Success], counts: Path, tmp_path: Path) -> None:
    out, success = trained
    assert success.facts["tokenizer"]["fingerprint"] == Tokenizer.load(out).fingerprint
    assert {item.name for item in success.files} == {"tokenizer.json", "tokenizer.model"}
    assert success.records == success.kept == 162
    assert success.facts["last_merge"] > 0
    assert train_tokenizer.run([corpus], out, OPTIONS) == success  # finished: read back
    counted = read_success(counts)
    assert counted.records == counted.kept == 162, "records are documents, not words"
    from_counts = train_tokenizer.run([counts], tmp_path / "again", OPTIONS)
    assert from_counts.digest == success.digest
    assert not (tmp_path / "again" / "_work").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"vocab_size": 10},
        {"weights": {}},
        {"weights": {"zh": -1.0, "en": 2.0}},
        {"weights": {"zh": 0.0}},
        {"sources": {"Github": -1.0}},
        {"pad_multiple": 0},
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tokenizer: "):
        train_tokenizer.run([corpus], tmp_path / "out", TokenizerOptions(**options))
    assert not (tmp_path / "out").exists()


def test_too_little_text_is_said_with_what_there_is(counts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"too little .* Its texts have, in bytes: en [0-9,]+, zh [0-9,]+"):
        train_from_counts(counts, tmp_path, TokenizerOptions(vocab_size=150_000, model_type="unigram"))
    with pytest.raises(InputError, match=r"no text to train on in fr \(found: en, zh\)"):
        train_from_counts(counts, tmp_path, TokenizerOptions(weights={"fr": 1.0}))


def test_too_little_memory_is_said_before_training_with_a_way_out(
    counts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_words(counts, weigh(count_groups(counts), OPTIONS), 1)
    needed = check_memory(loaded, TrainOptions(), 0.0)
    monkeypatch.setattr(stages, "train_counted", lambda *_: pytest.fail("trained all the same"))
    with pytest.raises(InputError, match=r"about 0.4 GB, and 0.4 GB may be used; ask for min_count [0-9]+ ") as caught:
        train_from_counts(counts, tmp_path, TokenizerOptions(max_memory=(needed - 1) / 1e9))
    words = str(caught.value).split()
    fits = int(words[words.index("min_count") + 1])
    fewer = load_words(counts, weigh(count_groups(counts), OPTIONS), fits)
    assert check_memory(fewer, TrainOptions(), (needed - 1) / 1e9) < needed


def test_the_check_of_cuts_speaks_the_truth() -> None:
    assert cut_checks({"last_merge": 9.0, "cut_below": 0.0}) == []
    assert "no piece was lost" in cut_checks({"last_merge": 9.0, "cut_below": 9.0})[0].sentence
    assert "may differ" in cut_checks({"last_merge": 8.0, "cut_below": 9.0})[0].sentence


def test_unlabelled_texts_are_told_apart() -> None:
    from glm_data.documents import make_block

    texts = ["The quick brown fox", "敏捷的 fox 跳过懒狗", "敏捷", ""]
    block = make_block(["a", "b", "c", "d"], texts, ["s"] * 4, ["", "", "zh-Hant", ""], ["{}"] * 4)
    assert languages_of(block) == ["en", "zh", "zh-Hant", "en"]
