"""Data sets that instruction data must not hold, because what they measure is to be reported as zero-shot.

The bundled lists stand in ``manifests/evaluation.yaml``, which also says the rule; a list of the user's own has that
form, and may say where the items lie, for decontamination. Names are compared as people spell them: ``ARC_Challenge``
is ``ARC-Challenge``, ``google/boolq`` is a copy of ``boolq``, and ``glue`` stands for ``glue/qnli`` too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec

from glm_data import files
from glm_data.config import Config, Doc, load_yaml
from glm_data.errors import ConfigError, UsageError, did_you_mean

DEFAULT = "glm-130b"
ALL, NONE = "all", "none"
_BUNDLED = "evaluation.yaml"
_SHOWN = 5
_WHOLE = "*"
"""In place of a subset: whichever. No compared name has the character."""

BansOption = Annotated[
    str, Doc("data sets not to train on: glm-130b, t0, all, none, or the path of a list like manifests/evaluation.yaml")
]
"""The type of an option that names a list for :func:`load_bans`."""


class Related(Config, frozen=True, kw_only=True):
    """Data sets that give an evaluation away without being it."""

    datasets: Annotated[tuple[str, ...], Doc("names of data sets")]
    why: Annotated[str, Doc("what they have to do with it")]


class Benchmark(Config, frozen=True, kw_only=True):
    """One evaluation, and what must not be trained on for its sake."""

    name: Annotated[str, Doc("name, for people")]
    lists: Annotated[tuple[str, ...], Doc("names of the lists that it is in")] = ()
    task: Annotated[str, Doc("what is asked")] = ""
    language: Annotated[str, Doc("language of its texts")] = ""
    labels: Annotated[Literal["fixed", "free"], Doc("fixed: all answers are of a few classes, as in inference")] = (
        "free"
    )
    datasets: Annotated[tuple[str, ...], Doc("the data set itself: name or name/subset, in every spelling in use")] = ()
    related: Annotated[tuple[Related, ...], Doc("other data sets that are banned with it")] = ()
    why: Annotated[str, Doc("why it is held out")] = ""
    files: Annotated[tuple[str, ...], Doc("files of its items to decontaminate against, relative to the manifest")] = ()
    fields: Annotated[tuple[str, ...], Doc("fields that hold an item's text; a.b is field b of the object a")] = ()


class EvaluationManifest(Config, frozen=True, kw_only=True):
    """What a model is to be evaluated on."""

    benchmarks: Annotated[tuple[Benchmark, ...], Doc("the evaluations")]


class Bans(msgspec.Struct, frozen=True, kw_only=True):
    """A list of bans, by the name it was asked for with."""

    name: str
    benchmarks: tuple[Benchmark, ...]

    @property
    def digest(self) -> str:
        """A digest of what is banned and why, for plans; the name alone if that is nothing."""
        if not self.benchmarks:
            return NONE
        return files.digest_value([[item.name, *entry] for item in self.benchmarks for entry in _entries(item)])


class Banned(NamedTuple):
    """A data set that is on the list."""

    dataset: str
    """As it was given."""
    benchmark: str
    reason: str


def load_bans(name: str = DEFAULT) -> Bans:
    """The bundled list called ``name``, the list in the YAML file at the path ``name``, or ``none``.

    Raises :class:`ConfigError` for one that does not exist or does not fit.
    """
    if name == NONE:
        return Bans(name=NONE, benchmarks=())
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Bans(name=name, benchmarks=load_evaluation(Path(name)).benchmarks)
    import manifests

    bundled = load_evaluation(manifests.path(_BUNDLED)).benchmarks
    known = list(dict.fromkeys(word for benchmark in bundled for word in benchmark.lists))
    if name != ALL and name not in known:
        hint = did_you_mean(name, known) or f" Lists: {', '.join([*known, ALL, NONE])}, or a path."
        raise ConfigError(f"there is no list of bans '{name}'.{hint}")
    return Bans(name=name, benchmarks=tuple(item for item in bundled if name == ALL or name in item.lists))


def load_evaluation(path: Path) -> EvaluationManifest:
    """Read an evaluation manifest; raises :class:`ConfigError` for what does not fit."""
    manifest = load_yaml(path, EvaluationManifest)
    names = [benchmark.name for benchmark in manifest.benchmarks]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{path}: two benchmarks are called '{name}'; give each a name of its own.")
    for benchmark in manifest.benchmarks:
        for dataset, _ in _entries(benchmark):
            if not all(_parts(dataset)):
                raise ConfigError(f"{path}: benchmark '{benchmark.name}': '{dataset}' is no name of a data set.")
    return manifest


def find_banned(datasets: Iterable[str], bans: Bans) -> list[Banned]:
    """Which of ``datasets`` (``name``, ``name/subset``, with or without ``owner/`` in front) are banned, and why.

    A data set that several benchmarks ban is given once, with the first.
    """
    index = _index(bans)
    found = []
    for dataset in dict.fromkeys(datasets):
        hit = next((index[name] for name in _names_of(dataset) if name in index), None)
        if hit is not None:
            found.append(Banned(dataset, *hit))
    return found


def _index(bans: Bans) -> dict[tuple[str, ...], tuple[str, str]]:
    """Compared name -> benchmark and reason, of the first that bans it; a set without a subset may hold any part."""
    index: dict[tuple[str, ...], tuple[str, str]] = {}
    wholes: dict[tuple[str, ...], tuple[str, str]] = {}
    for benchmark in bans.benchmarks:
        for entry, why in _entries(benchmark):
            parts = _parts(entry)
            index.setdefault(parts, (benchmark.name, why))
            if len(parts) > 1:
                wholes.setdefault(
                    (*parts[:1], _WHOLE), (benchmark.name, f"it may hold {entry}; say which subset it is")
                )
    return {**wholes, **index}


def check_bans(
    datasets: Iterable[str], bans: Bans, allowed: Mapping[str, str] | None = None, *, where: str = ""
) -> None:
    """Raise :class:`UsageError` if a data set is banned and not among ``allowed`` (data set -> reason).

    ``where`` says where the data sets are listed. What a finished mip stage let in stands in its facts, ``allowed``.
    """
    spared = {_parts(dataset) for dataset in allowed or {}}
    found = [item for item in find_banned(datasets, bans) if _parts(item.dataset) not in spared]
    if not found:
        return
    first, rest = found[0], found[1 : _SHOWN + 1]
    others = f" So are {', '.join(item.dataset for item in rest)}" if rest else ""
    others += f" and {len(found) - 1 - len(rest)} more" if len(found) > len(rest) + 1 else ""
    raise UsageError(
        f"{where + ': ' if where else ''}data set '{first.dataset}' is banned "
        f"for the sake of {first.benchmark} ({first.reason}), by the list "
        f"'{bans.name}'.{others + '.' if others else ''} Leave it out, give its entry in the mixture "
        "'allowed: <your reason>', or choose another list with --bans (a path, or none)."
    )


def _entries(benchmark: Benchmark) -> Iterator[tuple[str, str]]:
    """Every banned name of a benchmark with its reason."""
    for dataset in benchmark.datasets:
        yield dataset, benchmark.why or "it is the evaluation itself"
    for related in benchmark.related:
        for dataset in related.datasets:
            yield dataset, related.why


def _names_of(dataset: str) -> Iterator[tuple[str, ...]]:
    """What a data set may be listed as: all of it and what it is below, then the same without an owner in front."""
    parts = _parts(dataset)
    for first in (0, 1):
        for last in range(len(parts), first, -1):
            yield parts[first:last]
    if len(parts) == 1:
        yield (*parts, _WHOLE)


def _parts(dataset: str) -> tuple[str, ...]:
    """The name as compared: letters and digits alone, in lower case, part by part."""
    folded = unicodedata.normalize("NFKC", dataset).casefold()
    return tuple("".join(filter(str.isalnum, part)) for part in folded.strip("/").split("/"))
