"""What the benchmark of held-out text sets beside a model: a trigram that is a distribution, over text as it reads."""

import numpy as np
import pytest
from loading_packs import SPECIALS, write_pack

from benchmarks.held_out import Sizes, Trigram, chinese_bits, texts_of
from glm_data.loading import PackedRows
from glm_data.packing.masking import invert


def test_trigram_is_a_distribution_and_knows_what_it_counted():
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 7, rng.integers(1, 30)) for _ in range(40)]
    trigram = Trigram(texts, 9)
    for before in ([9, 9], [9, 3], [2, 5], [8, 8]):  # 9: before a text; 8: never seen
        shares = trigram.probability(np.tile(before, (9, 1)), np.arange(9))
        assert shares.sum() == pytest.approx(1)
        assert (shares > 0).all()
    sure = Trigram([np.array([1, 2, 3, 1, 2, 3, 1, 2, 4])] * 5, 9)
    told = sure.probability(np.array([[1, 2], [1, 2], [1, 2]]), np.array([3, 4, 5]))
    assert told[0] == pytest.approx(10 / 15, abs=0.1), "ten of fifteen times"
    assert told[0] > told[1] > told[2]


class Pieces:
    """Text, a letter, Chinese characters, a part of one and an end of a piece."""

    texts = (b"ab", "é".encode(), "中文".encode(), "，".encode(), "中a".encode(), "文".encode()[:1], b"")
    vocab_size = len(texts)

    def decode_bytes(self, ids):
        return b"".join(self.texts[token] for token in ids)


def test_bits_a_chinese_character_are_those_of_tokens_that_hold_one():
    sizes = Sizes(Pieces())
    assert sizes.bytes.tolist() == [2, 2, 6, 3, 4, 1, 0]
    assert sizes.characters.tolist() == [2, 1, 2, 1, 2, 1, 0]
    ids, nats = np.arange(7), np.log(2) * np.array([1.0, 2, 4, 8, 16, 32, 64])
    bits, characters = chinese_bits(ids, nats, sizes)
    assert characters == 4, "the first byte of a character stands for it"
    assert bits == pytest.approx((4 + 16 + 32) / 4), "nothing of letters, punctuation and ends"


def test_text_is_that_of_the_pack_and_places_are_where_it_is_predicted(tmp_path):
    pack = PackedRows.open(write_pack(tmp_path / "pack", rows=12))
    for row in range(12):
        rows, batch = pack.rows([row]), pack.batch([row])
        found = list(texts_of(pack, row))
        for (ids, places), source in zip(found, invert(rows, 0, SPECIALS["eop"]), strict=True):
            assert ids.tolist() == source.tolist()
            assert (batch.targets[0, places[places >= 0]] == ids[places >= 0]).all()
        told = np.concatenate([places[places >= 0] for _, places in found])
        wanted = np.flatnonzero((batch.loss_mask[0] != 0) & (batch.targets[0] != SPECIALS["eop"]))
        assert sorted(told.tolist()) == wanted.tolist()
