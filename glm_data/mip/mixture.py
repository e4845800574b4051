"""The mixture manifest: which data sets, with which templates, in which amounts.

::

    caps: glm-130b                         # none, glm-130b, t0, flan or flan-2021, see SAMPLE_CAPS
    shots: {zero: 0.5, one: 0.1, few: 0.4} # shares of the samples by worked examples before the question
    options: 0.5                           # share of the samples whose answer choices are listed, where they can be
    datasets:
      - name: village_reviews              # as in ids and counts
        subset: books                      # optional
        split: train
        rows: data/village_reviews.jsonl   # JSON lines, a JSON array, parquet, CSV, or a folder of `datasets`
        train: data/village_train.jsonl    # rows for worked examples, if `rows` are of another split
        templates: templates/village_reviews/templates.yaml      # or pack:en/reasoning
        language: en                       # of the samples; default: what the template says
        cap: 100000                        # samples at most, chosen by hash
        weight: 1.0                        # share of its samples to keep, before the cap
        columns: {text: review_body}       # name in the templates: name in the rows
        values: {label: {good: 1, bad: 0}} # what stands in the rows: what templates read; other labels are hidden
        add: {labels: [bad, good]}         # columns of one value
        exclude: {"a template's name or id": reason}
        allowed: we do not report it       # why a banned data set is in after all, see glm_data/bans.py

Paths are relative to the manifest (of a bundled one to the working directory), those of rows to its folder ``rows`` if
it names one. The order of the data sets makes no difference.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from glm_data import files
from glm_data.config import Config, Doc, load_yaml, to_mapping
from glm_data.errors import ConfigError, UsageError, did_you_mean
from glm_data.formats.rows import TableForm
from glm_data.inputs import files_inside
from glm_data.mip.rows import RowMap
from glm_data.mip.templates import TemplateFile, find_templates, read_templates
from glm_data.stage import InputFile, describe_input

Caps = Literal["none", "glm-130b", "t0", "flan", "flan-2021"]

SAMPLE_CAPS: dict[str, dict[str, int]] = {
    "none": {},
    "glm-130b": {"t0": 100_000, "deepstruct": 200_000, "kelm": 500_000, "propbank": 500_000},
    "t0": {"t0": 500_000, "deepstruct": 500_000},
    "flan": {"t0": 30_000, "deepstruct": 30_000},
    "flan-2021": {"t0": 3_000, "deepstruct": 3_000},
}
"""Samples of a data set at most, by its ``side`` or, before that, its name.

``glm-130b``: paper, section 2.3 and appendix C. ``t0`` gives a set of up to 500,000 rows as many samples for *each* of
its templates, and one more row cuts all of them together to 500,000; here 500,000 holds for all templates together, so
that a larger set never weighs less. ``flan``: the greatest mixing rate of FLAN 2022, 30,000. ``flan-2021``: that of
FLAN 2021, which draws from up to 30,000 examples of a set at a rate of min(examples, 3,000). A rate says how often a
set is drawn from beside the others. Here every sample is written once, so a set's number of samples is its rate, and a
greatest rate is a cap.
"""

_SUFFIXES = ("", ".jsonl", ".json", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv", ".tsv")


class Shots(Config, frozen=True, kw_only=True):
    """Shares of samples by the number of worked examples that stand before the question; they need not sum to 1."""

    zero: Annotated[float, Doc("share without an example", 0)] = 1.0
    one: Annotated[float, Doc("share with one", 0)] = 0.0
    few: Annotated[float, Doc("share with two to 'most'", 0)] = 0.0
    most: Annotated[int, Doc("examples at most", 2, 64)] = 5


class DataSet(Config, frozen=True, kw_only=True):
    """One data set of a mixture."""

    name: Annotated[str, Doc("name of the data set")]
    subset: Annotated[str | None, Doc("subset, if the data set has several")] = None
    split: Annotated[str, Doc("split that the rows are of")] = "train"
    rows: Annotated[str, Doc("file or folder of the rows; empty: <name>[/<subset>]/<split>.*")] = ""
    train: Annotated[str, Doc("file or folder of rows for worked examples; empty: the rows, if they are of train")] = ""
    names: Annotated[tuple[str, ...], Doc("names of the columns of CSV without a header line")] = ()
    quoted: Annotated[bool, Doc("whether quotation marks enclose fields of CSV")] = True
    escaped: Annotated[bool, Doc("whether a line end inside a field of CSV is written as backslash and n")] = False
    templates: Annotated[str, Doc("templates.yaml, a folder of <name>[/<subset>]/templates.yaml, or pack:<name>")] = ""
    language: Annotated[str, Doc("language of the samples; empty takes the template's first")] = ""
    side: Annotated[Literal["t0", "deepstruct"], Doc("which of the caps is its own")] = "t0"
    cap: Annotated[int | None, Doc("samples at most; default: what 'caps' says")] = None
    weight: Annotated[float, Doc("share of the samples to keep, above 0 to 1")] = 1.0
    shots: Annotated[Shots | None, Doc("shares of zero-, one- and few-shot; default: the mixture's")] = None
    options: Annotated[float | None, Doc("share with listed choices; default: the mixture's")] = None
    columns: Annotated[dict[str, str], Doc("columns to rename: name in the templates, name in the rows")] = (
        msgspec.field(default_factory=dict)
    )
    values: Annotated[dict[str, dict[str, Any]], Doc("column: value in the rows, value for the templates")] = (
        msgspec.field(default_factory=dict)
    )
    add: Annotated[dict[str, Any], Doc("columns of one value")] = msgspec.field(default_factory=dict)
    exclude: Annotated[dict[str, str], Doc("names or ids of templates not to use, with the reason")] = msgspec.field(
        default_factory=dict
    )
    label: Annotated[str, Doc("column of the label; -1 in it means hidden")] = "label"
    allowed: Annotated[str, Doc("why it may be trained on although it is banned")] = ""
    hub: Annotated[str, Doc("where `glm-data mip fetch` gets the rows: a data set of the Hugging Face hub")] = ""
    status: Annotated[str, Doc("what there is of it and what is missing, for people")] = ""

    @property
    def whole_name(self) -> str:
        """``name`` or ``name/subset``, as lists of bans have it."""
        return f"{self.name}/{self.subset}" if self.subset else self.name

    @property
    def key(self) -> str:
        """``name/split`` or ``name/subset/split``."""
        return "/".join(part for part in (self.name, self.subset, self.split) if part)

    @property
    def form(self) -> TableForm:
        """How its CSV is written."""
        return TableForm(self.names, self.quoted, self.escaped)

    def row_map(self) -> RowMap:
        """What makes its rows those of its templates."""
        return RowMap(self.columns, self.values, self.add, self.label)


class Mixture(Config, frozen=True, kw_only=True):
    """A mixture manifest."""

    version: Annotated[str, Doc("version of the mixture, for people")] = ""
    rows: Annotated[str, Doc("folder that paths of rows are relative to")] = ""
    templates: Annotated[str, Doc("folder of the templates of data sets that name none")] = ""
    caps: Annotated[Caps, Doc("formula of the caps")] = "none"
    shots: Annotated[Shots, Doc("shares of zero-, one- and few-shot samples")] = Shots()
    options: Annotated[float, Doc("share of samples whose answer choices are listed, where they can be", 0, 1)] = 0.0
    datasets: Annotated[tuple[DataSet, ...], Doc("the data sets")]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A data set with its files found and measured, and what the mixture says of it filled in."""

    dataset: DataSet
    rows: InputFile
    templates: InputFile
    train: InputFile | None = None
    """Where worked examples come from: None if there is nothing of the split train."""

    def plan(self) -> dict[str, Any]:
        """What of it decides the output, besides the files' bytes: everything but where they lie."""
        values = to_mapping(self.dataset)
        return {name: value for name, value in values.items() if name not in _PLACES}


_PLACES = frozenset({"rows", "templates", "train", "hub", "status"})


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest read: the sources in order of their keys, and the data sets left out because something is missing."""

    version: str
    sources: tuple[Source, ...]
    missing: dict[str, str]
    """Key of a data set -> what is missing."""


def load_mixture(path: Path, rows: str = "", templates: str = "") -> Mixture:
    """Read a manifest, the mixture's defaults filled in for each data set; ``rows`` and ``templates`` replace its own
    folders. Raises :class:`ConfigError` for what cannot be meant.
    """
    mixture = load_yaml(path, Mixture)
    if not mixture.datasets:
        raise ConfigError(f"'{path}' lists no data set; add one under 'datasets'.")
    doubled = [key for key, count in Counter(item.key for item in mixture.datasets).items() if count > 1]
    if doubled:
        raise ConfigError(f"'{path}' lists '{doubled[0]}' twice; give one of them another subset or split.")
    folders = (str(Path(rows).absolute()) if rows else mixture.rows,
               str(Path(templates).absolute()) if templates else mixture.templates)  # fmt: skip
    filled = tuple(_filled(dataset, mixture, *folders) for dataset in mixture.datasets)
    for dataset in filled:
        _check(dataset, f"'{path}': data set '{dataset.key}'")
    return msgspec.structs.replace(mixture, datasets=tuple(sorted(filled, key=lambda item: item.key)))


def _filled(dataset: DataSet, mixture: Mixture, rows: str, templates: str) -> DataSet:
    caps = SAMPLE_CAPS[mixture.caps]
    return msgspec.structs.replace(
        dataset,
        rows=str(Path(rows, dataset.rows or f"{dataset.whole_name}/{dataset.split}")),
        train=str(Path(rows, dataset.train)) if dataset.train else "",
        templates=dataset.templates or templates,
        cap=caps.get(dataset.name, caps.get(dataset.side)) if dataset.cap is None else dataset.cap,
        shots=dataset.shots or mixture.shots,
        options=mixture.options if dataset.options is None else dataset.options,
    )


def _check(dataset: DataSet, where: str) -> None:
    if not 0 < dataset.weight <= 1:
        raise ConfigError(f"{where}: weight {dataset.weight} must be above 0 and at most 1; lower the others instead.")
    if dataset.cap is not None and dataset.cap < 1:
        raise ConfigError(f"{where}: cap {dataset.cap} must be at least 1; leave the data set out instead.")
    shots = dataset.shots or Shots()
    if shots.zero + shots.one + shots.few <= 0:
        raise ConfigError(f"{where}: the shares of shots are all 0; give 'zero', 'one' or 'few' one above 0.")
    if not 0 <= (dataset.options or 0) <= 1:
        raise ConfigError(f"{where}: options {dataset.options} must be from 0 to 1; it is a share.")
    if unexplained := [name for name, reason in dataset.exclude.items() if not reason.strip()]:
        raise ConfigError(f"{where}: template '{unexplained[0]}' is excluded without a reason; say why.")


def find_mixture(given: str) -> Path:
    """The manifest at the path ``given``, or the bundled one of that name (``mip-74``); :class:`UsageError` if none."""
    path = Path(given)
    if path.is_file():
        return path
    import manifests

    name = given.removesuffix(".yaml")
    if name in manifests.mixtures():
        return manifests.path(f"{name}.yaml")
    hint = did_you_mean(name, manifests.mixtures()) or f" Bundled: {', '.join(manifests.mixtures())}."
    raise UsageError(f"there is no mixture '{given}'.{hint}")


def base_of(path: Path) -> Path:
    """The folder that a manifest's paths are relative to: its own, or the working directory if it is a bundled one."""
    import manifests

    is_bundled = path.stem in manifests.mixtures() and path.absolute() == manifests.path(path.name).absolute()
    return Path() if is_bundled else path.parent


def read_mixture(path: Path, rows: str = "", templates: str = "", *, skip_missing: bool = False) -> Found:
    """Read a manifest and find its files; ``rows`` and ``templates`` as in :func:`load_mixture`.

    Raises :class:`ConfigError` with the data set and the cure. With ``skip_missing`` data sets whose rows or templates
    are not there are left out, but not all of them.
    """
    sources, missing, base = [], {}, base_of(path)
    mixture = load_mixture(path, rows, templates)
    for dataset in mixture.datasets:
        missed = lacking(dataset, base)
        found = rows_path(base, dataset.rows)
        if found is not None and not missed:
            sources.append(_find(dataset, base, found))
        elif skip_missing:
            missing[dataset.key] = missed
        else:
            raise ConfigError(f"'{path}': data set '{dataset.key}': {missed}")
    if not sources:
        raise ConfigError(f"'{path}': none of its {len(missing)} data sets is there: {next(iter(missing.values()))}")
    return Found(version=mixture.version, sources=tuple(sources), missing=missing)


def lacking(dataset: DataSet, base: Path) -> str:
    """What of a data set is missing, with the cure; empty if nothing is."""
    if rows_path(base, dataset.rows) is None:
        cure = "`glm-data mip fetch` gets it" if dataset.hub else "paths are relative to the manifest"
        own = f" ({dataset.status})" if dataset.status else ""
        return f"'{base / dataset.rows}' does not exist{own}; {cure}."
    if dataset.train and rows_path(base, dataset.train) is None:
        return f"'{base / dataset.train}' does not exist; paths are relative to the manifest."
    if not dataset.templates:
        return "has no templates; name a file, a folder or a pack, or give --templates."
    templates = find_templates(dataset.templates, base, dataset.name, dataset.subset)
    return "" if templates.exists() else f"'{templates}' does not exist; paths are relative to the manifest."


def rows_path(base: Path, given: str) -> Path | None:
    """The file or folder of rows that ``given`` names, a suffix added if need be; None if there is none."""
    path = base / given
    return next((found for suffix in _SUFFIXES if (found := path.with_name(path.name + suffix)).exists()), None)


def _find(dataset: DataSet, base: Path, rows: Path) -> Source:
    train = rows_path(base, dataset.train) if dataset.train else rows if dataset.split == "train" else None
    templates = find_templates(dataset.templates, base, dataset.name, dataset.subset)
    return Source(
        dataset=dataset,
        rows=_describe(rows, f"{dataset.key}/{rows.name}"),
        templates=describe_input(templates, f"{dataset.key}/templates.yaml"),
        train=None if train is None else _describe(train, f"{dataset.key}/examples/{train.name}"),
    )


def _describe(path: Path, name: str) -> InputFile:
    """Measure a file, or a folder of ``datasets`` as one: all its files' bytes and a digest of their digests."""
    if path.is_file():
        return describe_input(path, name)
    inside = files_inside(path)
    if not inside:
        raise ConfigError(f"'{path}' holds no files; give a file of rows or a folder written by save_to_disk.")
    parts = [describe_input(item, item.relative_to(path).as_posix()) for item in inside]
    digest = files.digest_value([[part.name, part.digest] for part in parts])
    return InputFile(name=name, path=str(path.absolute()), bytes=sum(part.bytes for part in parts), digest=digest)


def source_templates(source: Source) -> TemplateFile:
    """The template file of a source; raises :class:`ConfigError` if it is of another data set. A pack is of none."""
    file, dataset = read_templates(Path(source.templates.path)), source.dataset
    if file.dataset and (file.dataset, file.subset) != (dataset.name, dataset.subset):
        raise ConfigError(
            f"'{source.templates.path}' has templates of '{file.whole_name}', not of '{dataset.whole_name}'; "
            "check the path."
        )
    return file
