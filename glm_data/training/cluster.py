"""Training over many processes: the loop of ``loop.py`` with ``parallel.py``'s engine, started by ``torchrun``.

Every process takes its part of the rows that the order names; process 0 writes what a single process would write. The
layout is no part of the run's key: a run may go on at another one, from the same samples.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from glm_data.errors import UsageError
from glm_data.model.attention import attended_pairs
from glm_data.model.model import build
from glm_data.stage import Success, finished, make_plan, open_stage
from glm_data.training import sharded
from glm_data.training.batches import KINDS, FlatBatch, IntArray, flatten, rows_of_samples
from glm_data.training.checkpoint import FOLDER
from glm_data.training.guard import Guard
from glm_data.training.loop import (
    SKIP,
    SPIKES,
    cut_back,
    metrics_line,
    note_spike,
    rate_of_step,
    read_skip_list,
    row_losses,
)
from glm_data.training.losses import LossSums
from glm_data.training.metrics import Journal
from glm_data.training.options import TrainOptions, model_config, run_settings, step_bounds
from glm_data.training.parallel import Layout, ParallelEngine, only
from glm_data.training.schedule import shrink_at
from glm_data.training.stage import STAGE, TrainingData, conclude, run_inputs, split_data, succeed
from glm_data.training.tensorboard import require_tensorboard
from tokenizer import Tokenizer


def train_parallel(data: TrainingData, out: Path, options: TrainOptions, layout: Layout) -> Success | None:
    """Train on ``data`` into the stage folder ``out``, in each of the layout's processes; goes on from the newest
    checkpoint of the same run, whatever layout wrote it. Process 0 is given what came of it, also if it was done."""
    if options.tensorboard:
        require_tensorboard()
    inputs, mapping = run_inputs(data, options), run_settings(options)
    key, started = make_plan(STAGE, mapping, inputs)["key"], time.perf_counter()
    done = finished(out, STAGE, mapping, inputs)
    dist.barrier()  # before process 0 changes anything that another has still to look at
    if done is not None:
        return done if dist.get_rank() == 0 else None
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(open_stage(out, STAGE, mapping, inputs)) if dist.get_rank() == 0 else None
        dist.barrier()
        config = model_config(options, Tokenizer.load(data.tokenizer).vocab_size)
        engine = ParallelEngine(build(config, options.seed), options, layout)
        _Run(engine, data, out, key).run()
        if stage is not None:
            model = sharded.read_whole(sharded.find_sharded(out / FOLDER)[0], config)
            conclude(stage, model, data, options, started)
            done = succeed(stage)
        dist.barrier()
    return done


class _Run:
    """One process's part of a run."""

    def __init__(self, engine: ParallelEngine, data: TrainingData, out: Path, key: str) -> None:
        self.engine, self.data, self.out, self.key = engine, data, out, key
        self.options, self.first = engine.options, dist.get_rank() == 0
        self.training, _ = split_data(data.rows, self.options)
        self.bounds = step_bounds(self.options, len(self.training))
        self.skipped = read_skip_list(out / SKIP)
        self.names = (*KINDS, *chain.from_iterable(data.labels.names if data.labels else ()))
        self.sums, self.guard, self.loss_tokens, self.left_out = LossSums(), Guard(), 0, 0
        self.norm = 0.0

    def run(self) -> None:
        """All steps that are left, and a checkpoint behind the last."""
        options, steps = self.options, len(self.bounds) - 1
        first = self._resume()
        with contextlib.ExitStack() as stack:
            journal = None
            if self.first:
                devices = self.engine.layout.processes
                journal = stack.enter_context(Journal(self.out, self.engine.config, options, steps, devices))
            for step in range(first, steps):
                self._step(step, journal)
                if (step + 1) % options.log_every == 0 or step + 1 == steps:
                    self._log(step, journal)
                if (options.checkpoint_every and (step + 1) % options.checkpoint_every == 0) or step + 1 == steps:
                    self._save(step + 1, journal)

    def _step(self, step: int, journal: Journal | None = None) -> None:
        before, options = self.bounds[step], self.options
        started = time.perf_counter()
        rows, batches = self._microbatches(step)
        waited = time.perf_counter() - started
        if self.engine.config.dropout:
            torch.manual_seed((options.seed << 32) + step * dist.get_world_size() + dist.get_rank())
        for stage in self.engine.stages:
            stage.shrink = shrink_at(before, options.shrink_at, self.engine.config.shrink)
        losses = self.engine.gradients(batches)
        sums, (tokens, pairs) = self._sums_of_all(losses, batches, rows)
        if not sums.total_tokens:
            self.left_out += 1  # nothing is predicted in rows that are all skipped
            return
        self.norm, loss = self.engine.norm(), sum(sums.nats[kind] for kind in KINDS) / max(1, sums.total_tokens)
        why = self.guard.verdict(loss, self.norm, options.spike_sigma)
        if why:
            self.left_out += 1
            self._tell_spike(step, why, loss, losses, batches)
        else:
            self.engine.update(rate_of_step(step, self.bounds, options))
            self.sums.merge(sums)
        self.guard.note(loss, self.norm, not why, options.spike_window, options.spike_patience)
        if journal is not None:
            journal.clock.count(tokens, sums.total_tokens, pairs, waited)

    def _rows(self, step: int) -> tuple[IntArray, IntArray]:
        """Rows of a step, of all processes, and the epoch of each."""
        first, end = self.bounds[step], self.bounds[step + 1]
        return rows_of_samples(first, end, self.training, self.options.seed, self.data.order)

    def _microbatches(self, step: int) -> tuple[IntArray, list[FlatBatch]]:
        """This process's rows, ``[microbatches, rows]`` of them, and what is in them. Those of the skip list stay, so
        that all processes have as many, but nothing of them counts."""
        parts = (part.reshape(self.engine.layout.data, -1, self.engine.micro_rows) for part in self._rows(step))
        rows, epochs = (part[self.engine.rank_of_data] for part in parts)
        batches = []
        for numbers, passes in zip(rows, epochs, strict=True):
            batch = self.data.rows.batch(numbers.tolist(), epoch=passes)
            flat = flatten(batch, self.engine.micro_rows * batch.tokens.shape[1])
            keep = ~np.isin(numbers, self.skipped)[flat.row_P]
            flat = flat if keep.all() else only(flat, keep)
            in_parts = self.options.device == "cuda" and self.options.precision == "bfloat16"
            in_parts = in_parts and self.engine.config.softmax == "fused"
            batches.append((flat.parts_apart() if in_parts else flat).to(torch.device(self.options.device)))
        return rows, batches

    def _tells(self, losses: list[Tensor]) -> bool:
        """Whether this process speaks for its data-parallel part: each is told once, by a process that has losses."""
        return bool(losses) and self.engine.tensor.get_local_rank() == 0

    def _sums_of_all(
        self, losses: list[Tensor], batches: list[FlatBatch], rows: IntArray
    ) -> tuple[LossSums, tuple[int, int]]:
        """Losses and loss tokens of all processes, by kind and label; tokens and attended pairs that were computed."""
        own, computed = LossSums(), [0, 0]
        if self._tells(losses):
            for losses_P, batch, numbers in zip(losses, batches, rows, strict=True):
                own.add(losses_P, batch.kind_P)
                if self.data.labels is not None:
                    self.data.labels.add(own, losses_P, batch, numbers)
                computed[0] += batch.computed
                computed[1] += attended_pairs(batch.groups)
        told = [[column.get(name, 0) for name in self.names] for column in (own.nats, own.tokens)]
        summed = torch.tensor([[*told[0], computed[0]], [*told[1], computed[1]]], dtype=torch.float64)
        summed = summed.to(self.options.device)
        dist.all_reduce(summed)
        nats, tokens = summed.tolist()
        found = {name: int(number) for name, number in zip(self.names, tokens, strict=False) if number}
        return LossSums(dict(zip(self.names, nats, strict=False)), found), (int(nats[-1]), int(tokens[-1]))

    def _tell_spike(self, step: int, why: str, loss: float, losses: list[Tensor], batches: list[FlatBatch]) -> None:
        indices, epochs = self._rows(step)
        means = torch.zeros(self.engine.layout.data, len(indices) // self.engine.layout.data, dtype=torch.float64)
        if self._tells(losses):
            own = [math.nan if mean is None else mean for mean in row_losses(losses, batches)]
            means[self.engine.rank_of_data] = torch.tensor(own, dtype=torch.float64)
        means = means.to(self.options.device)
        dist.all_reduce(means)
        if self.first:
            each = [mean if math.isfinite(mean) else None for mean in means.flatten().tolist()]
            note_spike(self.out, step + 1, why, loss, self.norm, (indices, epochs), each)

    def _log(self, step: int, journal: Journal | None) -> None:
        self.loss_tokens += self.sums.total_tokens
        line = metrics_line(step + 1, self.bounds[step + 1], self.loss_tokens, self.sums, self.norm, self.left_out)
        line["lr"] = self.options.lr * rate_of_step(step, self.bounds, self.options)
        self.sums = LossSums()
        if journal is not None:
            journal.write(line)

    def _save(self, step: int, journal: Journal | None) -> None:
        spikes = self.out / SPIKES
        state = sharded.ShardedState(
            key=self.key,
            step=step,
            left_out=self.left_out,
            metrics_bytes=journal.size if journal is not None else 0,
            spikes_bytes=spikes.stat().st_size if spikes.exists() else 0,
            loss_tokens=self.loss_tokens,
            guard=self.guard,
            nats=self.sums.nats,
            tokens=self.sums.tokens,
        )
        sharded.save_sharded(self.out / FOLDER, self.engine, state, self.options.keep_checkpoints)

    def _resume(self) -> int:
        state = sharded.load_sharded(self.out / FOLDER, self.engine, self.key)
        if self.first:
            cut_back(self.out, state.metrics_bytes if state else 0, state.spikes_bytes if state else 0)
        if state is None:
            return 0
        self.guard, self.loss_tokens, self.left_out = state.guard, state.loss_tokens, state.left_out
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
