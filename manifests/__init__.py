"""Recipes as data, and the input of the demo: files that ship with the package, found by :func:`path`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_NO_RECIPES = ("evaluation", "mip-")


def path(name: str) -> Path:
    """The path of a bundled file or folder, such as ``demo.yaml``; ``FileNotFoundError`` lists what there is."""
    root = Path(str(resources.files(__name__)))
    found = root / name
    if not found.resolve().is_relative_to(root.resolve()) or not found.exists():
        raise FileNotFoundError(f"no bundled file '{name}'; there are: {', '.join(names())}")
    return found


def names() -> tuple[str, ...]:
    """The bundled recipes, as ``glm-data run`` takes them: file names without ``.yaml``."""
    root = Path(str(resources.files(__name__)))
    return tuple(sorted(file.stem for file in root.glob("*.yaml") if not file.stem.startswith(_NO_RECIPES)))


def mixtures() -> tuple[str, ...]:
    """The bundled mixtures of instruction data: file names without ``.yaml``."""
    root = Path(str(resources.files(__name__)))
    return tuple(sorted(file.stem for file in root.glob("mip-*.yaml")))
