"""Prompt templates in promptsource's file format, read into strict types.

::

    dataset: ag_news                       subset: … (optional)
    templates:
      <uuid>: !Template
        answer_choices: World ||| Sports   # Jinja or null; becomes the variable answer_choices, a list
        id: <uuid>                         # the key again
        jinja: "{{text}} … ||| {{answer_choices[label]}}"      # prompt ||| target
        metadata: !TemplateMetadata {choices_in_prompt, languages, metrics, original_task}
        name: …                            # unique in the file
        reference: …

Of our own, and optional: ``metadata.task`` (type of task) and ``metadata.version``. ``languages`` are the prompt's.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec
import yaml

from glm_data.errors import ConfigError, UsageError, did_you_mean

SEPARATOR = "|||"
"""Between prompt and target, and between answer choices."""


class TemplateError(UsageError):
    """A template that cannot be used; the message names it and says why."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a template says about itself."""

    languages: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    task: str = ""
    version: str = ""


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One template as written."""

    id: str
    name: str
    jinja: str
    answer_choices: str | None = None
    reference: str = ""
    metadata: Metadata = Metadata()
    task_template: bool | None = None
    """A stray field of a few published templates; nothing reads it."""


class TemplateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All templates of one data set, or of one subset of it."""

    dataset: str
    subset: str | None = None
    templates: dict[str, Template]


def read_templates(path: Path) -> TemplateFile:
    """Read a ``templates.yaml``; raises :class:`ConfigError` naming the place of what does not fit."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader())  # noqa: S506 - a SafeLoader
        file = msgspec.convert(values, TemplateFile, strict=True)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read ({error.strerror}); give a templates.yaml file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"'{path}' is not valid YAML ({' '.join(str(error).split())}).") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"'{path}' does not fit the template format: {error}.") from None
    _check(file, path)
    return file


def _check(file: TemplateFile, path: Path) -> None:
    names: set[str] = set()
    for key, template in file.templates.items():
        if key != template.id:
            raise ConfigError(f"'{path}': the template under key {key} has the id {template.id}; make them equal.")
        if template.name in names:
            raise ConfigError(f"'{path}': two templates are named '{template.name}'; rename one.")
        names.add(template.name)


def without(file: TemplateFile, blocked: tuple[str, ...], path: Path) -> tuple[Template, ...]:
    """The file's templates but those whose id or name is in ``blocked``, in order of id.

    A blocked name that the file does not have is a :class:`ConfigError`: a misspelt ban must not pass for one.
    """
    known = {template.id for template in file.templates.values()} | {item.name for item in file.templates.values()}
    for name in blocked:
        if name not in known:
            raise ConfigError(f"'{path}' has no template '{name}' to exclude.{did_you_mean(name, known)}")
    kept = (item for item in file.templates.values() if item.id not in blocked and item.name not in blocked)
    return tuple(sorted(kept, key=lambda item: item.id))


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """Safe, with promptsource's two tags as plain mappings and no key twice."""

    def mapping(loader: Any, node: yaml.Node) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "a mapping is expected here", node.start_mark)
        keys = [key.value for key, _ in node.value]
        doubled = next((key for key in keys if keys.count(key) > 1), None)
        if doubled is not None:
            raise yaml.constructor.ConstructorError(None, None, f"key '{doubled}' twice", node.start_mark)
        made: dict[Any, Any] = loader.construct_mapping(node, deep=True)
        return made

    for tag in ("!Template", "!TemplateMetadata", yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG):
        Loader.add_constructor(tag, mapping)
    return Loader
