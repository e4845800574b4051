"""Evaluation tasks as data: which files hold the items, how they are asked, how the answers count.

A task file is YAML. Prompts are promptsource's templates (``prompt ||| target``, :mod:`glm_data.mip.templates`), so
what renders instruction data renders questions, and a prompt may write ``[MASK]`` where the answer stands::

    tasks:
      - name: OCNLI
        kind: choice
        files: [fewclue/ocnli/test_public.json]
        prompts:
          - name: 所以
            answer_choices: 是 ||| 不 ||| 也许
            jinja: '{{sentence1}}？[MASK]，{{sentence2}} ||| {{answer_choices[…]}}'
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

import manifests
from glm_data.config import Config, Doc, load_yaml
from glm_data.errors import ConfigError, did_you_mean

Kind = Literal["choice", "complete", "text"]
_FOLDER = "eval"


class Prompt(Config, frozen=True, kw_only=True):
    """One way to ask."""

    name: Annotated[str, Doc("name, for the report")]
    jinja: Annotated[str, Doc("template of prompt ||| target; [MASK] in the prompt is where the answer stands")]
    answer_choices: Annotated[
        str | None, Doc("template of the choices, between |||; complete: of all answers that are right")
    ] = None


class Task(Config, frozen=True, kw_only=True):
    """One evaluation."""

    name: Annotated[str, Doc("name, for the report")]
    kind: Annotated[
        Kind, Doc("choice: the likeliest of some; complete: written and compared; text: bits per byte of documents")
    ]
    files: Annotated[tuple[str, ...], Doc("files, folders or globs of the items, relative to --data")]
    columns: Annotated[
        tuple[str, ...], Doc("names of the columns of CSV files, whether or not they have a header")
    ] = ()
    rows: Annotated[
        str, Doc("where the list of rows lies in files that are one JSON value each: fields, *, places; data.*.qas")
    ] = ""
    group: Annotated[
        str, Doc("regular expression over a file's path; what its parentheses hold is the group of its rows")
    ] = ""
    prompts: Annotated[tuple[Prompt, ...], Doc("ways to ask, each measured by itself")] = ()
    examples: Annotated[tuple[str, ...], Doc("files whose first rows are shown solved before a question")] = ()
    shots: Annotated[int, Doc("how many of them, of the item's own group", 0)] = 0
    separator: Annotated[str, Doc("what stands between them")] = "\n\n"
    end: Annotated[bool, Doc("choice: count the end of a choice too (GLM-130B: no)")] = False
    beams: Annotated[int, Doc("complete: beams of the search", 1)] = 1
    max_length: Annotated[int, Doc("complete: tokens of an answer at most", 1)] = 32
    match: Annotated[
        Literal["text", "first-word", "span"],
        Doc("complete: compare the whole answer, its first word (LAMBADA), or it as part of a passage, with F1"),
    ] = "text"
    weights: Annotated[dict[str, float], Doc("text: weight of each source of documents in the mean")] = msgspec.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if (self.kind == "text") == bool(self.prompts):
            need = "takes no prompts" if self.kind == "text" else "needs at least one prompt"
            raise ConfigError(f"task '{self.name}': kind {self.kind} {need}.")
        names = [prompt.name for prompt in self.prompts]
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise ConfigError(f"task '{self.name}': two prompts are called '{doubled}'; rename one.")
        if self.shots and not self.examples:
            raise ConfigError(f"task '{self.name}': {self.shots} shots, but no files of 'examples' to take them from.")
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            raise ConfigError(f"task '{self.name}': group '{self.group}' is no regular expression ({error}).") from None
        if self.group and groups != 1:
            raise ConfigError(f"task '{self.name}': group '{self.group}' needs one pair of parentheses.")


class TaskFile(Config, frozen=True, kw_only=True):
    """The content of a task file."""

    tasks: Annotated[tuple[Task, ...], Doc("the evaluations")]


def bundled_tasks() -> tuple[str, ...]:
    """Names of the bundled task files."""
    return tuple(sorted(path.stem for path in manifests.path(_FOLDER).glob("*.yaml")))


def load_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of the bundled file ``name`` or of the YAML file at the path ``name``; raises :class:`ConfigError`."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
    elif name in bundled_tasks():
        path = manifests.path(f"{_FOLDER}/{name}.yaml")
    else:
        hint = did_you_mean(name, bundled_tasks()) or f" Tasks: {', '.join(bundled_tasks())}, or a path."
        raise ConfigError(f"there is no task '{name}'.{hint}")
    tasks = load_yaml(path, TaskFile).tasks
    if not tasks:
        raise ConfigError(f"{path}: lists no task; give 'tasks' at least one.")
    names = [task.name for task in tasks]
    doubled = next((item for item in names if names.count(item) > 1), None)
    if doubled is not None:
        raise ConfigError(f"{path}: two tasks are called '{doubled}'; give each a name of its own.")
    return tasks


def with_shots(task: Task, shots: int | None) -> Task:
    """``task`` with another number of shots; one without examples stays at none."""
    if shots is None or (shots and not task.examples):
        return task
    return msgspec.structs.replace(task, shots=shots)
