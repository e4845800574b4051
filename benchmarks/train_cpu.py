"""Training steps on a CPU: this trainer beside a plain GPT of its size that is given a mask, on the same rows.

``python -m benchmarks.train_cpu [--rounds N]``: one thread, then two; medians of ratios between neighbours in time, by
the clock and in CPU seconds (of all threads; the clock means something on a quiet machine only).
The plain GPT is what is usually written: rows as they are, padding and all, one matrix of length x length a row that
says who sees whom, torch's attention with it, scores at every position, cross-entropy where the loss mask is 1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.train_gpu import ToyBatch, glm_rows
from glm_data.model.attention import mask_of_pieces
from glm_data.model.config import ModelConfig
from glm_data.model.model import GLM, build, rotary_table
from glm_data.training.batches import flatten
from glm_data.training.head_loss import head_loss
from glm_data.training.losses import batch_loss, loss_weights

CONFIG = ModelConfig(vocab=16384, layers=4, hidden=256, heads=4, ffn=704)


def short_rows(rows: int, vocab: int, seed: int, length: int = 2048) -> ToyBatch:
    """Rows of twelve short pieces, 140 tokens seen and 30 predicted, as MIP samples are."""
    batch = glm_rows(rows, vocab, seed, 1.0, length)
    found = np.array([(at, at + 140, at + 170, 2) for at in range(0, length - 170, 170)], np.int32)
    mask = np.zeros_like(batch.loss_mask)
    for _, sep, end, _ in found:
        mask[:, sep:end] = 1
    return ToyBatch(batch.tokens, batch.targets, batch.position_ids, mask, [found] * rows)


def plain_loss(model: GLM, batch: ToyBatch) -> Tensor:
    """The loss of ``model`` by a mask of whole rows and scores at every position."""
    config, (rows, length) = model.config, batch.tokens.shape
    mask = torch.stack([mask_of_pieces(pieces, length) for pieces in batch.pieces])[:, None]
    mask |= torch.eye(length, dtype=torch.bool)  # padding sees itself: a row of nothing has no softmax
    positions = torch.from_numpy(batch.position_ids.reshape(-1).astype(np.int64))

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.view(rows, length, config.heads, -1).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(0, 1)

    x = model.word_embeddings(torch.from_numpy(batch.tokens.reshape(-1).astype(np.int64)))
    rotary = rotary_table(positions, config, x.dtype)
    for layer in model.layers:
        x = layer(x, rotary, attend)
    scores = F.linear(model.final_layernorm(x), model.word_embeddings.weight)
    targets = torch.from_numpy(np.where(batch.loss_mask, batch.targets, -100).reshape(-1).astype(np.int64))
    return F.cross_entropy(scores, targets)


def our_loss(model: GLM, batch: ToyBatch) -> Tensor:
    """The loss as the trainer takes it."""
    flat = flatten(batch)
    return batch_loss(model, flat, loss_weights(flat, "token"))[0]


class Times(NamedTuple):
    """Seconds of one forward and backward."""

    clock: float
    cpu: float


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Times:
    """Forward and backward."""
    model.zero_grad()
    started, cpu = time.perf_counter(), time.process_time()
    torch.autograd.backward(loss())
    return Times(time.perf_counter() - started, time.process_time() - cpu)


def head_times(tokens: int = 2048, predicted: int = 307) -> tuple[Times, Times]:
    """Head and loss, forward and backward: at 15 % of the positions, and at all."""
    x = torch.randn(tokens, CONFIG.hidden, requires_grad=True)
    weight = torch.randn(CONFIG.vocab, CONFIG.hidden, requires_grad=True)
    targets = torch.randint(0, CONFIG.vocab, (tokens,))
    where = torch.arange(predicted)
    all_targets = torch.where(torch.arange(tokens) < predicted, targets, -100)
    shares = torch.full((predicted,), 1 / predicted)
    holder = nn.ParameterList([nn.Parameter(x), nn.Parameter(weight)])
    ours = step(holder, lambda: head_loss(holder[0][where], holder[1], targets[:predicted], shares)[0])
    plain = step(holder, lambda: F.cross_entropy(F.linear(holder[0], holder[1]), all_targets))
    return ours, plain


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_cpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    rounds = given.rounds
    model = build(CONFIG, 0)
    batches: dict[str, Any] = {
        "a [gMASK] and a [MASK] row": glm_rows(2, CONFIG.vocab, 1, 0.5),
        "[MASK] rows": glm_rows(1, CONFIG.vocab, 1, 1.0),
        "rows of twelve short pieces": short_rows(1, CONFIG.vocab, 1),
    }
    for threads in given.threads:
        torch.set_num_threads(threads)
        for name, batch in batches.items():
            ours, plain = our_loss(model, batch), plain_loss(model, batch)
            assert abs(float(ours.detach()) - float(plain.detach())) < 1e-4, "the two compute the same"
            pairs = [
                (step(model, partial(our_loss, model, batch)), step(model, partial(plain_loss, model, batch)))
                for _ in range(rounds)
            ]
            report(f"{threads} threads, {name}", pairs)
        report(f"{threads} threads, head and loss at 15 %", [head_times() for _ in range(rounds)])


def report(name: str, pairs: list[tuple[Times, Times]]) -> None:
    ours = statistics.median(mine.cpu for mine, _ in pairs)
    clock, cpu = (statistics.median(theirs[n] / mine[n] for mine, theirs in pairs) for n in range(2))
    print(f"{name}: {clock:.2f} times as fast by the clock, {cpu:.2f} in CPU seconds ({ours:.2f} s)", flush=True)


if __name__ == "__main__":
    main()
