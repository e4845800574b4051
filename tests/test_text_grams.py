"""Grams: the kernels equal their plain twin, and depend on nothing but what a gram covers."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from text_twin import SALT, grams, placed_tokens, tokens

from glm_data.text.grams import Shape, find_grams, gram_hashes, make_lookup

ALPHABET = "ab Z9０１é, .中國国文字かガ한국ไก½ﬁ㌖ß\u0301\u200b\u00ad\ufe0f\n!_😀\U00020000Ωя"
TEXTS = st.lists(st.text(st.sampled_from(ALPHABET), max_size=60), min_size=1, max_size=5)
SHAPES = st.builds(Shape, st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.0, 0.3, 0.6, 1.0]))


def rows(found):
    return [found.hashes[a:b].tolist() for a, b in zip(found.offsets[:-1], found.offsets[1:], strict=True)]


def twin(text, shape):
    """Whether a text is shorter than a gram, and its grams."""
    weight = sum(shape.words if is_character else shape.characters for _, is_character, _, _ in placed_tokens(text))
    is_short = weight < shape.full
    need, salt = (shape.least, SALT) if is_short else (shape.full, 0)
    return is_short, [gram[0] for gram in grams(text, shape.words, shape.characters, need, salt)]


@settings(deadline=None, max_examples=150)
@given(TEXTS, SHAPES)
def test_hashes_equal_their_plain_twin(texts, shape):
    found = gram_hashes(pa.array(texts, pa.string()), shape)
    assert list(zip(found.short.tolist(), rows(found), strict=True)) == [twin(text, shape) for text in texts]


@settings(deadline=None, max_examples=150)
@given(TEXTS, SHAPES, st.randoms(use_true_random=False))
def test_what_is_looked_for_is_found_at_its_bytes(texts, shape, random):
    """Half of all grams of the texts, and grams of others, are looked for; the twin says where they stand."""
    full = [(g, row) for row, text in enumerate(texts) for g in grams(text, shape.words, shape.characters, shape.full)]
    short = [
        (g, row)
        for row, text in enumerate(texts)
        for g in grams(text, shape.words, shape.characters, shape.least, SALT)
    ]
    wanted = {
        g[0]: is_short for pairs, is_short in ((full, False), (short, True)) for g, _ in pairs if random.random() < 0.5
    }
    wanted |= {random.getrandbits(64): random.random() < 0.5 for _ in range(20)}
    hashes = np.array(sorted(wanted), np.uint64)
    lookup = make_lookup(shape, hashes, np.array([wanted[int(value)] for value in hashes], bool))
    found = find_grams(pa.array(texts, pa.string()), lookup)
    got = sorted(
        zip(found.texts.tolist(), hashes[found.grams].tolist(), found.starts.tolist(), found.ends.tolist(), strict=True)
    )
    expected = [(row, *g) for g, row in full if wanted.get(g[0]) is False]
    expected += [(row, *g) for g, row in short if wanted.get(g[0]) is True]
    assert got == sorted(expected)


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from(ALPHABET), max_size=40))
def test_the_twins_agree_on_tokens(text):
    assert [token for token, _, _, _ in placed_tokens(text)] == tokens(text)


def test_a_gram_is_thirteen_words_or_twenty_four_characters_or_shares_of_both():
    english, chinese = "one two three four five six seven eight nine ten eleven twelve thirteen", "天" * 24
    mixed = "one two three four five six seven" + "天" * 12
    counts = [
        len(row) for row in rows(gram_hashes(pa.array([english, chinese, mixed, english[4:], chinese[1:]]), Shape()))
    ]
    assert counts[:3] == [1, 1, 1]
    short = gram_hashes(pa.array([english, chinese, mixed, english[4:], chinese[1:]]), Shape()).short
    assert short.tolist() == [False, False, False, True, True]
    shortest = ["one two three four five six seven eight", "one two three four five six seven", "天" * 15, "天" * 14]
    assert [len(row) for row in rows(gram_hashes(pa.array(shortest), Shape()))] == [1, 0, 1, 0]


def test_more_finds_than_there_was_room_for():
    texts = pa.array(["go " * 40_000] * 2)
    lookup = make_lookup(Shape(), np.unique(gram_hashes(texts, Shape()).hashes), np.zeros(1, bool))
    found = find_grams(texts, lookup)
    assert found.texts.size == 2 * (40_000 - 12)
    assert found.starts[-1] == 3 * (40_000 - 13)


def test_slices_and_large_strings_are_read_where_they_lie():
    texts = pa.array(["nothing", "a b c d e f g h i j k l m n", "more"])
    lookup = make_lookup(Shape(), np.sort(gram_hashes(texts, Shape()).hashes), np.zeros(2, bool))
    for given_texts in (texts.slice(1), texts.cast(pa.large_string()).slice(1)):
        assert find_grams(given_texts, lookup).starts.tolist() == [0, 2]
