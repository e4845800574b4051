"""A small linear model of quality: trained on examples of good and bad documents, used as one more signal.

A document is its tokens (words; Han characters), their pairs and triples, each hashed to one of 2 ** 18 weights; the
model is their mean times the square root of their number, through the logistic function. Like the linear classifiers
that CCNet's successors train with fastText, at one weight a feature.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.errors import InputError, UsageError
from glm_data.files import atomic_path
from glm_data.kernels import compiled
from glm_data.text.sets import BASE, spread
from glm_data.text.statistics import Tokens, tokenize

BUCKETS = 1 << 18
_FORMAT = 2
"""Of hashes of words by their bytes; 1 had others."""
FEWEST = 20
"""Documents of each kind below which nothing is learnt."""


class Scores(NamedTuple):
    """How a model judges documents that it was not trained on."""

    good: int
    bad: int
    accuracy: float
    auc: float
    """How likely a good document scores above a bad one."""


def train(
    good: Sequence[str], bad: Sequence[str], *, epochs: int = 5, rate: float = 0.5, seed: int = 0
) -> tuple[NDArray[np.float32], Scores]:
    """Weights (``float32[BUCKETS + 1]``, the last one added to every document) of a model of good and bad documents.

    One document in five is held out for the scores. The same documents and seed give the same weights. Raises
    :class:`UsageError` if there are fewer than :data:`FEWEST` of a kind.
    """
    for name, documents in (("good", good), ("bad", bad)):
        if len(documents) < FEWEST:
            raise UsageError(f"{len(documents)} {name} documents are too few to learn from; give at least {FEWEST}.")
    labels = np.array([1.0] * len(good) + [0.0] * len(bad))
    order = np.random.default_rng(seed).permutation(len(labels))
    tokens = tokenize(pa.array([*good, *bad], pa.string()))
    held_out, used = order[: len(order) // 5], order[len(order) // 5 :]
    weights, squares = np.zeros(BUCKETS + 1, np.float64), np.full(BUCKETS + 1, 1e-6)
    balance = np.where(labels == 1, len(labels) / len(good), len(labels) / len(bad)) / 2
    for epoch in range(epochs):
        shuffled = np.random.default_rng((seed, epoch)).permutation(used)
        _learn(*tokens, labels, balance, shuffled, rate, weights, squares)
    learnt = weights.astype(np.float32)
    return learnt, _judge(_score_all(tokens, learnt)[held_out], labels[held_out])


def score(texts: pa.StringArray, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """How good each text is, from 0 to 1."""
    return _score_all(tokenize(texts), weights)


def _score_all(tokens: Tokens, weights: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = np.zeros(len(tokens.offsets) - 1, np.float64)
    _score(*tokens, weights, scores)
    return scores


def _judge(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Scores:
    good, bad = scores[labels == 1], scores[labels == 0]
    right = float(np.mean((scores >= 0.5) == (labels == 1))) if len(scores) else float("nan")
    pairs = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean() if len(good) and len(bad) else np.nan
    return Scores(len(good), len(bad), right, float(pairs))


def save(path: Path, weights: NDArray[np.float32]) -> None:
    """Write a model as NumPy arrays, without pickle; the same weights give the same bytes."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, format=np.array(_FORMAT), weights=weights)


def load(path: Path) -> NDArray[np.float32]:
    """Read a model; raises :class:`InputError` if there is none."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            weights = arrays["weights"]
            sound = int(arrays["format"]) == _FORMAT and weights.shape == (BUCKETS + 1,) and weights.dtype == np.float32
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        sound = False
    if not sound:
        raise InputError(f"'{path}' holds no quality model; make one with 'glm-data filter train-quality GOOD BAD'.")
    return np.asarray(weights)


@compiled
def _bucket(tokens: NDArray[np.uint64], at: int, size: int) -> Any:
    key = np.uint64(size)
    for place in range(at, at + size):
        key = (key + tokens[place]) * BASE
    return np.int64(spread(key) >> np.uint64(46))


@compiled
def _predict(tokens: NDArray[np.uint64], start: int, end: int, weights: Any) -> tuple[float, float]:
    """The model's sum for a document, and what each of its features adds times its weight."""
    total, features = 0.0, 0
    for at in range(start, end):
        for size in range(1, min(3, end - at) + 1):
            total += weights[_bucket(tokens, at, size)]
            features += 1
    share = 1 / np.sqrt(max(features, 1))
    return total * share + weights[-1], share


@compiled
def _score(tokens: NDArray[np.uint64], offsets: NDArray[np.int64], weights: Any, scores: NDArray[np.float64]) -> None:
    for row in range(scores.shape[0]):
        total, _ = _predict(tokens, offsets[row], offsets[row + 1], weights)
        scores[row] = 1 / (1 + np.exp(-total))


@compiled
def _learn(
    tokens: NDArray[np.uint64], offsets: NDArray[np.int64], labels: NDArray[np.float64], balance: NDArray[np.float64],
    order: NDArray[np.int64], rate: float, weights: NDArray[np.float64], squares: NDArray[np.float64],
) -> None:  # fmt: skip
    """One pass of logistic regression with AdaGrad's step sizes."""
    for row in order:
        start, end = offsets[row], offsets[row + 1]
        total, share = _predict(tokens, start, end, weights)
        slope = (1 / (1 + np.exp(-total)) - labels[row]) * balance[row]
        squares[-1] += slope * slope
        weights[-1] -= rate * slope / np.sqrt(squares[-1])
        step = slope * share
        for at in range(start, end):
            for size in range(1, min(3, end - at) + 1):
                bucket = _bucket(tokens, at, size)
                squares[bucket] += step * step
                weights[bucket] -= rate * step / np.sqrt(squares[bucket])
