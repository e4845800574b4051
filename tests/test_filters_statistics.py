"""Signals of documents, each against a plain Python twin that defines it."""

from __future__ import annotations

import random
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signal_twin import LETTERS, twin

from glm_data.text import characters as ch
from glm_data.text import statistics
from glm_data.text.characters import classify, script_characters
from glm_data.text.marks import LINKS, advertisements


def measure(text: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in statistics.measure(pa.array([text])).items()}


PIECES = [
    "中文。", "國學", "国学", "かな", "한글", "word", "Ünï", "don't ", "12", "１２", "“好！”", "...", "…", "......",
    "——", "====", "- ", "• ", "\n", "\n\n", " ", "\t", "\u3000", "\u200b", "\ufffd", "\ue000", "😀", "𠀀", "Привет",
    "ไทย", "e\u0301", "）", "?", "|", "+", "★", "·", "\x00", "snake_case", "e.g. ", "3.14", "1,000", "'", '"', ".", "#",
    "the cat and the dog.", "的", "了", "锟斤拷", "鐨勬槸", "http://a.b/c?d ", "WWW.x", "Click Here", "加微信",
    "。www.",
    "a line of five words.", "three short words.[1][edit]", "{", "JavaScript ", "Privacy Policy ", "lorem ipsum ",
    "一段长一点的中文，会重复很多次的那一种。", "a sentence that repeats.", "again and again and again. ",
    "\x00\n", "\x00\x00\n", "sentence ", "extraordinarily, ", "misunderstanding ", "counterrevolutionary ",
]  # fmt: skip
pieces = st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(st.lists(pieces, max_size=40), st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_signals_are_those_of_the_twin(some: list[str], times: int) -> None:
    text = "".join(some * times)
    expected = twin(text)
    assert set(expected) == set(statistics.SIGNALS)
    assert measure(text) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("phrase", [*advertisements(), *LINKS, "Privacy Policy", "lorem ipsum"])
def test_a_phrase_is_found_wherever_it_stands(phrase: str) -> None:
    texts = ["w" * number + f" {phrase}" + tail for number in range(7) for tail in ("", "\n", " and more of it")]
    measured = statistics.measure(pa.array(["no phrase", *texts]))
    for name in ("advertisement_marks", "links"):
        assert measured[name].tolist() == [0, *(twin(text)[name] for text in texts)]


@pytest.mark.parametrize(
    "text",
    [
        "she sells sea shells on the sea shore, and " * 9 + "no more",
        "Ça et là, l’été à Évian; “déjà” vu, " * 9 + "fin",
        "".join(chr(0x4E00 + 7 * number % 300) for number in range(700)),
        "x" * 3000,
        "ab",
    ],
    ids=["ascii", "few characters", "many characters", "one character", "too short"],
)
def test_grams_of_characters_however_they_are_counted(text: str) -> None:
    expected = twin(text)
    found = measure(text)
    for name in ("character_repetition_3", "character_repetition_10", "repeated_gram_share"):
        assert found[name] == pytest.approx(expected[name], abs=1e-12)


def test_a_block_measures_each_document_by_itself() -> None:
    texts = ["甲乙丙\n甲乙丙", "", "甲乙丙", "same line\nsame line", "same line"] * 3
    block = pa.array(["not looked at", *texts, "nor this"]).slice(1, len(texts))
    measured = statistics.measure(block)
    assert set(measured) == set(statistics.SIGNALS)
    for row, text in enumerate(texts):
        assert {name: values[row] for name, values in measured.items()} == pytest.approx(twin(text))
    assert all(len(values) == 0 for values in statistics.measure(pa.array([], pa.string())).values())


def test_grams_of_long_texts_are_sampled_without_bias() -> None:
    generator = random.Random(0)
    fresh = "".join(chr(generator.randrange(0x4E00, 0x9FA5)) for _ in range(30_000))
    for text, expected in ((fresh, 0.0), (fresh[:15_000] * 2, 0.5), ("重复的话说了又说，" * 4000, 1.0)):
        assert measure(text)["repeated_gram_share"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("characters", "kind"),
    [
        ("中々〇㐀豈𠀀", ch.HAN),
        ("あアーｱ", ch.KANA),
        ("한ㄱᄀ", ch.HANGUL),
        ("aZéÅＡﬁ\u0301", ch.LATIN),
        ("Яשกα", ch.LETTER),
        ("1１²Ⅷ", ch.DIGIT),
        (" \t\n\r\u3000\xa0\u2028", ch.SPACE),
        (".。，“（-—_", ch.PUNCTUATION),
        ("+=<|`^$€😀→", ch.SYMBOL),
        ("\ufffd\ue000\ufffe", ch.GARBLED),
        ("\x00\x7f\u200b\ufeff\xad\ufe0f", ch.CONTROL),
    ],
)
def test_classes_of_characters(characters: str, kind: int) -> None:
    assert {character: classify(character) for character in characters} == dict.fromkeys(characters, kind)


def test_the_table_holds_the_class_of_every_character() -> None:
    table = ch.character_table() & ch.CLASS_BITS
    assert table.tolist() == [classify(chr(point)) for point in range(0x10000)]


def test_every_assigned_letter_has_a_class_of_letters() -> None:
    for point in range(0x10000):
        character = chr(point)
        if unicodedata.category(character) in ("Lu", "Ll", "Lo"):
            assert classify(character) in LETTERS, hex(point)


def test_characters_that_tell_the_scripts_apart() -> None:
    simplified, traditional = script_characters()
    assert simplified >= set("国学书车马鸟门这说")
    assert traditional >= set("國學書車馬鳥門這說")
    assert not (simplified | traditional) & set("中文大小山水人天地")
    assert not simplified & traditional
