"""From a row and a template to a prompt and its target.

The semantics are promptsource's: choices are rendered first and handed to the body as ``answer_choices``; the body is
split at ``|||`` and its two parts are stripped; one part means that the template does not apply to the row. Different
on purpose: nothing is truncated, templates are compiled once, random choices are seeded by (seed, data set, template,
row), a ``|||`` inside nested values is protected as well, and a hidden label (-1) gives no output.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jinja2

from glm_data.mip import dialect
from glm_data.mip.rows import HIDDEN, PROTECTED, prepare_row
from glm_data.mip.sandbox import (
    DEFAULT_LONGEST_OUTPUT,
    DEFAULT_MOST_STEPS,
    HiddenLabelError,
    LimitError,
    TemplateEnvironment,
)
from glm_data.mip.templates import SEPARATOR, Template, TemplateError, is_text

Reason = Literal["not_applicable", "empty_prompt", "empty_target", "hidden_label", "over_limit", "error"]


class Rendered(NamedTuple):
    """A sample: what is asked and what is to be answered."""

    prompt: str
    target: str
    choices: tuple[str, ...] | None
    """The answer choices, if the template has any."""


class Refused(NamedTuple):
    """Why a template gave nothing for a row."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class _Compiled:
    template: Template
    body: jinja2.Template
    choices: jinja2.Template | None
    constant_choices: tuple[str, ...] | None
    reads: frozenset[str]
    mutates: bool
    choices_key: str
    """The source of the choices; with the template's id, if they are random."""
    key: str
    """Seed, data set and template, as a prefix of the key of its random choices."""


class Renderer:
    """All templates of a data set, checked and compiled once; not for several threads at a time.

    ``where`` begins error messages. Raises :class:`TemplateError` if a template is not of the dialect.
    """

    def __init__(
        self,
        templates: Iterable[Template],
        *,
        dataset: str,
        subset: str | None = None,
        seed: int = 0,
        label: str = "label",
        most_steps: int = DEFAULT_MOST_STEPS,
        longest_output: int = DEFAULT_LONGEST_OUTPUT,
        where: str = "",
    ) -> None:
        self._environment = TemplateEnvironment(most_steps, longest_output)
        self._label = label
        self._key = f"{seed}\0{dataset}\0{subset or ''}\0"
        self._where = f"{where}: " if where else ""
        self._compiled = [self._compile(template) for template in templates]
        self._choices: dict[str, tuple[str, ...]] = {}
        self._choices_row: Mapping[str, Any] | None = None

    @property
    def templates(self) -> tuple[Template, ...]:
        """The templates, in the order of :meth:`render`'s ``place``."""
        return tuple(compiled.template for compiled in self._compiled)

    def render(self, place: int, row: Mapping[str, Any], number: int) -> Rendered | Refused:
        """Render template number ``place`` with a row as :class:`~glm_data.mip.rows.RowMap` makes it.

        ``number`` is the row's own, on which random choices depend.
        """
        compiled = self._compiled[place]
        if self._label in compiled.reads and _is_hidden(row.get(self._label)):
            return Refused("hidden_label")
        try:
            return self._render(compiled, row, number)
        except HiddenLabelError:
            return Refused("hidden_label")
        except LimitError as error:
            return Refused("over_limit", str(error))
        except Exception as error:
            return Refused("error", f"{type(error).__name__}: {error}")

    def _render(self, compiled: _Compiled, row: Mapping[str, Any], number: int) -> Rendered | Refused:
        if "answer_choices" in row:
            return Refused("error", "the row has a field 'answer_choices', which templates use for their own choices")
        values = dict(copy.deepcopy(row) if compiled.mutates else row)
        choices = compiled.constant_choices
        if compiled.choices is not None:
            choices = self._row_choices(compiled, compiled.choices, row, number)
        if choices is not None:
            values["answer_choices"] = list(choices)
        text = self._environment.run(compiled.body, values, f"{compiled.key}{number}")
        return _finish(text.split(SEPARATOR), choices)

    def _row_choices(
        self, compiled: _Compiled, source: jinja2.Template, row: Mapping[str, Any], number: int
    ) -> tuple[str, ...]:
        """The row's answer choices; templates of a data set often share them, so they are kept until the next row."""
        if self._choices_row is not row:
            self._choices_row, self._choices = row, {}
        key = compiled.choices_key
        if key not in self._choices:
            values = copy.deepcopy(row) if compiled.mutates else row
            self._choices[key] = _split(self._environment.run(source, values, f"{compiled.key}{number}\0choices"))
        return self._choices[key]

    def _compile(self, template: Template) -> _Compiled:
        where = f"{self._where}template '{template.name}'"
        checked = dialect.check(template.jinja, where)
        body = self._environment.compile_checked(checked, where)
        choices, constant, source = None, None, template.answer_choices
        choices_key = source or ""
        reads, mutates = checked.variables, checked.mutates
        if source is not None:
            where = f"{where}, answer choices"
            checked_choices = dialect.check(source, where)
            choices = self._environment.compile_checked(checked_choices, where)
            reads, mutates = reads | checked_choices.variables, mutates or checked_choices.mutates
            choices_key += template.id if checked_choices.is_random else ""
            if not checked_choices.variables and not checked_choices.is_random:
                constant, choices = self._constant(choices, where), None
        key = f"{self._key}{template.id}\0"
        return _Compiled(template, body, choices, constant, reads, mutates, choices_key, key)

    def _constant(self, choices: jinja2.Template, where: str) -> tuple[str, ...]:
        try:
            return _split(self._environment.run(choices, {}, ""))
        except Exception as error:
            raise TemplateError(f"{where}: cannot be rendered ({error}).") from None


def render_row(template: Template, row: Mapping[str, Any], **about: Any) -> Rendered | Refused:
    """Render one template on one raw row, as the stage would; ``about`` as in :func:`render_prepared`."""
    return render_prepared(template, prepare_row(row), **about)


def render_prepared(
    template: Template,
    row: Mapping[str, Any],
    *,
    dataset: str = "",
    subset: str | None = None,
    number: int = 0,
    seed: int = 0,
    label: str = "label",
) -> Rendered | Refused:
    """Render one template on one row that a :class:`~glm_data.mip.rows.RowMap` made: what viewers and shells need.

    Raises :class:`TemplateError` if the template is not of the dialect.
    """
    renderer = Renderer([template], dataset=dataset, subset=subset, seed=seed, label=label)
    return renderer.render(0, row, number)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(SEPARATOR))


def _finish(parts: list[str], choices: tuple[str, ...] | None) -> Rendered | Refused:
    if len(parts) == 1:
        return Refused("not_applicable")
    if len(parts) > 2:
        return Refused("error", f"'{SEPARATOR}' stands {len(parts) - 1} times; there must be a prompt and a target")
    prompt, target = (part.strip().replace(PROTECTED, SEPARATOR) for part in parts)
    if not target:
        return Refused("empty_target")
    if not prompt:
        return Refused("empty_prompt")
    if not (is_text(prompt) and is_text(target)):
        return Refused("error", "the text holds half of a surrogate pair, which is no character")
    unprotected = None if choices is None else tuple(choice.replace(PROTECTED, SEPARATOR) for choice in choices)
    return Rendered(prompt, target, unprotected)


def _is_hidden(value: Any) -> bool:
    return isinstance(value, int | float) and value == HIDDEN
