"""Signals of documents, each against a plain Python twin that defines it."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.text import characters as ch
from glm_data.text import statistics
from glm_data.text.characters import classify, script_characters

LETTERS = {ch.HAN, ch.KANA, ch.HANGUL, ch.LATIN, ch.LETTER}
MARKS = {ch.PUNCTUATION, ch.SYMBOL}


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def lines_of(text: str) -> list[str]:
    """Lines without the white space around them, blank ones left out."""
    found = []
    for line in text.split("\n"):
        solid = [at for at, character in enumerate(line) if classify(character) != ch.SPACE]
        if solid:
            found.append(line[solid[0] : solid[-1] + 1])
    return found


def solid_characters(text: str) -> list[str]:
    """Characters that are neither white space nor repeat the mark before them."""
    found: list[str] = []
    before = ""
    for character in text:
        kind = classify(character)
        if not (kind in MARKS and character == before) and kind != ch.SPACE:
            found.append(character)
        before = character
    return found


def ends_in_mark(line: str) -> bool:
    line = line.rstrip(ch.CLOSERS)
    return line[-1:] in set(ch.END_MARKS) if line else False


def grams_of(text: str) -> list[str]:
    """All grams of a text that is not too long for all of them to be taken; runs of a mark count over white space."""
    characters: list[str] = []
    before = ""
    for character in text:
        kind = classify(character)
        if kind == ch.SPACE or (kind in MARKS and character == before):
            continue
        before = character
        characters.append(character)
    joined = "".join(characters)
    return [joined[at : at + 13] for at in range(len(joined) - 12)]


def twin(text: str) -> dict[str, float]:
    solid, lines, grams = solid_characters(text), lines_of(text), grams_of(text)
    kinds = Counter(map(classify, solid))
    letters = sum(kinds[kind] for kind in LETTERS)
    words = sum(
        classify(character) == ch.LATIN and (at == 0 or classify(text[at - 1]) != ch.LATIN)
        for at, character in enumerate(text)
    )
    line_characters = sum(map(len, lines))
    return {
        "characters": len(text),
        "han": kinds[ch.HAN],
        "words": words,
        "lines": len(lines),
        "letter_share": share(letters, len(solid)),
        "han_share": share(kinds[ch.HAN], letters),
        "digit_share": share(kinds[ch.DIGIT], len(solid)),
        "punctuation_share": share(kinds[ch.PUNCTUATION], len(solid)),
        "symbol_share": share(kinds[ch.SYMBOL], len(solid)),
        "space_share": share(sum(classify(character) == ch.SPACE for character in text), len(text)),
        "garbled_share": share(kinds[ch.GARBLED], len(solid)),
        "mean_word_length": share(kinds[ch.LATIN], words),
        "mean_line_length": share(line_characters, len(lines)),
        "end_mark_share": share(sum(map(ends_in_mark, lines)), len(lines)),
        "bullet_share": share(sum(line[0] in ch.BULLETS for line in lines), len(lines)),
        "ellipsis_share": share(sum(line.endswith(("…", "...")) for line in lines), len(lines)),
        "duplicate_line_share": share(
            line_characters - sum(len(line) for line in dict.fromkeys(lines)), line_characters
        ),
        "repeated_gram_share": share(len(grams) - len(set(grams)), len(grams)),
    }


def measure(text: str) -> dict[str, float]:
    return {name: float(values[0]) for name, values in statistics.measure(pa.array([text])).items()}


PIECES = [
    "中文。", "國學", "国学", "かな", "한글", "word", "Ünï", "don't ", "12", "１２", "“好！”", "...", "…", "......",
    "——", "====", "- ", "• ", "\n", "\n\n", " ", "\t", "\u3000", "\r\n", "\u200b", "\ufffd", "\ue000", "😀", "𠀀",
    "Привет",
    "ไทย", "e\u0301", "）", "?", "|", "+", "★", "·", "\x00",
    "一段长一点的中文，会重复很多次的那一种。", "a sentence that repeats.",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=40))
@settings(deadline=None, max_examples=200)
def test_signals_are_those_of_the_twin(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert measure(text) == pytest.approx(twin(text), abs=1e-12)


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
