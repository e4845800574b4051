"""How often documents are used: shares and epochs exactly, repeats bounded, impossible mixes refused with numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import UsageError
from glm_data.packing.mixing import SourceMix, document_copies, source_epochs
from glm_data.packing.options import PackOptions, resolve
from glm_data.packing.sources import Tokenized

SIZES = {"Books": 1000.0, "Wikipedia (en)": 500.0, "WuDao/news": 1500.0, "WuDao/blog": 3000.0}


def tokens_used(epochs):
    return {name: epochs[name] * size for name, size in SIZES.items()}


def test_without_a_mix_every_source_is_used_once():
    assert source_epochs(SIZES, {}, 4) == dict.fromkeys(SIZES, 1.0)


def test_a_share_is_one_of_all_tokens_in_the_end():
    used = tokens_used(source_epochs(SIZES, {"Wikipedia*": SourceMix(share=0.2)}, 4))
    assert used["Wikipedia (en)"] / sum(used.values()) == pytest.approx(0.2)
    assert used["Books"] == 1000


def test_the_share_of_a_pattern_is_dealt_by_size():
    mix = {"WuDao/*": SourceMix(share=0.5), "*": SourceMix(share=0.5)}
    used = tokens_used(source_epochs(SIZES, mix, 4))
    assert used["WuDao/news"] + used["WuDao/blog"] == pytest.approx(3000)
    assert used["WuDao/blog"] == pytest.approx(2 * used["WuDao/news"])
    assert sum(used.values()) == pytest.approx(sum(SIZES.values()))


def test_weights_move_tokens_and_keep_their_total():
    mix = {"Books": SourceMix(weight=3), "WuDao/news": SourceMix(weight=1)}
    used = tokens_used(source_epochs(SIZES, mix, 4))
    assert used["Books"] + used["WuDao/news"] == pytest.approx(2500)
    assert used["Books"] / used["WuDao/news"] == pytest.approx(3 * 1000 / 1500)


@pytest.mark.parametrize(
    ("mix", "words"),
    [
        ({"Wikipedia*": SourceMix(share=0.9)}, "Wikipedia"),
        ({"Wikipedia*": SourceMix(share=1.0)}, "less than 1"),
        ({"*": SourceMix(share=0.7)}, "exactly 1"),
        ({"Books": SourceMix()}, "exactly one of epochs"),
        ({"Books": SourceMix(epochs=1, share=0.1)}, "exactly one of epochs"),
        ({"Boks": SourceMix(epochs=2)}, "no source is left for 'Boks'"),
        ({"Books": SourceMix(epochs=5)}, "5.00 times, at most 4"),
    ],
)
def test_what_cannot_be_meant_or_met_is_refused(mix, words):
    with pytest.raises(UsageError, match=words):
        source_epochs(SIZES, mix, 4)


@settings(deadline=None, max_examples=60)
@given(
    epochs=st.floats(0, 4),
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    seed=st.integers(0, 2**62),
)
def test_epochs_are_met_to_within_one_document(epochs, lengths, seed):
    tokens = np.array(lengths, np.int64)
    options = PackOptions(mix={"a": SourceMix(epochs=epochs)}, seed=seed)
    copies = document_copies(corpus(lengths, "a" * len(lengths)), resolve(options))
    assert abs((copies * tokens).sum() - epochs * tokens.sum()) <= tokens.max()
    assert copies.max() - copies.min() <= 1


def test_duplicates_count_up_to_the_cap():
    documents = corpus([10, 10, 10], "aab", duplicates=[1, 3, 9])
    assert document_copies(documents, resolve(PackOptions(use_duplicates=True))).tolist() == [1, 3, 4]
    mix = {"a": SourceMix(epochs=0)}
    assert document_copies(documents, resolve(PackOptions(use_duplicates=True, mix=mix))).tolist() == [0, 0, 4]


def test_duplicates_and_epochs_together_keep_the_cap():
    documents = corpus([10, 10], "ab", duplicates=[4, 1])
    mix = {"*": SourceMix(epochs=4)}
    assert document_copies(documents, resolve(PackOptions(mix=mix))).tolist() == [4, 4]
    with pytest.raises(UsageError, match="of source 'a' 16 times, at most 4"):
        document_copies(documents, resolve(PackOptions(mix=mix, use_duplicates=True)))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), share=st.floats(0.2, 0.8), seed=st.integers(0, 2**62))
def test_languages_have_their_shares_to_within_a_document_of_each_source(data, share, seed):
    lengths = data.draw(st.lists(st.integers(1, 300), min_size=8, max_size=80))
    langs = ["zh-Hans", "zh-Hant", "en", "ja"][: data.draw(st.integers(3, 4))]
    spread = [langs[number % len(langs)] for number in range(len(lengths))]
    documents = corpus(lengths, ["ab"[number // 2 % 2] for number in range(len(lengths))], spread)
    options = resolve(PackOptions(languages={"zh": share, "en": 0.9 - share}, max_epochs=1000, seed=seed))
    if "ja" not in spread:
        with pytest.raises(UsageError, match="exactly 1"):
            document_copies(documents, options)
        return
    used = documents.length * document_copies(documents, options)
    groups, longest, total = 2 * len(langs), max(lengths), int(documents.length.sum())
    for name, wanted in (("zh", share), ("en", 0.9 - share), ("ja", 0.1)):
        mine = np.array([lang.startswith(name) for lang in spread])
        assert abs(used[mine].sum() - wanted * total) <= groups * longest
    assert abs(used.sum() - total) <= groups * longest


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        ({"zh": 0.999, "en": 0.001}, "'zh' documents of source 'a' 19.98 times, at most 4"),
        ({"zh": 0.5, "fr": 0.5}, "no text in 'fr'; the languages are en, zh"),
        ({"zh": 0.5, "en": 0.6}, "add up to 1.1; they must be exactly 1"),
        ({"zh": 1.5, "en": 0.1}, "zh 1.5 is no share"),
    ],
)
def test_languages_that_cannot_be_meant_or_met_are_refused(languages, words):
    documents = corpus([50, 950], "aa", ["zh", "en"])
    with pytest.raises(UsageError, match=words):
        document_copies(documents, resolve(PackOptions(languages=languages)))


def test_languages_go_with_epochs_and_weights_but_not_with_shares():
    mix = {"a": SourceMix(epochs=2)}
    documents = corpus([100] * 40, "ab" * 20, ["zh", "zh", "en", "en"] * 10)
    copies = document_copies(documents, resolve(PackOptions(mix=mix, languages={"zh": 0.6, "en": 0.4})))
    assert (copies * documents.length)[documents.lang == documents.langs.index("zh")].sum() == 0.6 * 6000
    with pytest.raises(UsageError, match="languages and a mix with shares"):
        resolve(PackOptions(mix={"a": SourceMix(share=0.5)}, languages={"zh": 0.5}))


def corpus(lengths, sources, langs=None, duplicates=None) -> Tokenized:
    """Documents of such lengths, one shard."""
    langs = langs or ["en"] * len(lengths)
    names, numbers = np.unique(list(sources), return_inverse=True)
    known, spoken = np.unique(langs, return_inverse=True)
    zeros = np.zeros(len(lengths), np.int64)
    return Tokenized(
        stems=("data/part-00000",),
        file=zeros.astype(np.int32),
        offset=zeros,
        length=np.array(lengths, np.int64),
        duplicates=np.array(duplicates or [1] * len(lengths), np.int64),
        source=numbers.astype(np.int32),
        sources=tuple(names.tolist()),
        lang=spoken.astype(np.int32),
        langs=tuple(known.tolist()),
    )
