"""Reading a checkpoint's parts: tensors and nothing else, mapped into memory and not read before they are used.

Such files are pickles. They go through torch's restricted reader, which makes tensors and plain containers and refuses
any other object before it exists; there is no way around it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glm_data.errors import InputError, UsageError
from glm_data.megatron.layout import FREQUENCIES, our_name

PART = "mp_rank_{:02d}_model_states.pt"
_PART = re.compile(r"mp_rank_(\d+)_model_states\.pt")
POINTERS = ("latest", "latest_checkpointed_iteration.txt")
_FOLDER = re.compile(r"[\w][\w.-]*")


def find_parts(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint, by rank: of a folder with ``mp_rank_*`` files, or one above that says in ``latest``
    which; a single file is a checkpoint of one part. Raises :class:`InputError` if there are none or some are missing.
    """
    if checkpoint.is_file():
        return [checkpoint]
    folder = _newest(checkpoint)
    ranks = {int(match[1]): path for path in folder.glob("mp_rank_*") if (match := _PART.fullmatch(path.name))}
    if not ranks:
        raise UsageError(f"'{folder}' holds no '{PART.format(0)}'; give the folder of a checkpoint's parts.")
    missing = sorted(set(range(max(ranks) + 1)) - set(ranks))
    if missing:
        raise InputError(f"'{folder}' has no '{PART.format(missing[0])}', but later parts; fetch all of them.")
    return [ranks[rank] for rank in sorted(ranks)]


def _newest(checkpoint: Path) -> Path:
    pointer = next((checkpoint / name for name in POINTERS if (checkpoint / name).is_file()), None)
    if pointer is None:
        return checkpoint
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if not _FOLDER.fullmatch(name) or not (checkpoint / name).is_dir():
        raise InputError(f"'{pointer}' names the folder {name[:40]!r}, which is not there; give that of the parts.")
    return checkpoint / name


class Parts:
    """The tensors of a checkpoint by our names, each as its parts by rank; ``frequencies`` of a rotary table if any."""

    def __init__(self, paths: Sequence[Path]) -> None:
        read = [_read(path) for path in paths]
        self.frequencies = next((len(t) for n, t in read[0].items() if n.endswith(FREQUENCIES)), 0)
        weights = [{our_name(n): t for n, t in part.items() if not n.endswith(FREQUENCIES)} for part in read]
        for path, part in zip(paths, weights, strict=True):
            different = sorted(set(part) ^ set(weights[0]))
            if different:
                raise InputError(f"'{path}' and '{paths[0].name}' differ in '{different[0]}'; give parts of one model.")
        self.tensors = {name: [part[name] for part in weights] for name in sorted(weights[0])}
        self.number = len(paths)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (FileNotFoundError, PermissionError) as error:
        raise InputError(f"'{path}' cannot be read ({error}).") from None
    except Exception as error:  # of the reader's own types: damaged, of an old format, or with other objects in it
        raise InputError(_refusal(path, str(error))) from None
    tensors = content.get("module", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()) or not tensors:
        raise InputError(f"'{path}' is no checkpoint: it holds no mapping of names to tensors (as its 'module').")
    return {str(name): tensor for name, tensor in tensors.items()}


def _refusal(path: Path, error: str) -> str:
    other = re.search(r"GLOBAL ([\w.]+)", error)
    if other:
        return (
            f"'{path}' holds objects besides tensors ({other[1]}), which could run code when read; where you trust it, "
            "save its 'module' alone and import that."
        )
    if "_use_new_zipfile_serialization" in error:
        return (
            f"'{path}' is damaged, cut short or no file of torch 1.6 or newer; fetch it again, or save an older one "
            "anew with such a torch."
        )
    return f"'{path}' is damaged or no torch file ({error.strip().splitlines()[0].partition('. ')[0]}); fetch it again."
