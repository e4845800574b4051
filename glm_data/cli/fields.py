"""A command's options out of a room's option struct, and the struct back out of what was given."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from glm_data.config import Option, from_flags, option_value, option_words, options

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
ConfigT = TypeVar("ConfigT", bound=msgspec.Struct)


class _Folder(click.Path):
    """A folder, of which click's own words for a file would be that a directory is a file."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a usage error for a file, or where there must be something and is nothing."""
        if Path(value).is_file():
            self.fail(f"'{value}' is a file; give a folder.", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = _Folder(file_okay=False, path_type=Path)
OPTIONS = Path(__file__).with_name("options.json")
_KINDS = {kind.__name__: kind for kind in (bool, int, float, str)}
EXISTING_FOLDER = _Folder(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where the model runs: cpu, cuda, or one GPU of several, as cuda:1.",
)


def config_options(kind: type[msgspec.Struct]) -> Callable[[FunctionT], FunctionT]:
    """Decorate a command with one option a field of ``kind``; what is not given arrives as None or ``()``."""

    def decorate(function: FunctionT) -> FunctionT:
        for option in reversed(options(kind)):
            function = _click_option(option)(function)
        return function

    return decorate


def listed_options(name: str) -> Callable[[FunctionT], FunctionT]:
    """Decorate a command with the options of a stage, of ``runner`` or of ``export``; no room is imported for it.

    They are listed in ``options.json``, which ``make docs`` writes from the structs and a test holds to them: importing
    Arrow and compiled kernels takes most of a second, also where the answer is ``--help`` or a typing error.
    """

    def decorate(function: FunctionT) -> FunctionT:
        for option in reversed(_listed()[name]):
            function = _click_option(option)(function)
        return function

    return decorate


@functools.cache
def _listed() -> dict[str, list[Option]]:
    listed = json.loads(OPTIONS.read_text(encoding="utf-8"))
    return {name: [_read_option(item) for item in items] for name, items in listed.items()}


def _read_option(item: dict[str, Any]) -> Option:
    tuples = {name: tuple(value) for name, value in item.items() if isinstance(value, list)}
    default = {} if "default" in item else {"default": msgspec.NODEFAULT}
    return Option(**{**item, **tuples, **default, "kind": _KINDS[item["kind"]]})


def write_options(kinds: Mapping[str, type[msgspec.Struct]]) -> bytes:
    """The bytes of ``options.json`` for structs by name."""
    told: dict[str, list[dict[str, Any]]] = {}
    for name, kind in kinds.items():
        told[name] = []
        for option in options(kind):
            item = {**vars(option), "kind": option.kind.__name__}
            if option.required:
                del item["default"]
            told[name].append(item)
    return (json.dumps(told, ensure_ascii=False, indent=1) + "\n").encode()


def _click_option(option: Option) -> Callable[[FunctionT], FunctionT]:
    names = [f"{option.flag}/--no-{option.flag[2:]}"] if option.kind is bool else [option.flag]
    kind: Any = click.Choice(option.choices) if option.choices else option.kind
    return click.option(
        *names,
        option.name,
        type=None if option.kind is bool else kind,
        default=None,
        multiple=option.many,
        metavar=_entry_form(option),
        help=_help(option),
    )


def _entry_form(option: Option) -> str | None:
    """How an entry of a mapping is written."""
    if not option.entries:
        return None
    return "NAME=NUMBER" if option.entries == ("",) else f"NAME={{{'|'.join(option.entries)}}}:NUMBER"


def _help(option: Option) -> str:
    text = option.help or option.name.replace("_", " ")
    if option.required:
        return f"{text}  [required]"
    default = option.default
    if default in (None, "", ()):
        return text
    shown = ", ".join(map(str, default)) if option.many else default
    return f"{text}  [default: {'on' if shown is True else 'off' if shown is False else shown}]"


def build(kind: type[ConfigT], given: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> ConfigT:
    """Build ``kind`` from the options given on the command line over ``base`` (a recipe's section).

    ``given`` may hold more than the fields of ``kind``; raises :class:`ConfigError` in terms of the flags.
    """
    values = dict(base or {})
    for option in options(kind):
        value = given.get(option.name)
        if value is not None and value != ():
            values[option.name] = option_value(option, value)
    return from_flags(values, kind)


def flags(config: msgspec.Struct) -> list[str] | None:
    """The command-line arguments that say what ``config`` says, defaults left out; None where flags cannot."""
    said = msgspec.to_builtins(config)
    known = {option.name: option for option in options(type(config))}
    arguments: list[str] = []
    for field in msgspec.structs.fields(type(config)):
        value = said[field.name]
        if value == _default(field):
            continue
        if field.name not in known or value is None:
            return None
        arguments += _arguments(known[field.name], value)
    return arguments


def _default(field: Any) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.to_builtins(field.default_factory())
    return msgspec.to_builtins(field.default) if field.default is not msgspec.NODEFAULT else field.default


def _arguments(option: Option, value: Any) -> list[str]:
    if option.kind is bool:
        return [option.flag if value else f"--no-{option.flag[2:]}"]
    return [argument for word in option_words(option, value) for argument in (option.flag, word)]
