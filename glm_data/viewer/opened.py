"""What a path stands for: the things of ours to be looked at in it. Opening reads manifests and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from glm_data.errors import GlmDataError, InputError, UsageError
from glm_data.inputs import find_inputs
from glm_data.inspection import FinishedStage, locate_inputs, open_run
from glm_data.manifest import STAGE_ORDER, InputFile
from glm_data.mip import DataSet, read_templates
from glm_data.mip.subjects import Subject, subject, subjects_of

_TABLES = ("data/", "dropped/", "ledger/", "duplicates.parquet", "signals/")
_OF_DOCUMENTS = ("decontaminate", "dedupe", "filter")
"""Stages that hold documents, the cleanest first."""


VIEWS = ("report", "rows", "clusters", "filter", "mip", "tokenizers", "records")
"""The ways to look at things, in the order of the page."""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """Something to look at, with a view of its own."""

    view: str
    """One of :data:`VIEWS`."""
    name: str
    """Unique among those of its view."""
    size: int
    """Rows, removed documents, data sets, tokenizers, tables or stages."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A path, opened."""

    path: Path
    things: tuple[Thing, ...]
    stages: dict[str, FinishedStage]
    """By the name of their things."""
    datasets: dict[str, Subject]
    """Templates with rows to try them on, by name."""
    tokenizers: dict[str, Path]
    documents: tuple[InputFile, ...]
    """To measure tokenizers on."""
    inputs: tuple[str, ...] = ()
    """Where inputs of stages are now, if they have moved."""


def open_path(path: Path, beside: Sequence[Path] = (), inputs: Sequence[str] = ()) -> Opened:
    """Open a run, a stage, a mixture, templates or a tokenizer's model.

    ``beside`` are further tokenizers to compare, ``inputs`` the places of what stages read, if that has moved. Raises
    :class:`UsageError` for a path that is none of these.
    """
    others = {str(other): other for other in beside}
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return _opened(path, {}, {found.name: found for found in _subjects(path)}, others)
    if path.is_file() and path.suffix == ".model":
        return _opened(path, {}, {}, {str(path): path, **others})
    if not path.is_dir():
        raise UsageError(
            f"'{path}' is nothing to look at; give the folder of a run or a stage, a mixture.yaml, a templates.yaml "
            "or a tokenizer.model."
        )
    run = open_run(path)
    stages = {stage.folder.name: stage for stage in run.stages}
    rendered = (_rendered(stage, inputs) for stage in run.stages if stage.kind == "mip")
    datasets = {found.name: found for stage in rendered for found in stage}
    return _opened(path, stages, datasets, others, inputs)


def _opened(
    path: Path,
    stages: dict[str, FinishedStage],
    datasets: dict[str, Subject],
    others: dict[str, Path],
    inputs: Sequence[str] = (),
) -> Opened:
    tokenizers = {name: stage.folder for name, stage in stages.items() if stage.kind == "tokenizer"}
    if not tokenizers:
        tokenizers = {name: stage.folder for name, stage in stages.items() if stage.kind == "pack"}
    tokenizers |= others
    things = list(_things(stages.items()))
    if datasets:
        things.append(Thing(view="mip", name="mip", size=len(datasets)))
    if tokenizers:
        things.append(Thing(view="tokenizers", name="tokenizers", size=len(tokenizers)))
    if stages:
        things.append(Thing(view="report", name="report", size=len(stages)))
    return Opened(
        path=path,
        things=tuple(sorted(things, key=lambda thing: VIEWS.index(thing.view))),
        stages=stages,
        datasets=datasets,
        tokenizers=tokenizers,
        documents=_documents(stages, inputs) if tokenizers else (),
        inputs=tuple(inputs),
    )


def _things(stages: Iterable[tuple[str, FinishedStage]]) -> Iterator[Thing]:
    for name, stage in sorted(stages, key=lambda item: _order(item[1].kind)):
        success = stage.success
        if stage.kind == "pack":
            yield Thing(view="rows", name=name, size=success.facts["rows"])
        if stage.kind == "dedupe":
            yield Thing(view="clusters", name=name, size=sum(success.dropped.values()))
        if stage.kind == "filter" and stage.paths("signals"):
            yield Thing(view="filter", name=name, size=sum(success.dropped.values()))
        tables = table_names(stage)
        if tables:
            yield Thing(view="records", name=name, size=len(tables))


def _order(kind: str) -> int:
    """The last stages of the work first."""
    return -STAGE_ORDER.index(kind) if kind in STAGE_ORDER else 0


def table_names(stage: FinishedStage) -> list[str]:
    """The tables of a stage that hold rows of text or of numbers to be read by people."""
    names = [item.name for item in stage.success.files if item.name.endswith(".parquet")]
    return [name for name in names if name.startswith(_TABLES)]


def _subjects(path: Path) -> list[Subject]:
    """The data sets of a mixture manifest, or a file of templates; errors are those of what it looks like."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    is_templates = re.search("^templates:", text, re.MULTILINE) and not re.search("^datasets:", text, re.MULTILINE)
    return [subject(str(path))] if is_templates else subjects_of(path)


def _rendered(stage: FinishedStage, given: Sequence[str]) -> Iterator[Subject]:
    """The data sets that a mip stage rendered, as far as their files still lie where it read them."""
    try:
        inputs = {item.name: item.path for item in locate_inputs(stage, given)}
        for plan in stage.plan["options"].get("datasets", ()):
            dataset = msgspec.convert(plan | {"rows": ""}, DataSet)
            templates = f"{dataset.key}/templates.yaml"
            rows = next((name for name in inputs if name.rpartition("/")[0] == dataset.key and name != templates), None)
            if rows and templates in inputs:
                file = read_templates(Path(inputs[templates]))
                yield Subject(dataset.key, file, {}, dataset, Path(inputs[rows]))
    except (GlmDataError, msgspec.ValidationError):
        return  # inputs that have moved, or a plan of another version: there is nothing to try templates on


def _documents(stages: dict[str, FinishedStage], inputs: Sequence[str]) -> tuple[InputFile, ...]:
    """The documents of the cleanest stage that has some, or what a tokenizer was trained on."""
    for kind in _OF_DOCUMENTS:
        for stage in stages.values():
            if stage.kind == kind:
                return find_inputs([stage.folder])
    for stage in stages.values():
        if stage.kind == "tokenizer":
            return _read_by(stage, inputs)
    return ()


def _read_by(stage: FinishedStage, given: Sequence[str]) -> tuple[InputFile, ...]:
    """What a stage read; nothing if that has moved."""
    try:
        return locate_inputs(stage, given)
    except InputError:
        return ()
