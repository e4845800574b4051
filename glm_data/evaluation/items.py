"""Items of an evaluation read from their files and asked: rows -> questions as texts."""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from glm_data.errors import InputError, UsageError
from glm_data.evaluation.tasks import Prompt, Task
from glm_data.formats import Unreadable
from glm_data.formats.rows import read_rows
from glm_data.generation.blanks import MASK
from glm_data.inputs import find_inputs
from glm_data.manifest import InputFile
from glm_data.mip import Rendered, Renderer, Template, prepare_row


@dataclass(frozen=True)
class Item:
    """One row of an evaluation's files."""

    id: str
    """``<file name>#<row>``, as decontamination calls it."""
    group: str
    number: int
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """The item number ``item`` asked by a prompt; ``text`` has a ``[MASK]`` for the answer, or is continued."""

    item: int
    text: str
    target: str
    choices: tuple[str, ...] = ()
    label: int = 0
    shots: tuple[str, ...] = ()
    """Solved questions to stand before it."""
    accepted: tuple[str, ...] = ()
    """Answers that are right, if they are written and compared; the target among them."""


@dataclass
class Asked:
    """The questions of one prompt, and how many items it could not be asked of, by reason."""

    questions: list[Question] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def task_files(task: Task, data: Path, files: Sequence[str]) -> tuple[InputFile, ...]:
    """The files of ``files`` below the folder ``data``; raises :class:`UsageError` if one of them is nowhere."""
    for given in files:
        if not Path(given).is_absolute() and not _stands_below(task, data, given):
            raise UsageError(
                f"task '{task.name}' reads '{given}', and there is none below '{data}'; give the folder that its files "
                "lie in with --data."
            )
    return find_inputs([data / given for given in files], digest=False)


def _stands_below(task: Task, data: Path, given: str) -> bool:
    try:
        return any(data.glob(given))
    except ValueError as error:  # an empty one, or ** beside other letters
        raise UsageError(f"task '{task.name}': '{given}' is no file or pattern ({error}); mend its files.") from None


def read_items(task: Task, data: Path, files: Sequence[str]) -> list[Item]:
    """The rows of ``files`` below the folder ``data``, in order of file and row.

    Raises :class:`InputError` for a row that cannot be read: what is left out in silence changes the score.
    """
    items = []
    for file in task_files(task, data, files):
        found = re.search(task.group, Path(file.path).as_posix()) if task.group else None
        group = (found.group(1) or "") if found else ""  # None where the parentheses were passed over
        for number, row in _rows(task, Path(file.path)):
            items.append(Item(f"{file.name}#{number}", group, number, prepare_row(row)))
    return items


def _rows(task: Task, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(task, path)
        return
    for row in _object_rows(task, path) if task.rows else read_rows(path):
        if isinstance(row, Unreadable):
            raise InputError(f"'{path}', row {row.record}: {row.detail or row.reason}; mend or remove it.")
        yield row


def _csv_rows(task: Task, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows as they are written, every value a text; a first line that names one of ``columns`` is a header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is no CSV table in UTF-8 ({error}); check it.") from None
    columns = list(task.columns) or (lines[0] if lines else [])
    wanted = {name.lower() for name in columns}
    has_header = bool(lines) and (not task.columns or any(cell.strip().lower() in wanted for cell in lines[0]))
    for number, line in enumerate(lines[has_header:]):
        if len(line) != len(columns):
            raise InputError(f"'{path}', row {number}: {len(line)} fields instead of {len(columns)}; check the file.")
        yield number, dict(zip(columns, line, strict=True))


def _object_rows(task: Task, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The objects in the lists at ``task.rows`` of one JSON value; the plain fields of all that they lie in come with
    each, under ``file``. Parts of a list are named by their places, and a list of plain values is plain."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise InputError(f"'{path}' is no JSON ({error}); check the file.") from None
    number = 0
    for rows, about in _lists_at(value, task.rows.split("."), {}):
        if not isinstance(rows, list):
            raise InputError(f"'{path}' has no list at '{task.rows}'; correct 'rows' of task '{task.name}'.")
        for row in rows:
            if isinstance(row, dict):
                yield number, {**row, "file": about}
            number += 1


def _lists_at(value: Any, steps: Sequence[str], about: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """What lies at the end of ``steps`` in ``value``, with the plain fields on the way; None: nothing."""
    if not steps:
        yield value, about
        return
    step, *rest = steps
    if step == "*":
        for part in value if isinstance(value, list) else [None]:
            yield from _lists_at(part, rest, about)
        return
    fields = dict(enumerate(value)) if isinstance(value, list) else value if isinstance(value, dict) else {}
    named = {str(name): field for name, field in fields.items()}
    plain = {name: field for name, field in named.items() if _is_plain(field)}
    yield from _lists_at(named.get(step), rest, {**about, **plain})


def _is_plain(field: Any) -> bool:
    if isinstance(field, list):
        return all(isinstance(part, str | bool | int | float) for part in field)
    return isinstance(field, str | bool | int | float)


def ask(task: Task, prompt: Prompt, items: Sequence[Item], examples: Sequence[Item]) -> Asked:
    """The questions that ``prompt`` makes of ``items``, each behind solved ones of its group."""
    template = Template(id=prompt.name, name=prompt.name, jinja=prompt.jinja, answer_choices=prompt.answer_choices)
    renderer = Renderer([template], dataset=task.name, where=f"task '{task.name}'")
    solved = _solved(task, renderer, examples)
    asked = Asked()
    for place, item in enumerate(items):
        rendered = renderer.render(0, item.row, item.number)
        if not isinstance(rendered, Rendered):
            asked.refused[rendered.reason] += 1
            continue
        question = _question(task, place, rendered)
        if isinstance(question, str):
            asked.refused[question] += 1
            continue
        shots = tuple(text for id, text in solved[item.group] if id != item.id)[: task.shots]
        asked.questions.append(replace(question, shots=shots))
    return asked


def _question(task: Task, place: int, rendered: Rendered) -> Question | str:
    """The question alone, or why there is none."""
    if rendered.prompt.count(MASK) > 1:
        return "several_masks"
    if task.kind == "complete":
        return Question(place, rendered.prompt, rendered.target, accepted=(rendered.target, *(rendered.choices or ())))
    choices = rendered.choices or ()
    if len(choices) < 2:
        return "no_choices"
    if rendered.target not in choices:
        return "target_is_no_choice"
    text = rendered.prompt if MASK in rendered.prompt else rendered.prompt + MASK
    return Question(place, text, rendered.target, choices, choices.index(rendered.target))


def _solved(task: Task, renderer: Renderer, examples: Sequence[Item]) -> dict[str, list[tuple[str, str]]]:
    """By group the ids and texts of the first solved examples; one more than wanted, should one be the item itself."""
    solved: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for item in examples:
        own = solved[item.group]
        if len(own) <= task.shots:
            rendered = renderer.render(0, item.row, item.number)
            if isinstance(rendered, Rendered):
                own.append((item.id, solve(rendered.prompt, rendered.target)))
    return solved


def solve(prompt: str, target: str) -> str:
    """A prompt with its answer in place, behind a space unless Chinese or a bracket goes before."""
    if MASK in prompt:
        return prompt.replace(MASK, target)
    glue = " " if prompt[-1].isascii() and (prompt[-1].isalnum() or prompt[-1] in ".,:;?!") else ""
    return prompt + glue + target
