"""Where the value of each option of a stage comes from: the command line, a recipe, a default, or the inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.report.text import flatten

ORIGIN = "origin.json"
"""In a stage's ``_run/``: what its last command gave, see :class:`Origin`."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The names of a stage's options: all, those that a recipe's section gives, and those given as flags."""

    fields: tuple[str, ...]
    section: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    recipe: str = ""


def write_origin(folder: Path, origin: Origin) -> None:
    """Keep what the command that ran a stage was given; nothing but a report depends on it."""
    files.write_if_new(folder / ORIGIN, files.json_bytes(origin))


def where_from(path: Path, options: Mapping[str, Any]) -> list[dict[str, str]]:
    """The options of a plan as lines: ``option``, ``value``, and ``origin``.

    An origin is ``command line``, ``recipe``, ``default``, ``derived`` (of a plan's own entries, such as the digest of
    a list), or empty where the stage was not run by a command of ours.
    """
    origin = None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        origin = files.read_json(path, Origin)
    return [
        {"option": option, "value": value, "origin": _origin(_names(option), origin) if origin else ""}
        for option, value in flatten(options)
        if option
    ]


def _names(option: str) -> Iterable[str]:
    """The names that an entry of a plan may have as an option: ``options.format`` is ``format``."""
    words = option.replace("[", ".").split(".")
    return words[:2] if words[0] == "options" else words[:1]


def _origin(names: Iterable[str], origin: Origin) -> str:
    for given, said in ((origin.flags, "command line"), (origin.section, "recipe"), (origin.fields, "default")):
        if any(name in given for name in names):
            return said
    return "derived"
