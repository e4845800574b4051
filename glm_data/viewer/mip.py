"""MIP templates on real rows: rendered as they stand, or as they would be after a change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from glm_data import files
from glm_data.errors import InputError, UsageError
from glm_data.mip import DataSet, Refused, Rendered, Renderer, Template, TemplateFile, read_templates
from glm_data.mip.rows import PROTECTED
from glm_data.mip.subjects import Subject, first_rows
from glm_data.mip.templates import SEPARATOR
from glm_data.viewer.styled import Span, clip, reveal

ROWS = 500
"""Rows of a data set that are held, from its first on."""
_CHARACTERS = 20_000
_SHORTEST_VALUE = 2
"""Characters of a value that is looked for in a prompt."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a row."""

    name: str
    value: list[Span]


class RenderedView(msgspec.Struct, frozen=True, kw_only=True):
    """A row through a template: prompt and target, or why there are none."""

    number: int
    """Of the row in its file."""
    fields: list[Field]
    prompt: list[Span] = []
    """Where a value of the row stands, with the style ``value``."""
    target: list[Span] = []
    choices: list[list[Span]] = []
    reason: str = ""
    detail: str = ""


class DataSetView(msgspec.Struct, frozen=True, kw_only=True):
    """A data set with its templates."""

    key: str
    rows: int
    """That are held, at most :data:`ROWS`."""
    columns: list[str]
    templates: list[Template]
    changed: str
    """The file that changed templates are written to; empty if none was named."""


class DataSetDesk:
    """The templates and first rows of one data set of a mixture, or of a pack."""

    def __init__(self, found: Subject, save: Path | None = None) -> None:
        self.dataset: DataSet = found.dataset
        self.save = save
        self._name, self._file = found.name, found.file
        with contextlib.suppress(UsageError):  # a file that cannot be added to is only told of when it is to be
            self._file = self._saved()
        self._rows = first_rows(found, ROWS)
        if not self._rows:
            raise InputError(
                f"'{found.name}' has no rows to render templates on; give a mixture.yaml that names some, or add "
                "'examples' to the templates."
            )

    def view(self) -> DataSetView:
        """What there is to choose from."""
        names = {name: None for _, row in self._rows for name in row}
        return DataSetView(
            key=self._name,
            rows=len(self._rows),
            columns=list(names),
            templates=sorted(self._file.templates.values(), key=lambda item: item.name),
            changed=str(self.save or ""),
        )

    def render(self, template: Template, places: Sequence[int]) -> list[RenderedView]:
        """Rows by their place among those held; raises :class:`TemplateError` for a template that is not allowed."""
        dataset = self.dataset
        renderer = Renderer([template], dataset=dataset.name, subset=dataset.subset, label=dataset.label)
        return [self._render(renderer, *self._rows[place]) for place in places if 0 <= place < len(self._rows)]

    def _render(self, renderer: Renderer, number: int, row: Mapping[str, Any]) -> RenderedView:
        return view_outcome(number, row, renderer.render(0, row, number))

    def store(self, template: Template) -> Path:
        """Write the data set's templates, ``template`` among them, to the file that was named for it."""
        if self.save is None:
            raise UsageError("no file was named to write templates to; start the viewer with --save FILE.")
        self.render(template, [0])
        base = self._saved()
        if any(item.name == template.name and item.id != template.id for item in base.templates.values()):
            raise UsageError(f"another template of '{base.whole_name}' is named '{template.name}'; give another name.")
        changed = msgspec.structs.replace(base, templates={**base.templates, template.id: template})
        files.write_bytes(self.save, dump_templates(changed).encode())
        self._file = changed
        return self.save

    def _saved(self) -> TemplateFile:
        """The templates in the file to write to, or those of the data set where there is none yet.

        Raises :class:`UsageError` for a file that is something else.
        """
        if self.save is None or not self.save.exists():
            return self._file
        found = read_templates(self.save)
        if found.whole_name != self._file.whole_name:
            raise UsageError(
                f"'{self.save}' holds templates of '{found.whole_name}', not of '{self._file.whole_name}'; "
                "name another file with --save."
            )
        return found


def view_outcome(number: int, row: Mapping[str, Any], outcome: Rendered | Refused) -> RenderedView:
    """What a template made of ``row``, as templates see it, for the eye."""
    fields = [Field(name=name, value=clip(reveal(_said(value)), _CHARACTERS)) for name, value in row.items()]
    if not isinstance(outcome, Rendered):
        return RenderedView(number=number, fields=fields, reason=outcome.reason, detail=outcome.detail)
    return RenderedView(
        number=number,
        fields=fields,
        prompt=clip(mark_values(outcome.prompt, row), _CHARACTERS),
        target=clip(reveal(outcome.target), _CHARACTERS),
        choices=[reveal(choice) for choice in outcome.choices or ()],
    )


def _said(value: Any) -> str:
    """A value of a row as text; a ``|||`` in it as it was."""
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return text.replace(PROTECTED, SEPARATOR)


def mark_values(text: str, row: Mapping[str, Any]) -> list[Span]:
    """``text`` as spans; where a string of the row stands in it, with the style ``value``, long ones first."""
    values = sorted({_said(value).strip() for value in row.values() if isinstance(value, str)}, key=len, reverse=True)
    parts = [(text, False)]
    for value in values:
        if len(value) >= _SHORTEST_VALUE:
            parts = [piece for part in parts for piece in ([part] if part[1] else _cut_out(part[0], value))]
    return [span for piece, is_value in parts for span in reveal(piece, "value" if is_value else "")]


def _cut_out(text: str, value: str) -> Iterator[tuple[str, bool]]:
    before, *rest = text.split(value)
    yield before, False
    for part in rest:
        yield value, True
        yield part, False


# --- written ----------------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Safe, with promptsource's two tags."""


class _Tagged(dict[str, Any]):
    """A mapping with a tag."""

    tag = "!Template"


class _Metadata(_Tagged):
    tag = "!TemplateMetadata"


def _represent(dumper: yaml.SafeDumper, value: _Tagged) -> yaml.Node:
    return dumper.represent_mapping(value.tag, value.items())


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    """Texts of several lines as they read, where YAML can."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


for _kind in (_Tagged, _Metadata):
    _Dumper.add_representer(_kind, _represent)
_Dumper.add_representer(str, _represent_text)


def dump_templates(file: TemplateFile) -> str:
    """A template file in promptsource's format; :func:`read_templates` reads it as it was."""
    head = {name: value for name, value in msgspec.to_builtins(file).items() if value and name != "templates"}
    templates = {key: _tagged(template) for key, template in sorted(file.templates.items())}
    return yaml.dump({**head, "templates": templates}, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=110)


def _tagged(template: Template) -> _Tagged:
    """A template without what says nothing."""
    values = {name: value for name, value in msgspec.to_builtins(template).items() if value is not None}
    metadata = {name: value for name, value in values["metadata"].items() if value not in (None, "")}
    return _Tagged({**values, "metadata": _Metadata(metadata)})
