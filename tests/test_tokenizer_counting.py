"""Counting words: a regular expression as the twin, tables of any size, pairs that stay together, cuts proved."""

from __future__ import annotations

import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenizer import TrainOptions, train
from tokenizer.counting import LONGEST_WORD, Survey, WordCounter, Words
from tokenizer.train import RESERVED, count_texts, last_merge, train_counted, training_memory

CORPUS = Path(__file__).parents[1] / "manifests" / "demo" / "corpus"
STORIES = [(CORPUS / lang / "story.txt").read_text(encoding="utf-8") for lang in ("en", "zh")]

HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WIDE = "\u00a0-\u00bf\u2000-\u206f\u3000-\u3004\u3008-\u3020\ufe30-\ufe4f\uff00-\uff0f\uff1a-\uffef"
SIGN = "\x01-\x08\x0b-\x1e!-/:-@\\[-^`{-\x7f"
NOT_LETTERS = f"{HAN}{WIDE}{SIGN}0-9０-９ \n\t\0\x1f\u2581\u2585\ud800-\udfff"
WORD = re.compile(f" ?[{HAN}]+|[ {SIGN}]?[^{NOT_LETTERS}]+| ?[{SIGN}]+| ?[{WIDE}]+|[0-9０-９]| ")
WHITE = re.compile(" {2,16}|[\n\t\0\x1f\u2581\u2585\ud800-\udfff]")

SIGNS = [
    "foo_bar(self.x, **y)",
    "don't",
    "  a",
    " " * 17 + "b",
    "12",
    "１",
    "中文，“你好”",
    " 中",
    "ー",
    "é\u0301",
    "\r\n",
]
TEXTS = st.lists(st.lists(st.sampled_from([*SIGNS, *STORIES[0][:60:7], *STORIES[1][:60:7]]) | st.text()).map("".join))


def flat(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), offsets, np.arange(len(texts), dtype=np.int32) % 2


def count(texts: list[str], pairs: list[str] | None = None, most_words: int = 64) -> Counter[tuple[int, str]]:
    total: Counter[tuple[int, str]] = Counter()

    def take(words: Words) -> None:
        for (first, last), group, number in zip(pairwise(words.ends), words.groups, words.counts, strict=True):
            total[int(group), words.letters[first:last].tobytes().decode()] += int(number)

    keys = None if pairs is None else np.array([ord(a) << 21 | ord(b) for a, b in pairs], np.int64)
    counter = WordCounter(keys, take, most_words, 4096)
    counter.add(*flat(texts))
    counter.flush()
    return total


def naive(text: str) -> list[str]:
    words = []
    for part in WHITE.split(text):
        for word in WORD.findall(part):
            lead = word[:1] if len(word) > 1 and word[0] in " " else ""
            body = word[len(lead) :]
            words += [
                lead + body[:LONGEST_WORD],
                *(body[i : i + LONGEST_WORD] for i in range(LONGEST_WORD, len(body), LONGEST_WORD)),
            ]
    return words


@settings(deadline=None, max_examples=30)
@given(TEXTS)
@example([" " * size + "x" for size in range(36)])
@example(["\ud800中\udfff文", "a\u2581b\u2585c", "▁"])
def test_words_are_those_of_the_expression(texts: list[str]) -> None:
    expected = Counter((number % 2, word) for number, text in enumerate(texts) for word in naive(text))
    assert count(texts) == expected


def test_a_table_of_any_size_counts_the_same() -> None:
    expected = Counter((number, word) for number, story in enumerate(STORIES) for word in naive(story))
    assert count(STORIES, most_words=100) == count(STORIES, most_words=1 << 14) == expected


def test_han_is_cut_between_neighbours_that_do_not_belong_together() -> None:
    assert count(["中国人民和中国"], ["中国", "人民"]) == {(0, "中国"): 2, (0, "人民"): 1, (0, "和"): 1}
    assert count([" 中国人民 ab"], ["国人"]) == {(0, " 中"): 1, (0, "国人"): 1, (0, "民"): 1, (0, " ab"): 1}
    assert count(["中国人民"], []) == Counter((0, letter) for letter in "中国人民")


def test_the_survey_counts_characters_and_pairs() -> None:
    texts = [*STORIES, "𠮷野家", "中 国", "a\ud800"]
    survey = Survey()
    survey._pairs, survey._counts = np.full(16, -1, np.int64), np.zeros(16, np.int64)  # grows, in the midst of texts
    survey.add(*flat(texts))
    han = re.compile(f"[{HAN}]+")
    expected = Counter(a + b for text in texts for run in han.findall(text) for a, b in pairwise(run))
    pairs, counts = survey.pairs()
    found = {
        chr(pair >> 21) + chr(pair & 0x1FFFFF): number for pair, number in zip(pairs.tolist(), counts, strict=True)
    }
    assert found == expected
    assert (np.diff(pairs) > 0).all()
    for language in range(2):
        characters = Counter("".join(texts[language::2]))
        assert {chr(p): n for p, n in enumerate(survey.characters[language].tolist()) if n} == characters


def test_cutting_rare_neighbours_costs_no_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainOptions(vocab_size=1100)
    whole = count_texts(STORIES)
    free = train_counted(whole, options)
    rarest = last_merge(free, whole)
    assert rarest > 2
    monkeypatch.setattr(sys.modules["tokenizer.train"], "PAIRS_PER_RARE", int(pairs_in(STORIES) / rarest))
    cut = count_texts(STORIES)
    assert len(cut.words) < len(whole.words)
    assert train_counted(cut, options).fingerprint == free.fingerprint


def pairs_in(texts: list[str]) -> int:
    survey = Survey()
    survey.add(*flat(texts))
    return int(survey.pairs()[1].sum())


def test_the_last_merge_is_counted_in_the_words() -> None:
    counted = count_texts(STORIES[:1])
    tokenizer = train_counted(counted, TrainOptions(vocab_size=900))
    last = [n for n in range(RESERVED, tokenizer.pieces) if len(tokenizer.piece(n)) > 1][-1]
    ids = [tokenizer.encode(word.decode()) for word in counted.words.to_pylist()]
    assert last_merge(tokenizer, counted) == sum(
        int(count) * ids[place].tolist().count(last) for place, count in enumerate(counted.counts)
    )


def test_memory_is_foretold_by_words_and_size() -> None:
    small, large = TrainOptions(vocab_size=8000), TrainOptions(vocab_size=150_000)
    assert training_memory(10, 1000, small) < training_memory(10, 10**8, small) < training_memory(10, 10**8, large)


def test_the_order_of_texts_decides_nothing(tmp_path: Path) -> None:
    parts = [part for story in STORIES for part in story[:9000].split("\n")]
    options = TrainOptions(vocab_size=1200)
    first, second = (train(texts, tmp_path, options).model_bytes for texts in (parts, parts[::-1]))
    assert first == second
