"""The training loop: one process, CPU, deterministic by seed, resumable bit for bit.

A step: take the rows that the order names, lay their pieces out flat, cross-entropy at the loss positions, one
backward, clip, AdamW or Muon (``optimizer.py``). The loss is a weighted sum whose weights add up to 1 over all loss
tokens of the *step*, so it means the same for any number of rows (blank infilling has rows of 250 and of 1,600).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from glm_data import files
from glm_data.errors import GlmDataError
from glm_data.model.model import GLM
from glm_data.stage import RUN
from glm_data.training import checkpoint
from glm_data.training.batches import FlatBatch, IntArray, OrderFunction, Rows, flatten, rows_of_step
from glm_data.training.checkpoint import RunState
from glm_data.training.losses import LossSums, batch_loss, loss_weights
from glm_data.training.optimizer import Optimizers
from glm_data.training.options import TrainOptions, total_steps
from glm_data.training.schedule import learning_rate

METRICS = "metrics.jsonl"
Report = Callable[[dict[str, Any]], None]
"""Told of every line of metrics.jsonl, with ``steps`` and ``tokens_per_second`` added, for a progress display."""


@contextlib.contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Run with ``threads`` CPU threads: the sums of a matrix product depend on how it is cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Trainer:
    """A run over ``training`` (row numbers of ``rows``), writing into ``folder``."""

    def __init__(
        self, model: GLM, rows: Rows, training: IntArray, order: OrderFunction, options: TrainOptions, folder: Path
    ) -> None:
        self.model, self.rows, self.training, self.order = model, rows, training, order
        self.options, self.folder = options, folder
        self.steps = total_steps(options, len(training))
        self.optimizers = Optimizers(model, options)
        self.sums = LossSums()
        self.loss_tokens = 0

    def run(self, key: str, report: Report | None = None) -> int:
        """Train to the last step, from the newest checkpoint of the run ``key`` if there is one; returns its step."""
        first = self._resume(key)
        clock = _Clock(self.folder)
        with (self.folder / METRICS).open("ab") as metrics:
            for step in range(first, self.steps):
                clock.tokens += self.train_step(step)
                line = self._log_line(step) if self._is_due(step, self.options.log_every) else None
                if line is not None:
                    metrics.write(msgspec.json.encode(line) + b"\n")
                    metrics.flush()
                    timed = clock.lap(line, self.steps)
                    if report is not None:
                        report(timed)
                if self.options.checkpoint_every and (step + 1) % self.options.checkpoint_every == 0:
                    self._save(key, step + 1, metrics.tell())
        return first

    def train_step(self, step: int) -> int:
        """One optimiser step; returns the tokens computed. Raises :class:`GlmDataError` when the loss is not finite."""
        options = self.options
        indices, epochs = rows_of_step(step, options.batch_rows, self.training, options.seed, self.order)
        batch = flatten(self.rows.batch(indices.tolist(), epoch=epochs))
        if options.dropout or self.model.config.dropout:
            torch.manual_seed((options.seed << 32) + step)  # dropout as a function of the step: nothing to save
        losses_P = self._backward(batch)
        self.grad_norm = self._clip()
        if not math.isfinite(self.grad_norm):
            raise GlmDataError(
                f"step {step + 1}: the gradient is not finite; lower lr or lengthen warmup and run again."
            )
        self.optimizers.step(self.learning_rate_share(step))
        self.sums.add(losses_P, batch.kind_P)
        return len(batch.tokens_T)

    def learning_rate_share(self, step: int) -> float:
        """The learning rate of ``step`` as a share of the highest."""
        return learning_rate(step, self.steps, self.options.warmup, 1.0, self.options.min_lr_ratio)

    def _backward(self, batch: FlatBatch) -> Tensor:
        self.optimizers.zero_grad()
        loss, losses_P = batch_loss(self.model, batch, loss_weights(batch, self.options.weighting))
        torch.autograd.backward(loss)
        return losses_P

    def _clip(self) -> float:
        largest = self.options.clip or math.inf
        return float(nn.utils.clip_grad_norm_(self.model.parameters(), largest, foreach=True))

    def _is_due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self.steps

    def _log_line(self, step: int) -> dict[str, Any]:
        self.loss_tokens += self.sums.total_tokens
        line = {
            "step": step + 1,
            "samples": (step + 1) * self.options.batch_rows,
            "loss_tokens": self.loss_tokens,
            **self.sums.means(),
            "grad_norm": self.grad_norm,
            "lr": self.options.lr * self.learning_rate_share(step),
        }
        self.sums = LossSums()
        return line

    def _save(self, key: str, step: int, metrics_bytes: int) -> None:
        state = RunState(
            key=key,
            step=step,
            metrics_bytes=metrics_bytes,
            loss_tokens=self.loss_tokens,
            nats=self.sums.nats,
            tokens=self.sums.tokens,
        )
        folder = self.folder / checkpoint.FOLDER
        checkpoint.save_checkpoint(folder, self.model, self.optimizers, state, self.options.keep_checkpoints)

    def _resume(self, key: str) -> int:
        state = checkpoint.load_newest(self.folder / checkpoint.FOLDER, key, self.model, self.optimizers)
        metrics = self.folder / METRICS
        written = metrics.read_bytes() if metrics.exists() else b""
        if state is None or len(written) < state.metrics_bytes:
            files.write_bytes(metrics, b"")
            if state is not None:
                raise self._metrics_lost()
            return 0
        files.write_bytes(metrics, written[: state.metrics_bytes])
        self.sums, self.loss_tokens = LossSums(state.nats, state.tokens), state.loss_tokens
        return state.step

    def _metrics_lost(self) -> GlmDataError:
        return GlmDataError(
            f"'{self.folder}': {METRICS} is shorter than its newest checkpoint says; run again with --overwrite."
        )


class _Clock:
    """Measures speed into ``_run/training.jsonl``, apart from everything that must be the same in every run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUN / "training.jsonl"
        self.tokens = 0
        self.started = self.last = time.perf_counter()

    def lap(self, line: dict[str, Any], steps: int) -> dict[str, Any]:
        """Note the speed since the last lap; returns ``line`` with it."""
        now = time.perf_counter()
        speed = {"seconds": now - self.started, "tokens_per_second": self.tokens / max(1e-9, now - self.last)}
        self.tokens, self.last = 0, now
        with self.path.open("ab") as handle:
            handle.write(msgspec.json.encode({"step": line["step"], **speed}) + b"\n")
        return {**line, **speed, "steps": steps}
