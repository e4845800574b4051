"""Kernels run the code that stands in their files, and are compiled once."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CALLER = """
from glm_data.kernels import compiled
from {package} import settings
from {package}.{callee} import (
    FACTOR,
    twice,
)

@compiled
def scaled(value):
    return twice(value) * FACTOR
"""
CALLEE = """
from glm_data.kernels import compiled

FACTOR = {factor}

@compiled
def twice(value):
    return value * {times}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of two kernels, of which ``caller`` calls the one in ``callee``."""
    folder = tmp_path / "made_of_kernels"
    folder.mkdir()
    for name in ("__init__", "settings"):
        (folder / f"{name}.py").write_text("")
    (folder / "caller.py").write_text(CALLER.format(package=folder.name, callee="callee"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions of a file within a second look the same to it
    yield folder
    forget(folder.name)


def forget(package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def caller(folder: Path, times: int, factor: int) -> ModuleType:
    """The module as a new process would import it, with a callee of these numbers."""
    from glm_data import kernels

    (folder / "callee.py").write_text(CALLEE.format(times=times, factor=factor))
    forget(folder.name)
    importlib.invalidate_caches()
    kernels.drop_stale.cache_clear()
    return importlib.import_module(f"{folder.name}.caller")


def test_a_kernel_follows_the_files_that_it_calls(package: Path) -> None:
    first = caller(package, times=2, factor=10)
    assert first.scaled(7) == 140
    again = caller(package, times=2, factor=10)
    assert again.scaled(7) == 140
    assert sum(again.scaled.stats.cache_hits.values()) == 1, "what has not changed is not compiled again"
    changed = caller(package, times=3, factor=10)
    assert changed.scaled(7) == 210
    assert not changed.scaled.stats.cache_hits
    assert caller(package, times=3, factor=100).scaled(7) == 2100


def test_without_a_place_to_write_kernels_run(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, data: bytes) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert caller(package, times=4, factor=1).scaled(7) == 28


def test_every_kernel_is_made_by_the_decorators() -> None:
    """Those that numba inlines into its callers by itself have no code of their own to be kept."""
    root = Path(__file__).parents[1]
    for path in [*root.glob("glm_data/**/*.py"), *root.glob("tokenizer/*.py")]:
        text = path.read_text(encoding="utf-8")
        if path.name != "kernels.py" or path.parent.name != "glm_data":
            assert "njit(" not in re.sub(r'njit\([^)]*inline="always"\)', "", text), path
