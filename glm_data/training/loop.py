"""The training loop: deterministic by seed, resumable bit for bit on a CPU.

A step: take the rows that the order names (without those of ``skip.txt``), gradients of their microbatches, and unless
the guard forbids it, clip and move the weights. What a step does to them is ``engine.py``; this file decides when, and
writes it down.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
from torch import Tensor

from glm_data import files
from glm_data.errors import GlmDataError, UsageError
from glm_data.model.attention import attended_pairs
from glm_data.training import checkpoint
from glm_data.training.batches import FlatBatch, IntArray, OrderFunction, Rows, rows_of_samples
from glm_data.training.checkpoint import RunState
from glm_data.training.engine import Engine
from glm_data.training.guard import Guard
from glm_data.training.losses import LossSums
from glm_data.training.metrics import METRICS, Clock, Journal
from glm_data.training.options import TrainOptions, step_bounds
from glm_data.training.schedule import learning_rate, shrink_at

SPIKES, SKIP = "spikes.jsonl", "skip.txt"
Report = Callable[[dict[str, Any]], None]
"""Told of every line of metrics.jsonl, with ``steps`` and figures of speed added, for a progress display."""


class Labels(Protocol):
    """What tells losses apart besides the kind of a piece, see ``labels.py``."""

    @property
    def names(self) -> Sequence[Sequence[str]]:
        """All labels there are, in groups."""

    def add(self, sums: LossSums, losses_P: Tensor, batch: FlatBatch, rows: IntArray) -> None:
        """Add the losses of the rows numbered ``rows`` under their labels."""


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
        self,
        engine: Engine,
        rows: Rows,
        training: IntArray,
        order: OrderFunction,
        folder: Path,
        labels: Labels | None = None,
    ) -> None:
        self.engine, self.rows, self.training, self.order = engine, rows, training, order
        self.options, self.folder, self.labels = engine.options, folder, labels
        self.bounds = step_bounds(self.options, len(training))
        self.steps = len(self.bounds) - 1
        self.skipped = read_skip_list(folder / SKIP)
        self.sums, self.guard = LossSums(), Guard()
        self.loss_tokens = self.left_out = 0
        self.grad_norm = 0.0

    def run(self, key: str, report: Report | None = None) -> int:
        """Train to the last step, from the newest checkpoint of the run ``key`` if there is one; returns its step."""
        first = self._resume(key)
        with Journal(self.folder, self.engine.model.config, self.options, self.steps) as journal:
            for step in range(first, self.steps):
                self.train_step(step, journal.clock)
                if self._is_due(step, self.options.log_every):
                    timed = journal.write(self._log_line(step))
                    if report is not None:
                        report(timed)
                if self.options.checkpoint_every and (step + 1) % self.options.checkpoint_every == 0:
                    self._save(key, step + 1, journal.size)
        return first

    def train_step(self, step: int, clock: Clock | None = None) -> None:
        """One step, made or left out."""
        before, end = self.bounds[step : step + 2]
        indices, epochs = rows_of_samples(before, end, self.training, self.options.seed, self.order)
        kept = ~np.isin(indices, self.skipped)
        indices, epochs = indices[kept], epochs[kept]
        started = time.perf_counter()
        batches = self.engine.microbatches(self.rows, indices, epochs) if len(indices) else []
        waited = time.perf_counter() - started
        if self.options.dropout or self.engine.model.config.dropout:
            torch.manual_seed((self.options.seed << 32) + step)  # dropout as a function of the step: nothing to save
        self.engine.model.shrink = shrink_at(before, self.options.shrink_at, self.engine.model.config.shrink)
        losses = self.engine.gradients(batches)
        if sum(len(losses_P) for losses_P in losses) == 0:
            self.left_out += 1  # nothing is predicted in rows that are all skipped
            return
        made = self._judge(step, losses, batches, indices, epochs)
        if made:
            self.engine.update(self.learning_rate_share(step))
            self._count(losses, batches, indices)
        if clock is not None:
            pairs = sum(attended_pairs(batch.groups) for batch in batches)
            clock.count(sum(batch.computed for batch in batches), sum(map(len, losses)), pairs, waited)

    def learning_rate_share(self, step: int) -> float:
        """The learning rate of ``step`` as a share of the highest."""
        return rate_of_step(step, self.bounds, self.options)

    def _judge(
        self, step: int, losses: list[Tensor], batches: list[FlatBatch], indices: IntArray, epochs: IntArray
    ) -> bool:
        """Whether the step may be made; if not, why is written down, with its rows."""
        options, self.grad_norm = self.options, self.engine.norm()
        loss = float(torch.cat(losses).mean())
        why = self.guard.verdict(loss, self.grad_norm, options.spike_sigma)
        if why:
            self.left_out += 1
            each = row_losses(losses, batches)
            note_spike(self.folder, step + 1, why, loss, self.grad_norm, (indices, epochs), each)
        self.guard.note(loss, self.grad_norm, not why, options.spike_window, options.spike_patience)
        return not why

    def _count(self, losses: list[Tensor], batches: list[FlatBatch], indices: IntArray) -> None:
        first = 0
        for losses_P, batch in zip(losses, batches, strict=True):
            self.sums.add(losses_P, batch.kind_P)
            if self.labels is not None:
                self.labels.add(self.sums, losses_P, batch, indices[first : first + batch.rows])
            first += batch.rows

    def _is_due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self.steps

    def _log_line(self, step: int) -> dict[str, Any]:
        self.loss_tokens += self.sums.total_tokens
        line = metrics_line(step + 1, self.bounds[step + 1], self.loss_tokens, self.sums, self.grad_norm, self.left_out)
        line["lr"] = self.options.lr * self.learning_rate_share(step)
        if self.options.shrink_at:
            line["shrink"] = self.engine.model.shrink
        if self.engine.scale is not None:
            line["loss_scale"] = self.engine.scale.scale
        self.sums = LossSums()
        return line

    def _save(self, key: str, step: int, metrics_bytes: int) -> None:
        spikes = self.folder / SPIKES
        state = RunState(
            key=key,
            step=step,
            left_out=self.left_out,
            metrics_bytes=metrics_bytes,
            spikes_bytes=spikes.stat().st_size if spikes.exists() else 0,
            loss_tokens=self.loss_tokens,
            nats=self.sums.nats,
            tokens=self.sums.tokens,
            guard=self.guard,
            scale=self.engine.scale,
        )
        folder = self.folder / checkpoint.FOLDER
        checkpoint.save_checkpoint(folder, self.engine.tensors(), state, self.options.keep_checkpoints)

    def _resume(self, key: str) -> int:
        found = checkpoint.load_newest(self.folder / checkpoint.FOLDER, key)
        if found is None:
            cut_back(self.folder, 0, 0)
            return 0
        state, tensors = found
        cut_back(self.folder, state.metrics_bytes, state.spikes_bytes)
        self.engine.load(tensors, state.step - state.left_out)
        self.sums, self.loss_tokens = LossSums(state.nats, state.tokens), state.loss_tokens
        self.guard, self.left_out, self.engine.scale = state.guard, state.left_out, state.scale
        return state.step


def rate_of_step(step: int, bounds: Sequence[int], options: TrainOptions) -> float:
    """The learning rate of ``step`` as a share of the highest; ``bounds`` are the samples before each step, and all."""
    last = max(0, round(bounds[-2] * options.decay_share))
    rows = bounds[step + 1] - bounds[step]
    return learning_rate(bounds[step], last, options.warmup_samples, 1.0, options.min_lr_ratio, rows)


def metrics_line(
    step: int, samples: int, loss_tokens: int, sums: LossSums, grad_norm: float, left_out: int
) -> dict[str, Any]:
    """A line of metrics.jsonl, without what only some runs have."""
    norm = grad_norm if np.isfinite(grad_norm) else None
    line = {"step": step, "samples": samples, "loss_tokens": loss_tokens, **sums.means(), "grad_norm": norm}
    return {**line, "left_out": left_out} if left_out else line


def note_spike(
    folder: Path, step: int, why: str, loss: float, grad_norm: float, rows: tuple[IntArray, IntArray], each: list[Any]
) -> None:
    """Write into spikes.jsonl why a step was not made: its ``rows`` and their epochs, and the loss of ``each`` row."""
    found = {
        "step": step,
        "why": why,
        "loss": loss if np.isfinite(loss) else None,
        "grad_norm": grad_norm if np.isfinite(grad_norm) else None,
        "rows": rows[0].tolist(),
        "epochs": rows[1].tolist(),
        "row_losses": each,
    }
    with (folder / SPIKES).open("ab") as spikes:
        spikes.write(msgspec.json.encode(found) + b"\n")


def cut_back(folder: Path, metrics_bytes: int, spikes_bytes: int) -> None:
    """Take out of metrics.jsonl and spikes.jsonl what steps wrote that are going to be made again.

    Raises :class:`GlmDataError` if the metrics are shorter than that.
    """
    metrics, spikes = folder / METRICS, folder / SPIKES
    written = metrics.read_bytes() if metrics.exists() else b""
    if len(written) < metrics_bytes:
        raise GlmDataError(
            f"'{folder}': {METRICS} is shorter than its newest checkpoint says; run again with --overwrite."
        )
    files.write_bytes(metrics, written[:metrics_bytes])
    if not spikes_bytes:
        spikes.unlink(missing_ok=True)
    elif spikes.exists():
        files.write_bytes(spikes, spikes.read_bytes()[:spikes_bytes])


def row_losses(losses: list[Tensor], batches: list[FlatBatch]) -> list[float | None]:
    """Mean loss of each row; None where it is not finite or nothing is predicted."""
    means: list[float | None] = []
    for losses_P, batch in zip(losses, batches, strict=True):
        sums = np.bincount(batch.row_P, losses_P.detach().double().cpu().numpy(), minlength=batch.rows)
        counts = np.bincount(batch.row_P, minlength=batch.rows)
        means += [float(s / c) if c and np.isfinite(s) else None for s, c in zip(sums, counts, strict=True)]
    return means


def read_skip_list(path: Path) -> IntArray:
    """Row numbers that ``skip.txt`` of a run's folder lists, ``FIRST:END`` or one number a line.

    Its rows are left out of the batches they stand in; nothing else moves. It is no option, so that it may be written
    when a run has to go back to an older checkpoint. Raises :class:`UsageError` for a line that is no range.
    """
    rows: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else [], 1):
        first, colon, end = line.partition(":")
        if not line.strip():
            continue
        if not first.strip().isdecimal() or (colon and not end.strip().isdecimal()):
            raise UsageError(
                f"line {number} of '{path}' is '{line}'; write FIRST:END, such as 40701:40900, or one row."
            )
        rows += range(int(first), int(end) if colon else int(first) + 1)
    return np.array(rows, np.int64)
