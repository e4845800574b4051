"""The items of evaluation sets: what a manifest lists, found, measured and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from glm_data.bans import Benchmark, load_evaluation
from glm_data.errors import ConfigError, InputError, UsageError, did_you_mean
from glm_data.formats import Unreadable
from glm_data.formats.rows import read_rows
from glm_data.stage import InputFile, find_inputs


class Source(NamedTuple):
    """One file of a benchmark's items."""

    benchmark: str
    fields: tuple[str, ...]
    file: InputFile


class Item(NamedTuple):
    """One evaluation item: its id, ``<file name>#<row>``, and the texts it is made of."""

    id: str
    texts: tuple[str, ...]


class Evaluation(msgspec.Struct, frozen=True):
    """The evaluation sets of a manifest, with their files found and measured."""

    sources: tuple[Source, ...]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names, in the manifest's order."""
        return tuple(dict.fromkeys(source.benchmark for source in self.sources))

    def plan(self) -> list[dict[str, Any]]:
        """What of it decides the output: everything but where the files lie."""
        return [
            {"benchmark": source.benchmark, "fields": list(source.fields), "file": source.file.name,
             "digest": source.file.digest}
            for source in self.sources
        ]  # fmt: skip


def read_evaluation(path: Path) -> Evaluation:
    """Read a manifest and find the files of its benchmarks; those without ``files`` are passed over.

    Raises :class:`ConfigError` if none has files, one has files but no fields, or files that do not exist.
    """
    listed = [benchmark for benchmark in load_evaluation(path).benchmarks if benchmark.files]
    if not listed:
        raise ConfigError(f"{path}: no benchmark has 'files'; give one the files of its items, and their 'fields'.")
    return Evaluation(tuple(source for benchmark in listed for source in _sources(path, benchmark)))


def _sources(path: Path, benchmark: Benchmark) -> list[Source]:
    if not benchmark.fields:
        raise ConfigError(
            f"{path}: benchmark '{benchmark.name}' has 'files' but no 'fields'; name those with its texts."
        )
    try:
        found = find_inputs([path.parent / given for given in benchmark.files])
    except UsageError as error:
        raise ConfigError(f"{path}: benchmark '{benchmark.name}': {error}") from None
    return [Source(benchmark.name, benchmark.fields, item) for item in found]


def read_items(source: Source) -> Iterator[Item]:
    """Yield the items of one file in order; an item may be without text.

    Raises :class:`InputError` for a row that cannot be read, :class:`ConfigError` if no row has any of the fields: what
    would be missed in silence is worth a stop.
    """
    known: dict[str, None] = {}
    seen = dict.fromkeys(source.fields, False)
    for row in read_rows(Path(source.file.path)):
        if isinstance(row, Unreadable):
            raise InputError(f"'{source.file.path}', row {row.record}: {row.detail or row.reason}; mend or remove it.")
        number, values = row
        texts: list[str] = []
        for field in source.fields:
            found = list(_texts(values, field.split(".")))
            seen[field] |= bool(found)
            texts += found
        known.update(dict.fromkeys(values))
        yield Item(f"{source.file.name}#{number}", tuple(texts))
    missing = next((field for field, is_there in seen.items() if not is_there), None)
    if missing is not None:
        hint = did_you_mean(missing, known) or f" Its fields: {', '.join(known) or 'none'}."
        raise ConfigError(
            f"benchmark '{source.benchmark}': no row of '{source.file.path}' has text in the field '{missing}'.{hint}"
        )


def _texts(value: Any, path: list[str]) -> Iterator[str]:
    """The strings at a path of field names; lists on the way stand for all of their elements."""
    if isinstance(value, list):
        for element in value:
            yield from _texts(element, path)
    elif path and isinstance(value, Mapping):
        yield from _texts(value.get(path[0]), path[1:])
    elif not path and isinstance(value, str) and value:
        yield value
