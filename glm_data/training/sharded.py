"""Checkpoints of a model spread over processes: each writes its own part, and any other layout can take them up.

::

    checkpoints/step-00000100/
        shard-00001-model-….safetensors …     weights and moments, as torch's distributed checkpoints cut them
        state.json                            :class:`ShardedState`; written last

All of it is written to a folder with another name and renamed: a run killed while saving leaves the checkpoint before
it. The tensors are safetensors files, with their places in the whole in the header, and nothing is unpickled.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import cast

import msgspec
import torch.distributed as dist
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from glm_data import files
from glm_data.errors import InputError
from glm_data.model.config import ModelConfig
from glm_data.model.model import GLM, Layer
from glm_data.training.guard import Guard
from glm_data.training.parallel import ParallelEngine, SplitHalves, with_whole_matrices

STATE, UNFINISHED = "state.json", ".unfinished"


class ShardedState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run must know to go on, besides tensors."""

    key: str
    """Digest of options and inputs: a checkpoint of another run is not taken up. The layout is not part of it."""
    step: int
    left_out: int = 0
    """Steps of them that the guard left out."""
    metrics_bytes: int = 0
    spikes_bytes: int = 0
    loss_tokens: int = 0
    guard: Guard = msgspec.field(default_factory=Guard)
    nats: dict[str, float] = msgspec.field(default_factory=dict)
    """Sums since the last line of metrics.jsonl."""
    tokens: dict[str, int] = msgspec.field(default_factory=dict)


def save_sharded(folder: Path, engine: ParallelEngine, state: ShardedState, keep: int) -> None:
    """Write the checkpoint of ``state.step``, all processes together, then delete all but the newest ``keep``."""
    target = folder / f"step-{state.step:08d}"
    unfinished = target.with_name(target.name + UNFINISHED)
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    dist.barrier()
    save(engine.tensors(), storage_writer=HuggingFaceStorageWriter(str(unfinished), save_distributed=True))
    dist.barrier()
    if first:
        files.write_json(unfinished / STATE, state)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        for old in find_sharded(folder)[keep:]:
            shutil.rmtree(old)
    dist.barrier()


def find_sharded(folder: Path) -> list[Path]:
    """Whole checkpoints in ``folder``, the newest first."""
    return sorted((path.parent for path in folder.glob(f"step-????????/{STATE}")), reverse=True)


def load_sharded(folder: Path, engine: ParallelEngine, key: str) -> ShardedState | None:
    """Put the newest checkpoint into the engine, whatever layout wrote it; None if there is none.

    Raises :class:`InputError` if it is another run's.
    """
    found = find_sharded(folder)
    if not found:
        return None
    state = msgspec.json.decode((found[0] / STATE).read_bytes(), type=ShardedState)
    if state.key != key:
        raise InputError(
            f"'{found[0]}' was written by a run with other options or another pack; give its options, or a new folder."
        )
    tensors = engine.tensors()
    load(tensors, storage_reader=HuggingFaceStorageReader(str(found[0])))
    engine.loaded(state.step - state.left_out)
    return state


def read_whole(folder: Path, config: ModelConfig) -> GLM:
    """The model of one checkpoint, read by one process from the parts of all."""
    model, split = GLM(config), GLM(config)
    for layer in split.layers:
        mlp = cast(Layer, layer).mlp
        mlp.dense_h_to_4h = SplitHalves(mlp.dense_h_to_4h)  # type: ignore[assignment]
    parts = {f"parameters/{name}": parameter.detach() for name, parameter in split.named_parameters()}
    with warnings.catch_warnings():  # torch wonders whether one process is what is meant: it is
        warnings.simplefilter("ignore", UserWarning)
        load(parts, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    weights = {name.removeprefix("parameters/"): tensor for name, tensor in parts.items()}
    model.load_state_dict(with_whole_matrices(weights))
    return model
