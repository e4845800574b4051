import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tokenizer
from glm_data.evaluation.held_out import bytes_per_token, count_targets_by_kind, score
from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.training.options import held_out_rows

SIZES = np.array([0, 1, 2, 3, 0, 1, 1, 6])


@dataclass(frozen=True)
class ToyBatch:
    tokens: np.ndarray
    targets: np.ndarray
    position_ids: np.ndarray
    loss_mask: np.ndarray
    pieces: list
    block_position_ids: None = None


class ToyRows:
    """Two rows: a [gMASK] piece, and a [MASK] piece beside a MIP piece."""

    pieces = ([(0, 4, 9, 0)], [(0, 3, 5, 1), (6, 8, 12, 2)])

    def __len__(self):
        return 2

    def batch(self, indices, *, epoch=0, **options):
        rng = np.random.default_rng(0)
        tokens, targets = rng.integers(1, 8, (2, 2, 12)).astype(np.int32)
        mask = np.zeros((2, 12), np.uint8)
        for row, pieces in enumerate(self.pieces):
            for _, sep, end, _ in pieces:
                mask[row, sep:end] = 1
        positions = np.tile(np.arange(12, dtype=np.int32), (2, 1))
        wanted = list(indices)
        pieces = [np.array(self.pieces[i], np.int32) for i in wanted]
        return ToyBatch(tokens[wanted], targets[wanted], positions[wanted], mask[wanted], pieces)


def test_scores_add_up_and_bits_per_byte_are_bits_over_bytes():
    model = build(ModelConfig(vocab=8, layers=1, hidden=8, heads=2, ffn=8), 0)
    rows = ToyRows()
    found = score(model, rows, np.arange(2), SIZES)
    assert {kind: item.tokens for kind, item in found.items()} == {"all": 11, "gmask": 5, "mask": 2, "mip": 4}
    batch = rows.batch([0, 1])
    for kind, (row, start, end) in {"gmask": (0, 4, 9), "mask": (1, 3, 5), "mip": (1, 8, 12)}.items():
        targets = batch.targets[row, start:end]
        assert found[kind].bytes == SIZES[targets].sum()
        shares = np.bincount(targets) / len(targets)
        assert found[kind].unigram_loss == pytest.approx(-sum(p * math.log(p) for p in shares if p))
        nats = found[kind].loss * found[kind].tokens
        assert found[kind].bits_per_byte == pytest.approx(nats / math.log(2) / found[kind].bytes)
    parts = [found[kind] for kind in ("gmask", "mask", "mip")]
    assert found["all"].loss * 11 == pytest.approx(sum(part.loss * part.tokens for part in parts))


def test_a_model_without_opinions_costs_the_logarithm_of_the_vocabulary():
    model = build(ModelConfig(vocab=8, layers=1, hidden=8, heads=2, ffn=8), 0)
    with torch.no_grad():
        model.word_embeddings.weight.zero_()
    assert score(model, ToyRows(), np.arange(2), SIZES)["all"].loss == pytest.approx(math.log(8))


def test_targets_are_counted_by_kind():
    counts = count_targets_by_kind(ToyRows(), np.array([1]), 8)
    batch = ToyRows().batch([1])
    assert counts.sum(1).tolist() == [0, 2, 4, 0]
    assert counts[2].tolist() == np.bincount(batch.targets[0, 8:12], minlength=8).tolist()


def test_bytes_of_tokens_add_up_to_the_text(tmp_path):
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), 6)) for _ in range(60)] + ["床前明月光，"] * 9
    texts = [" ".join(rng.choice(words, 30)) for _ in range(60)]
    trained = tokenizer.train(texts, tmp_path, tokenizer.TrainOptions(vocab_size=512))
    sizes = bytes_per_token(trained)
    for text in (texts[0], "床前  Ж\n\t€"):
        assert sizes[trained.encode(text)].sum() == len(text.encode())
    assert not sizes[list(tokenizer.SPECIAL)].any()
    assert len(sizes) == trained.vocab_size


def test_held_out_rows_are_read_from_a_description():
    assert held_out_rows({"options": {"held_out_rows": 7}}) == 7
    assert held_out_rows({}) == 0
