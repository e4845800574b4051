"""Options as frozen, strict structs: one schema for recipes (YAML), the command line, ``--help`` and the plan.

A field's documentation stands in its type, ``Annotated[int, Doc("…")]``, and is shown by every shell that offers it.
"""

from __future__ import annotations

import functools
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from glm_data.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import yaml


def Doc(text: str, least: float | None = None, most: float | None = None) -> msgspec.Meta:  # noqa: N802 - an annotation
    """The documentation line of a field, for use inside ``Annotated``, and the range of a number."""
    return msgspec.Meta(description=text, ge=least, le=most)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    entries: tuple[str, ...] = ()
    """Of a mapping from names to numbers, written ``NAME=NUMBER``: ``("",)``; to structs of numbers, written
    ``NAME=FIELD:NUMBER``: the fields."""

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
    annotation, inner_text = _without_annotated(annotation)
    entries = _entries(annotation)
    if entries:
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        shown = tuple(_entry_words(default)) if isinstance(default, dict) else default
        return Option(field.name, str, shown, text or inner_text, (), True, optional, entries)
    many = get_origin(annotation) is tuple and get_args(annotation)[-1] is Ellipsis
    if many:
        annotation = _without_annotated(get_args(annotation)[0])[0]
    choices: tuple[str, ...] = ()
    if get_origin(annotation) is Literal and all(isinstance(choice, str) for choice in get_args(annotation)):
        choices, annotation = get_args(annotation), str
    if annotation not in (bool, int, float, str):
        return None
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    return Option(field.name, annotation, default, text or inner_text, choices, many, optional)


def _entries(annotation: Any) -> tuple[str, ...]:
    """What a mapping's values are, for :attr:`Option.entries`; empty for anything that words cannot give."""
    if get_origin(annotation) is not dict or get_args(annotation)[0] is not str:
        return ()
    value = get_args(annotation)[1]
    if value is float:
        return ("",)
    if not (isinstance(value, type) and issubclass(value, msgspec.Struct)):
        return ()
    hints = typing.get_type_hints(value)
    return tuple(hints) if all(_without_none(hint) == (float, True) for hint in hints.values()) else ()


def _entry_words(mapping: dict[str, Any]) -> list[str]:
    """``{"zh": 0.5}`` as ``["zh=0.5"]``, ``{"books": {"epochs": 2.0}}`` as ``["books=epochs:2.0"]``."""
    words = []
    for name, value in msgspec.to_builtins(mapping).items():
        parts = value if isinstance(value, dict) else {"": value}
        words += [f"{name}={field}{':' * bool(field)}{number}" for field, number in parts.items() if number is not None]
    return words


def option_words(option: Option, value: Any) -> list[str]:
    """The words that give ``value`` on a command line, the flag itself left out."""
    if option.entries:
        return _entry_words(value)
    return [str(item) for item in (value if option.many else [value])]


def option_value(option: Option, given: Any) -> Any:
    """The plain value of what a command line gave; raises :class:`ConfigError` for an entry that cannot be read."""
    if not option.entries:
        return list(given) if option.many else given
    mapping: dict[str, Any] = {}
    for word in given:
        found = re.fullmatch(r"(.+)=(?:([a-z_]+):)?([-+0-9.eE_]+)", word)
        if not found or (found.group(2) or "") not in option.entries:
            form = " or ".join(f"NAME={field}{':' * bool(field)}NUMBER" for field in option.entries)
            raise ConfigError(f"{option.flag} '{word}' cannot be read; write {form}.")
        name, field, number = found.groups()
        try:
            amount = float(number)
        except ValueError:
            raise ConfigError(f"{option.flag} '{word}': '{number}' is no number.") from None
        if field:
            mapping.setdefault(name, {})[field] = amount
        else:
            mapping[name] = amount
    return mapping


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
    """Convert a plain mapping to ``kind``; raises :class:`ConfigError` naming ``where``, the path and the cure.

    Infinity and NaN are refused whatever the range of the option: comparisons let a NaN pass any of them.
    """
    if place := _not_finite(values):
        raise ConfigError(f"{where}: {place} is not a finite number; give one.")
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), kind)}") from None


def from_flags(values: Mapping[str, Any], kind: type[ConfigT]) -> ConfigT:
    """As :func:`from_mapping`, for options of a command line: an error names them as they are typed there."""
    try:
        return from_mapping(values, kind, "")
    except ConfigError as error:
        raise ConfigError(in_flags(str(error).removeprefix(": "), kind)) from None


def in_flags(message: str, kind: type[msgspec.Struct]) -> str:
    """An error's sentence with the fields of ``kind`` as a command line has them: ``top_p is 3`` as ``--top-p is 3``.

    A name is taken for a field where its value follows, one of a single word only where the sentence begins with it:
    elsewhere it may be any word, or a key of some file.
    """
    flags = {option.name: option.flag for option in options(kind)}
    missing = re.fullmatch(r"Object missing required field `(\w+)`\.", message)
    if missing:
        return f"the option {flags.get(missing.group(1), missing.group(1))} is missing; give it, or see --help."
    head = re.match(r"(\w+)(?= is |: | '| must | \(| -?\d)", message)
    if head and head.group() in flags:
        message = flags[head.group()] + message[head.end() :]
    return re.sub(
        r"(?<![-'\"/.\w])\w+_\w+(?= is | -?\d| \(| \S+ -> )|`\$\.(\w+)`",
        lambda found: flags.get(found.group(1) or found.group(), found.group()),
        message,
    )


def _not_finite(values: Any, place: str = "") -> str:
    """Where the first NaN or infinity among plain ``values`` stands, such as ``stages[0].lr``; empty: nowhere."""
    if isinstance(values, float):
        return "" if math.isfinite(values) else f"{place or 'the value'} ({values})"
    if isinstance(values, Mapping):
        below = ((f"{place}.{key}" if place else str(key), value) for key, value in values.items())
    elif isinstance(values, list | tuple):
        below = ((f"{place}[{number}]", value) for number, value in enumerate(values))
    else:
        return ""
    return next((found for name, value in below if (found := _not_finite(value, name))), "")


def load_yaml(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Read a YAML file into ``kind``, safely; raises :class:`ConfigError` in one sentence.

    Two differences from plain YAML 1.1: a key given twice is an error, and ``6e-4`` is a number.
    """
    import yaml

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader())  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; check the path.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a YAML file.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}).") from None
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply.") from None
    return from_mapping(values if values is not None else {}, kind, str(path))


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader, stricter about keys and wider about numbers."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader


def require_least(config: msgspec.Struct, least: int, *names: str, where: str = "") -> None:
    """Raise :class:`ConfigError` for the first of the fields ``names`` whose value is below ``least``."""
    for name in names:
        if (value := getattr(config, name)) < least:
            rule = f"be at least {least}" if least else "not be negative"
            raise ConfigError(f"{where}{name} is {value}; it must {rule}.")


def require_shares(config: msgspec.Struct, *names: str, where: str = "") -> None:
    """Raise :class:`ConfigError` for the first of the fields ``names`` that is no share: above 0 and at most 1."""
    for name in names:
        if not 0 < (value := getattr(config, name)) <= 1:
            raise ConfigError(f"{where}{name} is {value}; it is a share above 0 and not above 1.")


def to_mapping(config: msgspec.Struct) -> dict[str, Any]:
    """The plain mapping of a config, as recorded in plans."""
    mapping: dict[str, Any] = msgspec.to_builtins(config)
    return mapping


_HELD = {"str": "a text", "array": "a list", "int": "a number", "float": "a number", "bool": "one value"}
_PLAIN = {
    f"Expected `object`, got `{kind}`": f"it holds {held}, and keys with values are wanted, such as 'name: value'"
    for kind, held in _HELD.items()
}
"""For a whole file of another kind, which msgspec tells in words of JSON."""


def _explain(message: str, kind: type[msgspec.Struct]) -> str:
    """A validation message as a sentence; an unknown key gets the nearest known one at its place."""
    beyond = re.fullmatch(r"Expected `\w+` ([<>]=) ([-\d.]+) - at `(?:\$\.)?(.+)`", message)
    if beyond:
        sign, bound, place = beyond.groups()
        return f"{place} must be at {'most' if sign == '<=' else 'least'} {bound.removesuffix('.0')}."
    message = _PLAIN.get(message, message)
    unknown = re.search(r"unknown field `([^`]+)`(?: - at `([^`]+)`)?", message)
    if not unknown:
        return message + "."
    struct = _struct_at(unknown.group(2) or "$", kind)
    known = sorted(field.encode_name for field in msgspec.structs.fields(struct))
    return f"{message}.{did_you_mean(unknown.group(1), known) or ' Known keys: ' + ', '.join(known) + '.'}"


def _struct_at(place: str, kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The struct that stands at a place such as ``$.stages[0].filter`` of ``kind``."""
    for name in re.findall(r"\.([^.\[]+)", place):
        hints = typing.get_type_hints(kind)
        below = _first_struct(hints[name]) if name in hints else None
        if below is None:
            return kind
        kind = below
    return kind


def _first_struct(annotation: Any) -> type[msgspec.Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := _first_struct(part))), None)
