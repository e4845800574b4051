"""Prompt templates in promptsource's file format and a superset of it, read into strict types.

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

Of our own, and all of it optional (tags and ``id`` may be left out)::

    task: sentiment                        # in place of dataset: a pack, for any data set with its fields
    language: zh-Hans                      # of the prompts; also metadata.languages of one template
    version: "1"                           # also metadata.version
    fields: {text: a review, label: …}     # what the templates read, for people and for `glm-data mip lint`
    examples: [{text: …, label: 1}]        # rows to try them on
    few_shot: {query: "Q: ", answer: "\nA: ", example: "\n\n"}      # also metadata.few_shot
    blocked: {<name or id>: <reason>}      # templates that are not to be used
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from glm_data.errors import ConfigError, UsageError, did_you_mean

SEPARATOR = "|||"
"""Between prompt and target, and between answer choices."""

PACK = "pack:"
"""Begins the name of a bundled pack, ``pack:zh/sentiment``."""


_MOST_VALUES = 1_000_000


class TemplateError(UsageError):
    """A template that cannot be used; the message names it and says why."""


class Separators(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands around worked examples: ``query`` prompt ``answer`` target ``example`` ``query`` prompt …"""

    query: str = ""
    answer: str = "\n"
    example: str = "\n\n"


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a template says about itself."""

    languages: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    original_task: bool | None = None
    choices_in_prompt: bool | None = None
    task: str = ""
    version: str = ""
    few_shot: Separators | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One template as written, what its file says for all of them filled in."""

    id: str = ""
    name: str
    jinja: str
    answer_choices: str | None = None
    reference: str = ""
    metadata: Metadata = Metadata()
    task_template: bool | None = None
    """A stray field of a few published templates; nothing reads it."""

    @property
    def language(self) -> str:
        """The prompt's language, the first if several are named."""
        return next(iter(self.metadata.languages), "")

    @property
    def shows_choices(self) -> bool:
        """Whether the prompt lists the answer choices, or may: many templates do not say."""
        return self.metadata.choices_in_prompt is not False or "answer_choices" in self.jinja.partition(SEPARATOR)[0]

    @property
    def answers_by_choice(self) -> bool:
        """Whether the target is made of the answer choices (some templates only mention them in the prompt)."""
        return "answer_choices" in self.jinja.partition(SEPARATOR)[2]


class TemplateFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All templates of one data set or a subset of it, or a pack for a kind of task."""

    dataset: str = ""
    subset: str | None = None
    task: str = ""
    language: str = ""
    version: str = ""
    few_shot: Separators | None = None
    fields: dict[str, str] = {}
    examples: tuple[dict[str, Any], ...] = ()
    blocked: dict[str, str] = {}
    templates: dict[str, Template]

    @property
    def whole_name(self) -> str:
        """``dataset`` or ``dataset/subset``; of a pack its task."""
        return "/".join(part for part in (self.dataset, self.subset) if part) or self.task


def read_templates(path: Path) -> TemplateFile:
    """Read a template file; raises :class:`ConfigError` naming the place of what does not fit."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _loader())  # noqa: S506 - a SafeLoader
        _check_values(values, path)
        file = msgspec.convert(values, TemplateFile, strict=True)
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read ({error.strerror}); give a templates.yaml file.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"'{path}' is not valid YAML ({' '.join(str(error).split())}).") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"'{path}' does not fit the template format: {error}.") from None
    _check(file, path)
    templates = {key: _filled(key, template, file) for key, template in file.templates.items()}
    return msgspec.structs.replace(file, templates=templates)


def _check_values(values: Any, path: Path) -> None:
    """Refuse what a few lines of aliases can make of a file, and text that no file could hold."""
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ConfigError(f"'{path}' holds more than {_MOST_VALUES:,} values, aliases followed; split it.")
        if isinstance(value, str) and not is_text(value):
            raise ConfigError(f"'{path}' holds half of a surrogate pair, which is no character; remove it.")
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def is_text(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: a string of Python may hold halves of surrogate pairs."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _filled(key: str, template: Template, file: TemplateFile) -> Template:
    """The template with its id, and with what the file says of all its templates."""
    said = template.metadata
    metadata = msgspec.structs.replace(
        said,
        languages=said.languages or ((file.language,) if file.language else ()),
        task=said.task or file.task,
        version=said.version or file.version,
        few_shot=said.few_shot or file.few_shot,
    )
    return msgspec.structs.replace(template, id=key, metadata=metadata)


def find_templates(given: str, base: Path, name: str = "", subset: str | None = None) -> Path:
    """The template file that ``given`` names: a bundled pack (``pack:zh/sentiment``), a file, or a folder that holds
    ``<name>[/<subset>]/templates.yaml``; paths are relative to ``base``. Whether it is there is left to the reader,
    but an unknown pack is a :class:`ConfigError`.
    """
    if given.startswith(PACK):
        import manifests

        known = packs()
        wanted = given.removeprefix(PACK)
        if wanted not in known:
            hint = did_you_mean(wanted, known) or f" Packs: {', '.join(known)}."
            raise ConfigError(f"there is no pack of templates '{wanted}'.{hint}")
        return manifests.path(f"templates/{wanted}.yaml")
    path = base / given
    return path.joinpath(name, subset or "", "templates.yaml") if path.is_dir() else path


def packs() -> tuple[str, ...]:
    """The bundled packs of templates, such as ``zh/sentiment``."""
    import manifests

    root = manifests.path("templates")
    return tuple(sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")))


def _check(file: TemplateFile, path: Path) -> None:
    if bool(file.dataset) == bool(file.task):
        raise ConfigError(f"'{path}' must name either its 'dataset' or, for a pack, its 'task'.")
    names: set[str] = set()
    for key, template in file.templates.items():
        if template.id and key != template.id:
            raise ConfigError(f"'{path}': the template under key {key} has the id {template.id}; make them equal.")
        if template.name in names:
            raise ConfigError(f"'{path}': two templates are named '{template.name}'; rename one.")
        names.add(template.name)


def blocked_templates(file: TemplateFile, excluded: Mapping[str, str], path: Path) -> dict[str, str]:
    """Ids of the templates that the file's ``blocked`` or ``excluded`` (name or id -> reason) forbid, with the reason.

    A name that the file does not have is a :class:`ConfigError`: a misspelt ban must not pass for one.
    """
    ids = {key: key for key in file.templates} | {item.name: item.id for item in file.templates.values()}
    found = {}
    for name, reason in {**file.blocked, **excluded}.items():
        if name not in ids:
            raise ConfigError(f"'{path}' has no template '{name}' to block.{did_you_mean(name, ids)}")
        found[ids[name]] = reason
    return found


def usable_templates(file: TemplateFile, blocked: Mapping[str, str]) -> tuple[Template, ...]:
    """The file's templates but those whose id is in ``blocked``, in order of id."""
    return tuple(sorted((item for item in file.templates.values() if item.id not in blocked), key=lambda item: item.id))


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
