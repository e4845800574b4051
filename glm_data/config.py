"""Options as frozen, keyword-only structs: one schema for recipes (YAML), the command line, ``--help`` and the plan.

A field's documentation stands in its type, ``Annotated[int, Doc("…")]``, and is shown by every shell that offers it.
"""

from __future__ import annotations

import re
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml

from glm_data.errors import ConfigError, did_you_mean


def Doc(text: str) -> msgspec.Meta:  # noqa: N802 - reads as an annotation
    """The documentation line of a field, for use inside ``Annotated``."""
    return msgspec.Meta(description=text)


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all option structs: immutable, strict about types and unknown keys."""


ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)


@dataclass(frozen=True)
class Option:
    """One field of a config as a shell needs it."""

    name: str
    kind: type
    """``bool``, ``int``, ``float`` or ``str``; of its elements if ``many``."""
    default: Any
    """The default, or ``msgspec.NODEFAULT`` when the option is required."""
    help: str
    choices: tuple[str, ...] = ()
    many: bool = False
    optional: bool = False

    @property
    def flag(self) -> str:
        """The name on the command line, such as ``--mip-ratio``."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether the option has no default."""
        return self.default is msgspec.NODEFAULT


def options(kind: type[msgspec.Struct]) -> tuple[Option, ...]:
    """The fields of ``kind`` that a command line can offer (nested structs are left to recipes)."""
    hints = typing.get_type_hints(kind, include_extras=True)
    described = [_option(field, hints[field.name]) for field in msgspec.structs.fields(kind)]
    return tuple(option for option in described if option is not None)


def _option(field: Any, annotation: Any) -> Option | None:
    annotation, text = _without_annotated(annotation)
    annotation, optional = _without_none(annotation)
    many = get_origin(annotation) is tuple
    if many:
        annotation = _without_annotated(get_args(annotation)[0])[0]
    choices: tuple[str, ...] = ()
    if get_origin(annotation) is Literal:
        choices, annotation = get_args(annotation), str
    if annotation not in (bool, int, float, str):
        return None
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return Option(field.name, annotation, default, text, choices, many, optional)


def _without_annotated(annotation: Any) -> tuple[Any, str]:
    if get_origin(annotation) is not typing.Annotated:
        return annotation, ""
    inner, *extras = get_args(annotation)
    texts = [extra.description for extra in extras if isinstance(extra, msgspec.Meta) and extra.description]
    return inner, texts[0] if texts else ""


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return annotation, False


def from_mapping(values: Any, kind: type[ConfigT], where: str) -> ConfigT:
    """Convert a plain mapping to ``kind``; raises :class:`ConfigError` naming ``where``, the path and the cure."""
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), kind)}") from None


def load_yaml(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Read a YAML file into ``kind`` with the safe loader; raises :class:`ConfigError` in one sentence."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}).") from None
    return from_mapping(values if values is not None else {}, kind, str(path))


def to_mapping(config: msgspec.Struct) -> dict[str, Any]:
    """The plain mapping of a config, as recorded in plans."""
    mapping: dict[str, Any] = msgspec.to_builtins(config)
    return mapping


def _explain(message: str, kind: type[msgspec.Struct]) -> str:
    unknown = re.search(r"unknown field `([^`]+)`", message)
    if not unknown:
        return message + "."
    known = sorted(_all_field_names(kind))
    return f"{message}.{did_you_mean(unknown.group(1), known) or ' Known keys: ' + ', '.join(known) + '.'}"


def _all_field_names(kind: type[msgspec.Struct]) -> set[str]:
    names: set[str] = set()
    for name, annotation in typing.get_type_hints(kind).items():
        names.add(name)
        for part in (annotation, *get_args(annotation)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                names |= _all_field_names(part)
    return names
