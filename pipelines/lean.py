"""What no stage needs, but its libraries import wherever it is installed, is left out by our own commands.

pyarrow asks pandas what an array is, and Apache Beam brings its connectors to BigQuery and MongoDB: a fifth of the
start of a stage. They are optional to those libraries. Once Beam is there everything can be imported again.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_SPARED = ("apache_beam.io.gcp.bigquery", "pandas", "pymongo")


class _Refusal:
    """A finder of modules that says of these that they are not installed; data sets cannot do without pandas."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in _SPARED and "datasets" not in sys.modules:
            raise ModuleNotFoundError(f"'{name}' is left out by {__name__}", name=name)


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Leave them out within the block, until :func:`end_lean_imports`; for a program that is all ours."""
    sys.meta_path.insert(0, _Refusal())
    try:
        yield
    finally:
        end_lean_imports()


def end_lean_imports() -> None:
    """Let everything be imported again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Refusal)]
