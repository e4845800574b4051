"""The ``glm-data`` command: one file a sub-command, imported when it is called.

``shell`` knows the commands by name and turns every outcome into an exit code; ``fields`` builds a command's options
from a room's option struct; ``output`` holds ``--json``, ``--quiet`` and the tables; ``progress`` follows a stage's
folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

_ALLOCATIONS = 10_000
"""New objects between two looks for garbage: Python's 700 make a tenth of a stage's start, in which none arises."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run ``glm-data`` with ``argv`` (default: the process's arguments) and exit with its code."""
    import gc
    import sys

    from glm_data.cli.shell import run

    gc.set_threshold(_ALLOCATIONS)
    sys.exit(run(argv))
