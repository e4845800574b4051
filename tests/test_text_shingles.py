import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_twin import exact_key, shingles, tokens

from glm_data.text.shingles import UNITS, Shingles, distinct_sorted, keyed_shingles, shingle_texts

ALPHABET = "ab Z9\u3000０１é, .中國国文字かガ한국ไก½ﬁ㌖ß\u0301\u200b\u00ad\ufe0f\n!_😀\U00020000Ωя"
TEXTS = st.lists(st.text(st.sampled_from(ALPHABET), max_size=40), max_size=6)


def rows(found: Shingles):
    return [found.hashes[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


@settings(deadline=None, max_examples=150)
@given(TEXTS, st.sampled_from([1, 2, 5, 13]), st.booleans(), st.sampled_from(UNITS))
def test_the_kernel_equals_its_plain_twin(texts, ngram, fold_digits, unit):
    found, keys = keyed_shingles(pa.array(texts, pa.string()), ngram, fold_digits=fold_digits, unit=unit)
    assert rows(found) == [shingles(text, ngram, fold_digits, unit) for text in texts]
    assert keys.tolist() == [exact_key(row) for row in rows(found)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_has_a_shingle_and_none_reads_beyond_its_buffer(texts):
    found = shingle_texts(pa.array(texts, pa.string()))
    assert len(rows(found)) == len(texts)
    assert all(row for row in rows(found))


@pytest.mark.parametrize("unit", UNITS)
def test_words_and_runs_longer_than_what_is_read_at_once_equal_the_twin(unit):
    choice = random.Random(6).choice
    kinds = ["a", "Q", "7", "中", "國", " ", "，", "é", "…", "\u3000", "😀", "б", "\u200b"]
    sizes = [1, 1, 2, 7, 8, 9, 20, 21, 22, 43, 63, 64, 65, 130]
    pieces = [choice(kinds) * choice(sizes) for _ in range(1500)]
    texts = ["".join(pieces[at : at + 30]) for at in range(0, len(pieces), 30)] + ["word" * 40, "字" * 64, "x", ""]
    assert rows(shingle_texts(pa.array(texts), unit=unit)) == [shingles(text, unit=unit) for text in texts]


def test_mixed_scripts_make_one_stream_of_words_and_characters():
    assert tokens("用 NumPy１.26 寫的程式!") == ["用", "numpy1", "26", "写", "的", "程", "式"]
    found = rows(shingle_texts(pa.array(["用 NumPy１.26 寫的程式!"])))
    assert len(found[0]) == 3


def test_variants_share_a_key_and_other_texts_do_not():
    twins = ["The Café, No. 5", "the cafe no 5", "ＴＨＥ  ＣＡＦＥ\nＮＯ．５", "Tʜe café: no. 5".replace("ʜ", "h")]
    others = ["the cafe no 6", "the cafen o 5", "thecafe no 5", "no 5 the cafe"]
    keys = [tuple(key) for key in keyed_shingles(pa.array(twins + others))[1]]
    assert len(set(keys[: len(twins)])) == 1
    assert len(set(keys)) == 1 + len(others)


def test_traditional_and_full_width_chinese_share_a_key():
    twins = ["后来，他们在台湾吃了２碗面。", "後來,他們在臺灣吃了2碗麵.", "后来 他们在台湾 吃了 2 碗面"]
    keys = keyed_shingles(pa.array(twins))[1]
    assert (keys == keys[0]).all()


def test_texts_without_words_are_told_apart_by_their_bytes():
    keys = keyed_shingles(pa.array(["!!!", "!!!", "???", "", ""]))[1]
    assert (keys[0] == keys[1]).all()
    assert (keys[3] == keys[4]).all()
    assert len({tuple(key) for key in keys}) == 3


def test_short_texts_are_one_shingle_unlike_any_longer_one():
    found = rows(shingle_texts(pa.array(["one", "one two", "one two three four", "one two three four five"])))
    assert [len(row) for row in found] == [1, 1, 1, 1]
    assert len({row[0] for row in found}) == 4


def test_folded_digits_read_a_number_as_one_digit():
    texts = pa.array(["costs 1,999 euro in all", "costs 7,12345 euro in all"])
    kept, folded = shingle_texts(texts), shingle_texts(texts, fold_digits=True)
    assert rows(kept)[0] != rows(kept)[1]
    assert rows(folded)[0] == rows(folded)[1]


def test_slices_and_large_strings_are_read_where_they_lie():
    texts = ["first text of the four", "第二個文字", "third", "fourth of them all, really"]
    whole = rows(shingle_texts(pa.array(texts)))
    assert rows(shingle_texts(pa.array(texts).slice(1, 2))) == whole[1:3]
    assert rows(shingle_texts(pa.array(texts, pa.large_string()))) == whole
    assert rows(shingle_texts(pa.array([], pa.string()))) == []


def test_broken_utf8_in_a_buffer_ends_a_word_and_nothing_else():
    data = b"abc\xff\xe4\xb8"
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 6], np.int32)), pa.py_buffer(data))
    assert rows(shingle_texts(texts)) == [shingles("abc")]


def test_distinct_sorted_makes_sets():
    texts = ["a b c d e a b c d e a b c d e", "中中中中中中中中", "x"]
    sets = rows(distinct_sorted(shingle_texts(pa.array(texts))))
    assert sets == [sorted(set(shingles(text))) for text in texts]
    assert [len(row) for row in sets] == [5, 1, 1]


@pytest.mark.parametrize("ngram", [0, 65])
def test_unusable_ngram_is_refused(ngram):
    with pytest.raises(ValueError, match="1 to 64"):
        shingle_texts(pa.array(["a"]), ngram)


def test_characters_are_tokens_with_signs_alike_and_numbers_folded():
    found = rows(shingle_texts(pa.array(["page 12, of 345", "PAGE 1 2。of 3 4 5", "page 12 of 345"]), unit="character"))
    assert found[0] == found[1] != found[2]
    folded = shingle_texts(pa.array(["page 12 of 345", "page 7 of 9"]), unit="character", fold_digits=True)
    assert rows(folded)[0] == rows(folded)[1]


@pytest.mark.parametrize(("latin", "unit"), [(62, "character"), (64, "word")])
def test_a_text_is_taken_by_characters_from_one_ideograph_in_sixty_four(latin, unit):
    texts = ["字" + "b" * (latin - 7) + " \u3000 \u3000\nend of it", "ｂ" * 50 + "\u3000ｗｏｒｄｓ " * 9]
    found = rows(shingle_texts(pa.array(texts), unit="auto"))
    assert found == [shingles(texts[0], unit=unit), shingles(texts[1])]
