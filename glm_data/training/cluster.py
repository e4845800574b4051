"""Training over many processes: the loop of ``loop.py`` with ``parallel.py``'s engine, started by ``torchrun``.

Every process takes its part of the rows that the order names; process 0 writes what a single process would write. The
layout is no part of the run's key: a run may go on at another one, from the same samples.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from glm_data import files
from glm_data.config import to_mapping
from glm_data.errors import UsageError
from glm_data.model.model import build
from glm_data.stage import make_plan, open_stage
from glm_data.training import sharded
from glm_data.training.batches import KINDS, FlatBatch, flatten, rows_of_samples
from glm_data.training.checkpoint import FOLDER
from glm_data.training.guard import Guard
from glm_data.training.loop import METRICS, SKIP, SPIKES, read_skip_list
from glm_data.training.losses import LossSums
from glm_data.training.options import TrainOptions, model_config, step_bounds
from glm_data.training.parallel import Layout, ParallelEngine, only
from glm_data.training.schedule import learning_rate, shrink_at
from glm_data.training.stage import STAGE, TrainingData, conclude, run_inputs, split_data
from tokenizer import Tokenizer


def train_parallel(data: TrainingData, out: Path, options: TrainOptions, layout: Layout) -> None:
    """Train on ``data`` into the stage folder ``out``, in each of the layout's processes; goes on from the newest
    checkpoint of the same run, whatever layout wrote it."""
    inputs, mapping = run_inputs(data, options), to_mapping(options)
    key, started = make_plan(STAGE, mapping, inputs)["key"], time.perf_counter()
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(open_stage(out, STAGE, mapping, inputs)) if dist.get_rank() == 0 else None
        dist.barrier()
        config = model_config(options, Tokenizer.load(data.tokenizer).vocab_size)
        engine = ParallelEngine(build(config, options.seed), options, layout)
        _Run(engine, data, out, key).run()
        if stage is not None:
            model = sharded.read_whole(sharded.find_sharded(out / FOLDER)[0], config)
            conclude(stage, model, data, options, started)
            stage.succeed(1, [], files.read_json(out / "config.json")["training"]["facts"])
        dist.barrier()


class _Run:
    """One process's part of a run."""

    def __init__(self, engine: ParallelEngine, data: TrainingData, out: Path, key: str) -> None:
        self.engine, self.data, self.out, self.key = engine, data, out, key
        self.options, self.first = engine.options, dist.get_rank() == 0
        self.training, _ = split_data(data.rows, self.options)
        self.bounds = step_bounds(self.options, len(self.training))
        self.skipped = read_skip_list(out / SKIP)
        self.sums, self.guard, self.loss_tokens = LossSums(), Guard(), 0

    def run(self) -> None:
        """All steps that are left, and a checkpoint behind the last."""
        options, steps = self.options, len(self.bounds) - 1
        first = self._resume()
        for step in range(first, steps):
            self._step(step)
            due = (step + 1) % options.log_every == 0 or step + 1 == steps
            if due and self.first:
                self._log(step)
            if due:
                self.loss_tokens, self.sums = self.loss_tokens + self.sums.total_tokens, LossSums()
            if (options.checkpoint_every and (step + 1) % options.checkpoint_every == 0) or step + 1 == steps:
                self._save(step + 1)

    def _step(self, step: int) -> None:
        before, options = self.bounds[step], self.options
        batches = self._microbatches(before, self.bounds[step + 1])
        if self.engine.config.dropout:
            torch.manual_seed((options.seed << 32) + step * dist.get_world_size() + dist.get_rank())
        for stage in self.engine.stages:
            stage.shrink = shrink_at(before, options.shrink_at, self.engine.config.shrink)
        nats, tokens = self._by_kind(self.engine.gradients(batches), batches)
        self.norm, loss = self.engine.norm(), float(nats.sum() / tokens.sum().clamp(min=1))
        why = self.guard.verdict(loss, self.norm, options.spike_sigma)
        self.guard.note(loss, self.norm, not why, options.spike_window, options.spike_patience)
        if why:
            self._tell_spike(step, why, loss)
            return
        self.rate = learning_rate(
            before,
            max(0, round(self.bounds[-2] * options.decay_share)),
            options.warmup_samples,
            1.0,
            options.min_lr_ratio,
            options.batch_rows,
        )
        self.engine.update(self.rate)
        for number, kind in enumerate(KINDS):
            self.sums.nats[kind] += float(nats[number])
            self.sums.tokens[kind] += int(tokens[number])

    def _microbatches(self, before: int, end: int) -> list[FlatBatch]:
        """This process's rows. Those of the skip list stay, so that all have as many, but nothing of them counts."""
        found = rows_of_samples(before, end, self.training, self.options.seed, self.data.order)
        parts = zip(*(part.reshape(self.engine.layout.data, -1, self.engine.micro_rows) for part in found), strict=True)
        rows, epochs = list(parts)[self.engine.rank_of_data]
        batches = []
        for numbers, passes in zip(rows, epochs, strict=True):
            batch = self.data.rows.batch(numbers.tolist(), epoch=passes)
            flat = flatten(batch, self.engine.micro_rows * batch.tokens.shape[1])
            keep = ~np.isin(numbers, self.skipped)[flat.row_P]
            flat = flat if keep.all() else only(flat, keep)
            in_parts = self.options.device == "cuda" and self.options.precision == "bfloat16"
            batches.append((flat.parts_apart() if in_parts else flat).to(torch.device(self.options.device)))
        return batches

    def _by_kind(self, losses: list[Tensor], batches: list[FlatBatch]) -> tuple[Tensor, Tensor]:
        """Sums of all processes' losses and loss tokens by kind; each data-parallel part is told once."""
        sums = torch.zeros(2, len(KINDS), dtype=torch.float64)
        if losses and self.engine.tensor.get_local_rank() == 0:
            kinds = torch.from_numpy(np.concatenate([batch.kind_P for batch in batches]))
            sums[0].index_add_(0, kinds, torch.cat(losses).double().cpu())
            sums[1].index_add_(0, kinds, torch.ones(len(kinds), dtype=torch.float64))
        sums = sums.to(self.options.device)
        dist.all_reduce(sums)
        return sums[0].cpu(), sums[1].cpu()

    def _tell_spike(self, step: int, why: str, loss: float) -> None:
        if not self.first:
            return
        before, end = self.bounds[step : step + 2]
        rows, epochs = rows_of_samples(before, end, self.training, self.options.seed, self.data.order)
        found = {"step": step + 1, "why": why, "loss": loss if math.isfinite(loss) else None}
        with (self.out / SPIKES).open("ab") as spikes:
            spikes.write(msgspec.json.encode({**found, "rows": rows.tolist(), "epochs": epochs.tolist()}) + b"\n")

    def _log(self, step: int) -> None:
        line: dict[str, Any] = {
            "step": step + 1,
            "samples": self.bounds[step + 1],
            "loss_tokens": self.loss_tokens + self.sums.total_tokens,
            **self.sums.means(),
            "grad_norm": self.norm if math.isfinite(self.norm) else None,
            "lr": self.options.lr * self.rate,
        }
        with (self.out / METRICS).open("ab") as metrics:
            metrics.write(msgspec.json.encode(line) + b"\n")

    def _save(self, step: int) -> None:
        metrics = self.out / METRICS
        state = sharded.ShardedState(
            key=self.key,
            step=step,
            metrics_bytes=metrics.stat().st_size if metrics.exists() else 0,
            loss_tokens=self.loss_tokens,
            guard=self.guard,
            nats=self.sums.nats,
            tokens=self.sums.tokens,
        )
        sharded.save_sharded(self.out / FOLDER, self.engine, state, self.options.keep_checkpoints)

    def _resume(self) -> int:
        state = sharded.load_sharded(self.out / FOLDER, self.engine, self.key)
        if self.first:
            metrics = self.out / METRICS
            written = metrics.read_bytes() if metrics.exists() else b""
            files.write_bytes(metrics, written[: state.metrics_bytes] if state else b"")
        if state is None:
            return 0
        self.guard, self.loss_tokens = state.guard, state.loss_tokens
        self.sums = LossSums(state.nats, state.tokens)
        return state.step


def start_processes(device: str) -> None:
    """Join the processes that ``torchrun`` started; alone if none were."""
    if "RANK" not in os.environ:
        raise UsageError(
            "start it with torchrun, such as: torchrun --nproc-per-node 2 -m glm_data.training PACK --out DIR"
        )
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
