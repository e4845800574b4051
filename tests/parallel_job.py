"""Run by test_training_parallel.py in one process of its own: forks eight, which go through all layouts in turn.

``python parallel_job.py FOLDER``; writes losses and gradient norms of every layout to ``FOLDER/results.json``.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.training.batches import flatten
from glm_data.training.options import TrainOptions
from glm_data.training.parallel import Layout, ParallelEngine
from glm_data.training.sharded import ShardedState, load_sharded, save_sharded

LENGTH, VOCAB, ROWS, STEPS = 24, 48, 8, 5
CONFIG = ModelConfig(vocab=VOCAB, layers=2, hidden=16, heads=4, ffn=26, embedding_std=0.1, shrink=0.5)
FOUR = msgspec.structs.replace(CONFIG, layers=4)
OPTIONS = TrainOptions(optimizer="adamw", lr=0.01, batch_rows=ROWS, clip=0.5, weight_decay=0.1, threads=1)
LAYOUTS = {
    "single": (Layout(), 0),
    "four layers, single": (Layout(), 0),
    "single, microbatches": (Layout(), 2),
    "ddp": (Layout(replicate=2), 2),
    "fsdp": (Layout(shard=2), 2),
    "tensor": (Layout(tensor=2), 0),
    "pipeline": (Layout(pipeline=2), 2),
    "four layers, interleaved": (Layout(pipeline=2, chunks=2), 2),
    "2 x 2 x 2": (Layout(pipeline=2, shard=2, tensor=2), 2),
    "resumed by one": (Layout(), 0),
    "resumed by four": (Layout(replicate=2, shard=2), 2),  # HSDP
}
PASSED_ON = {
    "2 x 2 x 2": (None, "eight"),
    "resumed by one": ("eight", "one"),
    "resumed by four": ("one", None),
}


class ToyBatch:
    block_position_ids = None

    def __init__(self, rows):
        shape = (len(rows), LENGTH)
        self.tokens = np.stack([(np.arange(LENGTH) * (1 + r % 3) + r) % VOCAB for r in rows]).astype(np.int32)
        self.targets = (self.tokens * 5 + 1) % VOCAB
        self.position_ids = np.tile(np.arange(LENGTH, dtype=np.int32), (len(rows), 1))
        self.loss_mask = np.zeros(shape, np.uint8)
        self.pieces = [np.array([[0, 4 + r % 7, 14 + r % 5, r % 2], [20, 21, 24, 1]], np.int32) for r in rows]
        for number, pieces in enumerate(self.pieces):
            for _, sep, end, _ in pieces.tolist():
                self.loss_mask[number, sep:end] = 1


def microbatches(engine, step):
    mine = np.arange(ROWS).reshape(engine.layout.data, -1)[engine.rank_of_data] + step * ROWS
    return [
        flatten(ToyBatch(part), engine.micro_rows * LENGTH) for part in mine.reshape(-1, engine.micro_rows).tolist()
    ]


def steps(engine, first=0, end=STEPS):
    """``[loss, gradient norm]`` of each step."""
    found = []
    for step in range(first, end):
        batches = microbatches(engine, step)
        losses = engine.gradients(batches)
        total = torch.tensor([float(sum(part.sum() for part in losses)), float(sum(map(len, losses)))])
        dist.all_reduce(total)
        found.append([(total[0] / total[1]).item(), engine.norm()])
        engine.update(1.0)
    return found


def make(layout, micro, config=CONFIG):
    return ParallelEngine(build(config, 3), msgspec.structs.replace(OPTIONS, micro_rows=micro), layout)


def run(name, layout, micro, folder):
    """All steps of a layout; some save a checkpoint after step 3, or go on from one that another layout wrote."""
    engine = make(layout, micro, FOUR if name.startswith("four") else CONFIG)
    source, target = PASSED_ON.get(name, (None, None))
    first = load_sharded(folder / source, engine, "key").step if source else 0
    found = steps(engine, first, 3) if target else []
    if target:
        save_sharded(folder / target, engine, ShardedState(key="key", step=3), keep=2)
    return found + steps(engine, first + len(found), STEPS)


def worker(rank, folder):
    torch.set_num_threads(1)
    results = {}
    for name, (layout, micro) in LAYOUTS.items():
        store = dist.FileStore(str(folder / f"store {name}"), layout.processes)
        if rank < layout.processes:
            dist.init_process_group("gloo", store=store, rank=rank, world_size=layout.processes)
            results[name] = run(name, layout, micro, folder)
            dist.destroy_process_group()
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results))


def guarded(rank, folder):
    try:
        worker(rank, folder)
    except BaseException:
        (folder / f"error {rank}").write_text(traceback.format_exc())
        os._exit(1)


if __name__ == "__main__":
    mp.start_processes(guarded, (Path(sys.argv[1]),), nprocs=8, start_method="fork")
