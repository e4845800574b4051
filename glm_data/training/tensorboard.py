"""A run's figures as TensorBoard reads them: events in ``_run/tensorboard``, one scalar for each number of a line.

The events say what ``metrics.jsonl`` and ``training.jsonl`` say and are made of them: a run that goes on writes them
anew up to where it goes on from, so that no step stands there twice, whenever the option was first given.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glm_data.errors import MissingExtraError

FOLDER = "tensorboard"


def require_tensorboard() -> None:
    """Raise :class:`MissingExtraError` if torch's writer lacks the package that knows the format."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "'tensorboard' is not installed: --tensorboard needs the extra of that name: "
            "pip install 'glm-data[tensorboard]'"
        ) from None


class Events:
    """Writes events into ``folder/tensorboard``, beginning with the ``lines`` there are."""

    def __init__(self, folder: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / FOLDER))
        for line in lines:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a line at its ``step``, and the file out, for who is looking."""
        for name, value in line.items():
            if name not in ("step", "steps") and value is not None:
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
