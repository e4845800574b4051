"""Checkpoints: weights, optimiser moments and the run's state in one safetensors file, written whole or not at all.

::

    checkpoints/step-00000100.safetensors
        parameters/<name>                                        float32, as they are in memory
        exp_avg/<name>, exp_avg_sq/<name> or momentum/<name>
        metadata "state"                                         JSON of :class:`RunState`

No pickle, and nothing else is needed: order, schedule and dropout are functions of the step, so a resumed run makes
bit for bit the steps that an undisturbed one makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glm_data import files
from glm_data.training.guard import Guard
from glm_data.training.precision import LossScale

FOLDER = "checkpoints"


class RunState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run must know to go on, besides tensors."""

    key: str
    """The stage's key: a checkpoint of other options or rows is not taken up."""
    step: int
    """Steps done, those left out included."""
    left_out: int
    """Steps that the guard left out."""
    metrics_bytes: int
    """Length of metrics.jsonl at that moment; what lies beyond was written by steps that are done again."""
    spikes_bytes: int
    loss_tokens: int
    nats: dict[str, float]
    """Sums since the last line of metrics.jsonl."""
    tokens: dict[str, int]
    guard: Guard
    scale: LossScale | None = None


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], state: RunState, keep: int) -> None:
    """Write the checkpoint of ``state.step``, then delete all but the newest ``keep``."""
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with files.atomic_path(folder / f"step-{state.step:08d}.safetensors") as temporary:
        save_file(contiguous, temporary, metadata={"state": msgspec.json.encode(state, order="sorted").decode()})
    for old in find_checkpoints(folder)[keep:]:
        old.unlink()


def find_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in ``folder``, the newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)


def load_newest(folder: Path, key: str) -> tuple[RunState, dict[str, Tensor]] | None:
    """State and tensors of the newest sound checkpoint of the run ``key``; None if there is none."""
    for path in find_checkpoints(folder):
        found = _load(path, key)
        if found is not None:
            return found
    return None


def _load(path: Path, key: str) -> tuple[RunState, dict[str, Tensor]] | None:
    try:
        with safe_open(path, framework="pt") as handle:
            state = msgspec.json.decode(handle.metadata()["state"], type=RunState)
            if state.key != key:
                return None
            return state, {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, msgspec.DecodeError, KeyError, TypeError, OSError):
        return None  # damaged: an older one may be sound
