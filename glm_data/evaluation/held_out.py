"""Losses of a model on packed rows, in units that compare across tokenizers, beside the baseline without context.

Bits per byte are the bits a model needs for the targets divided by the UTF-8 bytes that the targets stand for. Ends of
spans cost bits and stand for no byte. The baseline codes every target by its frequency among the same targets.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from glm_data.errors import UsageError
from glm_data.generation.glm import load_model
from glm_data.loading import PackedRows
from glm_data.model.model import GLM
from glm_data.training.batches import KINDS, IntArray, Rows, in_batches, split_rows
from glm_data.training.losses import measure, unigram_entropy
from tokenizer import Tokenizer


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The measurement of one kind of piece."""

    tokens: int
    """Loss tokens."""
    bytes: int
    """UTF-8 bytes that they stand for."""
    loss: float
    """Nats a loss token."""
    bits_per_byte: float
    unigram_loss: float
    """Nats a loss token for guessing by frequency among these very targets."""


def bytes_per_token(tokenizer: Tokenizer) -> IntArray:
    """``int64[vocab]``: UTF-8 bytes that each id stands for; 0 for task tokens and padding."""
    return np.array([len(tokenizer.decode_bytes([token])) for token in range(tokenizer.vocab_size)], np.int64)


def score(model: GLM, rows: Rows, indices: IntArray, sizes: IntArray) -> dict[str, Score]:
    """Measure ``model`` on the rows ``indices``, by kind and ``all``; ``sizes`` is :func:`bytes_per_token`."""
    sums = measure(model, rows, indices)
    counts = count_targets_by_kind(rows, indices, len(sizes))
    found: dict[str, Score] = {}
    for number, kind in enumerate(KINDS):
        if sums.tokens[kind]:
            found[kind] = _score(sums.nats[kind], counts[number], sizes)
    return {"all": _score(sum(sums.nats.values()), counts.sum(0), sizes), **found}


def count_targets_by_kind(rows: Rows, indices: IntArray, vocab: int) -> IntArray:
    """How often each id is a loss target in pieces of each kind: ``int64[kinds, vocab]``."""
    counts = np.zeros((len(KINDS), vocab), np.int64)
    for chunk in in_batches(indices, 64):
        batch = rows.batch(chunk)
        for row, pieces in enumerate(batch.pieces):
            for start, _, end, kind in pieces.tolist():
                wanted = batch.loss_mask[row, start:end] != 0
                counts[kind] += np.bincount(batch.targets[row, start:end][wanted], minlength=vocab)
    return counts


def _score(nats: float, counts: IntArray, sizes: IntArray) -> Score:
    tokens, size = int(counts.sum()), int(counts @ sizes)
    return Score(
        tokens=tokens,
        bytes=size,
        loss=nats / max(1, tokens),
        bits_per_byte=nats / math.log(2) / max(1, size),
        unigram_loss=unigram_entropy(counts) if tokens else 0.0,
    )


def score_folder(folder: Path, pack: Path, held_out_rows: int) -> dict[str, Score]:
    """Measure a train or quantize folder on the rows of ``pack`` that training with ``held_out_rows`` keeps back."""
    rows = PackedRows.open(pack)
    tokenizer = Tokenizer.load(folder)
    if rows.manifest.facts["fingerprint"] != tokenizer.fingerprint:
        raise UsageError(f"'{pack}' was packed with another tokenizer than that of '{folder}'; give a pack of its own.")
    if held_out_rows >= len(rows):
        raise UsageError(f"the pack has {len(rows)} rows; measure fewer than {held_out_rows}.")
    _, held_out = split_rows(len(rows), held_out_rows)
    return score(load_model(folder), rows, held_out, bytes_per_token(tokenizer))
