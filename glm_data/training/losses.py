"""The loss, its parts by kind, and the baseline that a model must beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from glm_data.model.attention import Attend, PieceAttention
from glm_data.model.flash import FlashAttention, make_tables
from glm_data.model.model import GLM
from glm_data.training.batches import KINDS, FlatBatch, IntArray, Rows, flatten, in_batches
from glm_data.training.head_loss import head_loss
from glm_data.training.options import Weighting


def batch_loss(model: GLM, batch: FlatBatch, weights_P: Tensor) -> tuple[Tensor, Tensor]:
    """``(weighted sum, each)`` of the cross-entropies in nats at the P positions that predict."""
    attend = attention_of(model, batch)
    features_PD = model.features(batch.tokens_T, batch.positions_T, attend, batch.predict_P)
    return head_loss(features_PD, model.head_weight(), batch.targets_P, weights_P)


def attention_of(model: GLM, batch: FlatBatch) -> Attend:
    """Attention over the batch's pieces: flash attention where their parts lie apart, else torch's dense kernels."""
    dropout = model.config.dropout if model.training else 0.0
    if batch.apart:
        return FlashAttention(make_tables(batch.groups, batch.longest, batch.tokens_T.device), dropout)
    return PieceAttention(batch.groups, dropout, model.config.softmax)


def loss_weights(batch: FlatBatch, weighting: Weighting) -> Tensor:
    """Weights ``float32[P]`` that sum to 1.

    ``token``: 1 / P each. ``sequence``: every row weighs the same and its tokens share that, as in GLM-130B, where a
    [MASK] row of 250 targets counts as much as a [gMASK] row of 1,200.
    """
    if weighting == "token":
        weights = np.full(len(batch.row_P), 1 / max(1, len(batch.row_P)))
    else:
        counts = np.bincount(batch.row_P)
        weights = 1 / (counts[batch.row_P] * np.count_nonzero(counts))
    return torch.from_numpy(weights.astype(np.float32))


class LossSums:
    """Sums of token losses by kind, over steps; JSON-able, so that a resumed run goes on with them."""

    def __init__(self, nats: Mapping[str, float] | None = None, tokens: Mapping[str, int] | None = None) -> None:
        self.nats = {**dict.fromkeys(KINDS, 0.0), **(nats or {})}
        self.tokens = {**dict.fromkeys(KINDS, 0), **(tokens or {})}

    def add(self, losses_P: Tensor, kind_P: IntArray) -> None:
        """Add the token losses of a batch."""
        sums = np.bincount(kind_P, weights=losses_P.detach().double().cpu().numpy(), minlength=len(KINDS))
        counts = np.bincount(kind_P, minlength=len(KINDS))
        for number, kind in enumerate(KINDS):
            self.nats[kind] += float(sums[number])
            self.tokens[kind] += int(counts[number])

    @property
    def total_tokens(self) -> int:
        """Loss tokens added so far."""
        return sum(self.tokens.values())

    def means(self) -> dict[str, float]:
        """``loss`` over all tokens and ``loss/<kind>`` of each kind that occurred, in nats a token."""
        found = {f"loss/{kind}": self.nats[kind] / self.tokens[kind] for kind in KINDS if self.tokens[kind]}
        return {"loss": sum(self.nats.values()) / max(1, self.total_tokens), **found}


def unigram_entropy(counts: IntArray) -> float:
    """Entropy in nats of the distribution of ``counts`` (per token id): the loss of the best guess without context."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def count_targets(rows: Rows, indices: IntArray, vocab: int, batch_rows: int = 64) -> IntArray:
    """How often each token id is a loss target in the rows ``indices``: ``int64[vocab]``."""
    counts = np.zeros(vocab, np.int64)
    for chunk in in_batches(indices, batch_rows):
        batch = rows.batch(chunk)
        counts += np.bincount(batch.targets[batch.loss_mask != 0], minlength=vocab)
    return counts


@torch.no_grad()
def measure(model: GLM, rows: Rows, indices: IntArray, batch_rows: int = 1) -> LossSums:
    """The losses of ``model`` on the rows ``indices``, without dropout and without training on them."""
    was_training = model.training
    model.eval()
    sums = LossSums()
    for chunk in in_batches(indices, batch_rows):
        batch = flatten(rows.batch(chunk))
        sums.add(batch_loss(model, batch, loss_weights(batch, "token"))[1], batch.kind_P)
    model.train(was_training)
    return sums
