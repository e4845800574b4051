"""What is wrong, or likely wrong, with templates: by their text alone, by the columns they read, by rows.

======================  =======  ===========================================================================
check                   level    it says
======================  =======  ===========================================================================
``dialect``             error    it does not parse, or uses what the sandbox does not allow
``separator``           error    no ``|||``: there is a prompt and no target
``variables``           error    it reads a name that is no column; promptsource would print nothing there
``choices``             error    its target is made of ``answer_choices``, which it does not have
``fails``               error    it raised an error on a row, or reached a cap
``id``                  warning  the id of a data set's template is no UUID
``language``            warning  it does not say in which language it is written
``separators``          warning  several ``|||``: right only if every row meets exactly one
``duplicate``           warning  another template has the same body
``unguarded_label``     note     it takes a choice by a label without asking for -1; such rows are refused here
``random``              note     it draws at random: another seed changes its samples
``never_applies``       warning  it gave nothing on any row
``not_in_choices``      warning  its target was none of its choices
``long``                warning  most of its samples were longer than the window
======================  =======  ===========================================================================
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
from jinja2 import nodes

from glm_data.errors import did_you_mean
from glm_data.mip import dialect
from glm_data.mip.render import Refused, Rendered, Renderer
from glm_data.mip.templates import SEPARATOR, Template, TemplateError, TemplateFile
from glm_data.mip.tokens import estimate_tokens

Level = Literal["error", "warning", "note"]
_WINDOW = 512


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a check has to say about a template."""

    template: str
    """Its name."""
    check: str
    level: Level
    text: str


def lint(
    file: TemplateFile,
    columns: Collection[str] | None = None,
    rows: Sequence[tuple[int, Mapping[str, Any]]] = (),
    label: str = "label",
) -> list[Finding]:
    """Check all templates of a file, in its order.

    ``columns`` are the names that templates may read; without them those of ``rows`` or the file's ``fields``, and if
    there are none the check ``variables`` is left out. ``rows`` are numbered and as a RowMap makes them.
    """
    known = set(columns or ()) or {name for _, row in rows for name in row} or set(file.fields)
    bodies: dict[str, str] = {}
    found: list[Finding] = []
    for template in file.templates.values():
        found += _lint_text(template, file, known)
        body = " ".join(template.jinja.split())
        if body in bodies:
            found.append(_finding(template, "duplicate", "warning", f"has the body of '{bodies[body]}'"))
        bodies.setdefault(body, template.name)
        if rows and not _has_errors(found, template):
            found += _lint_rows(template, file, rows, label)
    return found


def _finding(template: Template, check: str, level: Level, text: str) -> Finding:
    return Finding(template=template.name, check=check, level=level, text=text)


def _has_errors(found: Sequence[Finding], template: Template) -> bool:
    return any(item.template == template.name and item.check in ("dialect", "separator") for item in found)


# --- by their text ----------------------------------------------------------------------------------------------------


def _lint_text(template: Template, file: TemplateFile, known: set[str]) -> Iterator[Finding]:
    if file.dataset and not _is_uuid(template.id):
        yield _finding(template, "id", "warning", f"'{template.id}' is no UUID, so other files may have it too")
    if not template.metadata.languages:
        yield _finding(template, "language", "warning", "does not say its language (metadata.languages)")
    try:
        body = dialect.check(template.jinja, "body")
        choices = dialect.check(template.answer_choices or "", "answer choices")
    except TemplateError as error:
        yield _finding(template, "dialect", "error", str(error).rstrip("."))
        return
    if message := _separators(template):
        yield _finding(template, *message)
    yield from _lint_names(template, body, choices, known)
    if template.answers_by_choice and template.answer_choices is None:
        yield _finding(template, "choices", "error", "answers by answer_choices, which it does not define")
    if indexed := _unguarded(template):
        yield _finding(template, "unguarded_label", "note", f"takes a choice by {indexed}, unasked whether it is -1")
    if body.is_random or choices.is_random:
        yield _finding(template, "random", "note", "draws at random; its samples depend on the seed")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _separators(template: Template) -> tuple[str, Level, str] | None:
    written = template.jinja.count(SEPARATOR)
    if written == 0:
        return "separator", "error", f"has no '{SEPARATOR}' between prompt and target"
    if written > 1:
        return "separators", "warning", f"has {written} '{SEPARATOR}'; every row must meet exactly one"
    return None


def _lint_names(
    template: Template, body: dialect.Checked, choices: dialect.Checked, known: set[str]
) -> Iterator[Finding]:
    names = (body.variables - {"answer_choices"}) | choices.variables
    if not known:
        return
    for name in sorted(names - {column.replace("-", "_") for column in known}):
        hint = did_you_mean(name, known).strip() or f"Columns: {', '.join(sorted(known))}."
        yield _finding(template, "variables", "error", f"reads '{name}', which is no column. {hint}".rstrip("."))


def _unguarded(template: Template) -> str:
    """The index that takes a choice although it may be -1; empty if all are constants or the template asks first."""
    tree = dialect.parse(template.jinja, template.name)
    tests = [node.test for node in tree.find_all(nodes.If)] + [node.test for node in tree.find_all(nodes.CondExpr)]
    asked = {name.name for test in tests for name in _names(test)}
    for item in tree.find_all(nodes.Getitem):
        if not dialect.is_choices(item.node) or isinstance(item.arg, nodes.Slice | nodes.Const):
            continue
        used = [name.name for name in _names(item.arg)]
        if used and not set(used) & asked:
            return f"'{' '.join(used)}'"
    return ""


def _names(node: nodes.Node) -> list[nodes.Name]:
    found = list(node.find_all(nodes.Name))
    return [node, *found] if isinstance(node, nodes.Name) else found


# --- by rows ----------------------------------------------------------------------------------------------------------


def _lint_rows(
    template: Template, file: TemplateFile, rows: Sequence[tuple[int, Mapping[str, Any]]], label: str
) -> Iterator[Finding]:
    renderer = Renderer([template], dataset=file.dataset or file.task, subset=file.subset, label=label)
    outcomes = [(number, renderer.render(0, row, number)) for number, row in rows]
    made = [(number, item) for number, item in outcomes if isinstance(item, Rendered)]
    failed = [(number, item) for number, item in outcomes if isinstance(item, Refused) and item.detail]
    if failed:
        number, first = failed[0]
        yield _finding(
            template, "fails", "error", f"failed on {len(failed)} of {len(rows)} rows; row {number}: {first.detail}"
        )
    elif not made:
        reasons = ", ".join(sorted({item.reason for _, item in outcomes if isinstance(item, Refused)}))
        yield _finding(template, "never_applies", "warning", f"gave nothing on {len(rows)} rows ({reasons})")
    if template.answers_by_choice:
        strange = [(number, item) for number, item in made if item.target not in (item.choices or ())]
        if strange:
            number, first_made = strange[0]
            text = (
                f"target is no choice on {len(strange)} of {len(made)} rows; row {number}: {_short(first_made.target)}"
            )
            yield _finding(template, "not_in_choices", "warning", text)
    long = sum(estimate_tokens(item.prompt) + estimate_tokens(item.target) > _WINDOW for _, item in made)
    if 2 * long > len(made):
        yield _finding(template, "long", "warning", f"{long} of {len(made)} samples have more than {_WINDOW} tokens")


def _short(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"
