"""The loss, its parts by kind, and the baseline that a model must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from glm_data.model.attention import Attend, PieceAttention
from glm_data.model.flash import FlashAttention, make_tables
from glm_data.model.model import GLM
from glm_data.training.batches import KINDS, FlatBatch, IntArray, Rows, check_width, flatten, in_batches, positions_of
from glm_data.training.head_loss import head_loss, losses_at
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


def loss_weights(batch: FlatBatch, weighting: Weighting, whole: float | None = None) -> Tensor:
    """Weights ``float32[P]`` that sum to 1 over a step.

    ``token``: every token weighs the same. ``sequence``: every row does and its tokens share that, as in GLM-130B,
    where a [MASK] row of 250 targets counts as much as a [gMASK] row of 1,200. ``whole`` is the sum of
    :func:`weight` over all microbatches and ranks of the step; by default the batch is the step.
    """
    whole = max(1.0, weight(batch, weighting) if whole is None else whole)
    each = 1.0 if weighting == "token" else 1 / np.bincount(batch.row_P)[batch.row_P]
    return torch.from_numpy(np.full(len(batch.row_P), each / whole).astype(np.float32))


def weight(batch: FlatBatch, weighting: Weighting) -> float:
    """What a batch weighs in its step: its loss tokens, or its rows that have any."""
    return float(len(batch.row_P) if weighting == "token" else len(np.unique(batch.row_P)))


class LossSums:
    """Sums of token losses by kind and by other labels, over steps; JSON-able, so that a resumed run goes on with them.

    Other labels have a name with a slash, as ``lang/en``, and are sums of the same tokens again.
    """

    def __init__(self, nats: Mapping[str, float] | None = None, tokens: Mapping[str, int] | None = None) -> None:
        self.nats = {**dict.fromkeys(KINDS, 0.0), **(nats or {})}
        self.tokens = {**dict.fromkeys(KINDS, 0), **(tokens or {})}

    def add(self, losses_P: Tensor, kind_P: IntArray) -> None:
        """Add the token losses of a batch by kind."""
        self.add_labels(losses_P, KINDS, kind_P)

    def add_labels(self, losses_P: Tensor, names: Sequence[str], label_P: IntArray) -> None:
        """Add the token losses of a batch under the label of each, a number into ``names``."""
        sums = np.bincount(label_P, weights=losses_P.detach().double().cpu().numpy(), minlength=len(names))
        counts = np.bincount(label_P, minlength=len(names))
        for number in np.flatnonzero(counts).tolist():
            name = names[number]
            self.nats[name] = self.nats.get(name, 0.0) + float(sums[number])
            self.tokens[name] = self.tokens.get(name, 0) + int(counts[number])

    def merge(self, other: LossSums) -> None:
        """Add other sums to these."""
        for name, tokens in other.tokens.items():
            self.nats[name] = self.nats.get(name, 0.0) + other.nats[name]
            self.tokens[name] = self.tokens.get(name, 0) + tokens

    @property
    def total_tokens(self) -> int:
        """Loss tokens added so far."""
        return sum(self.tokens[kind] for kind in KINDS)

    def means(self) -> dict[str, float]:
        """``loss`` over all tokens and ``loss/<label>`` of each label that occurred, in nats a token."""
        names = (*KINDS, *sorted(self.tokens.keys() - set(KINDS)))  # the same order after a kill
        found = {f"loss/{name}": self.nats[name] / self.tokens[name] for name in names if self.tokens[name]}
        return {"loss": sum(self.nats[kind] for kind in KINDS) / max(1, self.total_tokens), **found}


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
        taken = rows.batch(chunk, positions=positions_of(model.config))
        check_width(model.config, taken.tokens.shape[1])
        batch = flatten(taken)
        features_PD = model.features(batch.tokens_T, batch.positions_T, attention_of(model, batch), batch.predict_P)
        sums.add(losses_at(model, features_PD, batch.targets_P), batch.kind_P)
    model.train(was_training)
    return sums
