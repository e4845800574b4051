"""How often documents are used: shares and epochs exactly, repeats bounded, impossible mixes refused with numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_data.errors import UsageError
from glm_data.packing.mixing import SourceMix, document_copies, source_epochs

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
    sources, once = np.array(["a"] * len(tokens)), np.ones(len(tokens), np.int64)
    mix = {"a": SourceMix(epochs=epochs)}
    copies = document_copies(tokens, sources, once, mix, use_duplicates=False, max_epochs=4, seed=seed)
    assert abs((copies * tokens).sum() - epochs * tokens.sum()) <= tokens.max()
    assert copies.max() - copies.min() <= 1


def test_duplicates_count_up_to_the_cap():
    tokens, sources, duplicates = np.array([10, 10, 10]), np.array(["a", "a", "b"]), np.array([1, 3, 9])
    given = {"use_duplicates": True, "max_epochs": 4, "seed": 1}
    assert document_copies(tokens, sources, duplicates, {}, **given).tolist() == [1, 3, 4]
    assert document_copies(tokens, sources, duplicates, {"a": SourceMix(epochs=0)}, **given).tolist() == [0, 0, 4]
