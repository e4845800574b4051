"""Checkpoints: parameters, optimiser moments and the run's state in one safetensors file, written whole or not at all.

::

    checkpoints/step-00000100.safetensors
        parameters/<name>                                        float32, as they are in memory
        exp_avg/<name>, exp_avg_sq/<name> or momentum/<name>
        metadata "state"                                         JSON of :class:`RunState`

No pickle, and nothing else is needed: order, schedule and dropout are functions of the step, so a resumed run makes
bit for bit the steps that an undisturbed one makes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from glm_data import files
from glm_data.model.model import GLM
from glm_data.training.optimizer import Optimizers

FOLDER = "checkpoints"


class RunState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run must know to go on, besides tensors."""

    key: str
    """The stage's key: a checkpoint of other options or rows is not taken up."""
    step: int
    """Steps done."""
    metrics_bytes: int
    """Length of metrics.jsonl at that moment; what lies beyond was written by steps that are done again."""
    loss_tokens: int
    nats: dict[str, float]
    """Sums since the last line of metrics.jsonl."""
    tokens: dict[str, int]


def save_checkpoint(folder: Path, model: GLM, optimizers: Optimizers, state: RunState, keep: int) -> None:
    """Write the checkpoint of ``state.step``, then delete all but the newest ``keep``."""
    tensors = {f"parameters/{name}": parameter.detach() for name, parameter in model.named_parameters()}
    tensors |= optimizers.tensors()
    with files.atomic_path(folder / f"step-{state.step:08d}.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"state": msgspec.json.encode(state, order="sorted").decode()})
    for old in find_checkpoints(folder)[keep:]:
        old.unlink()


def find_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, the newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def load_newest(folder: Path, key: str, model: GLM, optimizers: Optimizers) -> RunState | None:
    """Put the newest sound checkpoint of the run ``key`` into model and optimisers; None if there is none."""
    for path in find_checkpoints(folder):
        state = _load(path, key, model, optimizers)
        if state is not None:
            return state
    return None


def _load(path: Path, key: str, model: GLM, optimizers: Optimizers) -> RunState | None:
    try:
        with safe_open(path, framework="pt") as handle:
            state = msgspec.json.decode(handle.metadata()["state"], type=RunState)
            if state.key != key:
                return None
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, msgspec.DecodeError, KeyError, TypeError, OSError):
        return None  # damaged: an older one may be sound
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"parameters/{name}"])
    optimizers.load(tensors, state.step)
    return state
