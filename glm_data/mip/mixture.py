"""The mixture manifest: which data sets, with which templates, in which amounts.

::

    datasets:
      - name: village_reviews              # as in ids and counts
        subset: books                      # optional
        split: train
        rows: data/village_reviews.jsonl   # JSON lines, a JSON array, parquet, CSV, or a folder of `datasets`
        templates: templates/village_reviews/templates.yaml
        language: en                       # of the samples; default: what the template says
        cap: 100000                        # samples at most, chosen by hash (GLM-130B: 100,000 and 200,000)
        weight: 1.0                        # share of its samples to keep, before the cap
        columns: {text: review_body}       # name in the templates: name in the rows
        exclude: ["a template's name or id"]
        allowed: we do not report it       # why a banned data set is in after all, see glm_data/bans.py

Paths are relative to the manifest.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import msgspec

from glm_data import files
from glm_data.config import Config, Doc, load_yaml, to_mapping
from glm_data.errors import ConfigError
from glm_data.mip.templates import TemplateFile, read_templates
from glm_data.stage import InputFile, describe_input


class DataSet(Config, frozen=True, kw_only=True):
    """One data set of a mixture."""

    name: Annotated[str, Doc("name of the data set")]
    subset: Annotated[str | None, Doc("subset, if the data set has several")] = None
    split: Annotated[str, Doc("split that the rows are of")] = "train"
    rows: Annotated[str, Doc("file or folder of the rows")]
    templates: Annotated[str, Doc("templates.yaml, or a folder that holds <name>[/<subset>]/templates.yaml")]
    language: Annotated[str, Doc("language of the samples; empty takes the template's first")] = ""
    cap: Annotated[int | None, Doc("samples at most")] = None
    weight: Annotated[float, Doc("share of the samples to keep, above 0 to 1")] = 1.0
    columns: Annotated[dict[str, str], Doc("columns to rename: name in the templates, name in the rows")] = (
        msgspec.field(default_factory=dict)
    )
    exclude: Annotated[tuple[str, ...], Doc("names or ids of templates not to use")] = ()
    label: Annotated[str, Doc("column of the label; -1 in it means hidden")] = "label"
    allowed: Annotated[str, Doc("why it may be trained on although it is banned")] = ""

    @property
    def whole_name(self) -> str:
        """``name`` or ``name/subset``, as lists of bans have it."""
        return f"{self.name}/{self.subset}" if self.subset else self.name

    @property
    def key(self) -> str:
        """``name/split`` or ``name/subset/split``."""
        return "/".join(part for part in (self.name, self.subset, self.split) if part)


class Mixture(Config, frozen=True, kw_only=True):
    """A mixture manifest."""

    version: Annotated[str, Doc("version of the mixture, for people")] = ""
    datasets: Annotated[tuple[DataSet, ...], Doc("the data sets")]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A data set with its files found and measured."""

    dataset: DataSet
    rows: InputFile
    templates: InputFile

    def plan(self) -> dict[str, Any]:
        """What of it decides the output, besides the files' bytes: everything but where they lie."""
        values = to_mapping(self.dataset)
        return {name: value for name, value in values.items() if name not in ("rows", "templates")}


def read_mixture(path: Path) -> tuple[Source, ...]:
    """Read a manifest and find its files; raises :class:`ConfigError` with the data set and the cure."""
    mixture = load_yaml(path, Mixture)
    if not mixture.datasets:
        raise ConfigError(f"'{path}' lists no data set; add one under 'datasets'.")
    doubled = [key for key, count in Counter(item.key for item in mixture.datasets).items() if count > 1]
    if doubled:
        raise ConfigError(f"'{path}' lists '{doubled[0]}' twice; give one of them another subset or split.")
    return tuple(_find(dataset, path) for dataset in mixture.datasets)


def _find(dataset: DataSet, manifest: Path) -> Source:
    where = f"'{manifest}': data set '{dataset.key}'"
    if not 0 < dataset.weight <= 1:
        raise ConfigError(f"{where}: weight {dataset.weight} must be above 0 and at most 1; lower the others instead.")
    if dataset.cap is not None and dataset.cap < 1:
        raise ConfigError(f"{where}: cap {dataset.cap} must be at least 1; leave the data set out instead.")
    rows, templates = manifest.parent / dataset.rows, manifest.parent / dataset.templates
    if templates.is_dir():
        templates = templates.joinpath(dataset.name, dataset.subset or "", "templates.yaml")
    for path in (rows, templates):
        if not path.exists():
            raise ConfigError(f"{where}: '{path}' does not exist; paths are relative to the manifest.")
    return Source(
        dataset=dataset,
        rows=_describe(rows, f"{dataset.key}/{rows.name}"),
        templates=describe_input(templates, f"{dataset.key}/templates.yaml"),
    )


def _describe(path: Path, name: str) -> InputFile:
    """Measure a file, or a folder of ``datasets`` as one: all its files' bytes and a digest of their digests."""
    if path.is_file():
        return describe_input(path, name)
    inside = sorted(item for item in path.rglob("*") if item.is_file() and not item.name.startswith("."))
    if not inside:
        raise ConfigError(f"'{path}' holds no files; give a file of rows or a folder written by save_to_disk.")
    parts = [describe_input(item, item.relative_to(path).as_posix()) for item in inside]
    digest = files.digest_value([[part.name, part.digest] for part in parts])
    return InputFile(name=name, path=str(path.absolute()), bytes=sum(part.bytes for part in parts), digest=digest)


def source_templates(source: Source) -> TemplateFile:
    """The template file of a source; raises :class:`ConfigError` if it is of another data set."""
    file = read_templates(Path(source.templates.path))
    if (file.dataset, file.subset) != (source.dataset.name, source.dataset.subset):
        found = file.dataset + (f"/{file.subset}" if file.subset else "")
        wanted = source.dataset.name + (f"/{source.dataset.subset}" if source.dataset.subset else "")
        raise ConfigError(f"'{source.templates.path}' has templates of '{found}', not of '{wanted}'; check the path.")
    return file
