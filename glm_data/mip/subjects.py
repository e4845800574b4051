"""What ``mip show`` and ``mip lint`` look at: templates with rows to try them on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from glm_data.errors import ConfigError, UsageError, did_you_mean
from glm_data.formats import Unreadable
from glm_data.formats.rows import read_rows
from glm_data.mip.mixture import DataSet, base_of, lacking, load_mixture, read_mixture, rows_path
from glm_data.mip.rows import RowMap
from glm_data.mip.templates import (
    PACK,
    TemplateFile,
    blocked_templates,
    find_templates,
    packs,
    read_templates,
)

Rows = Iterator[tuple[int, dict[str, Any]]]


class Subject(NamedTuple):
    """A template file, and where its rows come from."""

    name: str
    file: TemplateFile
    blocked: dict[str, str]
    """Id of a template -> why it is not used."""
    dataset: DataSet
    """How its rows are read."""
    path: Path | None
    """The rows; None leaves the file's own examples."""

    def rows(self) -> Rows:
        """Its rows as templates see them, unreadable ones left out; raises :class:`InputError` for no file of rows."""
        convert = self.dataset.row_map()
        if self.path is None:
            yield from ((number, RowMap()(row)) for number, row in enumerate(self.file.examples))
            return
        for item in read_rows(self.path, self.dataset.split, self.dataset.form):
            if not isinstance(item, Unreadable):
                yield item[0], convert(item[1])


def subject(given: str, rows: Path | None = None, split: str = "train") -> Subject:
    """A pack (``zh/sentiment`` or ``pack:zh/sentiment``), a ``templates.yaml`` or the folder of one, with the rows in
    ``rows``. Raises :class:`ConfigError` if it is none of these.
    """
    name = given.removeprefix(PACK)
    if name not in packs() and not Path(given).exists():
        hint = did_you_mean(name, packs()) or " Give a templates.yaml, its folder, or a pack (`glm-data mip packs`)."
        raise UsageError(f"'{given}' is neither a file of templates nor a pack.{hint}")
    path = find_templates(PACK + name if name in packs() else given, Path(), "")
    file = read_templates(path)
    dataset = DataSet(name=file.dataset or file.task, subset=file.subset, split=split)
    return Subject(name if name in packs() else file.whole_name, file, blocked_templates(file, {}, path), dataset, rows)


def subjects_of(mixture: Path) -> list[Subject]:
    """The data sets of a mixture that are there."""
    found = read_mixture(mixture, skip_missing=True)
    made = []
    for source in found.sources:
        path = Path(source.templates.path)
        file = read_templates(path)
        blocked = blocked_templates(file, source.dataset.exclude, path)
        made.append(Subject(source.dataset.key, file, blocked, source.dataset, Path(source.rows.path)))
    return made


def subject_of(given: str, mixture: Path) -> Subject:
    """The data set of a mixture that is called ``given``: its name, with or without subset and split."""
    datasets = load_mixture(mixture).datasets
    matching = [item for item in datasets if given in (item.key, item.whole_name, item.name)]
    if not matching:
        known = [item.whole_name for item in datasets]
        hint = did_you_mean(given, known) or f" Data sets: {', '.join(known)}."
        raise UsageError(f"'{mixture}' has no data set '{given}'.{hint}")
    if len(matching) > 1:
        raise UsageError(f"'{given}' may be {' or '.join(item.key for item in matching)}; name one of them in full.")
    dataset, base = matching[0], base_of(mixture)
    rows, missed = rows_path(base, dataset.rows), lacking(dataset, base)
    if rows is None or missed:
        raise ConfigError(f"'{mixture}': data set '{dataset.key}': {missed}")
    path = find_templates(dataset.templates, base, dataset.name, dataset.subset)
    file = read_templates(path)
    return Subject(dataset.key, file, blocked_templates(file, dataset.exclude, path), dataset, rows)


def first_rows(found: Subject, count: int) -> list[tuple[int, Mapping[str, Any]]]:
    """The first rows of a subject, to check its templates by."""
    return list(islice(found.rows(), count))
