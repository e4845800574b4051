"""The rows of a stage's tables, a page at a time: documents kept and dropped, samples, ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import InputError, UsageError
from glm_data.viewer.styled import Span, clip, reveal

PAGE_ROWS = 50
_CHARACTERS = 240
"""Of a value in a list."""
_WHOLE_CHARACTERS = 50_000


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A parquet file of a stage."""

    name: str
    rows: int
    columns: list[str]


class RecordView(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a table."""

    row: int
    values: dict[str, list[Span]]


class Tables:
    """The parquet files among ``names`` in ``folder``."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self.tables = [_describe(folder, name) for name in names if name.endswith(".parquet")]

    def page(self, name: str, first: int) -> list[RecordView]:
        """:data:`PAGE_ROWS` rows from ``first`` on, their values cut short."""
        rows = _read(self._folder / self._table(name).name, first, PAGE_ROWS)
        return [_record(first + place, row, _CHARACTERS) for place, row in enumerate(rows)]

    def record(self, name: str, row: int) -> RecordView:
        """One row, its values as long as they are (up to 50,000 characters)."""
        found = list(_read(self._folder / self._table(name).name, row, 1))
        if not found:
            raise UsageError(f"'{name}' has no row {row}.")
        return _record(row, found[0], _WHOLE_CHARACTERS)

    def _table(self, name: str) -> Table:
        for table in self.tables:
            if table.name == name:
                return table
        raise UsageError(f"the stage has no table '{name}'.")


def _describe(folder: Path, name: str) -> Table:
    with _open(folder / name) as file:
        return Table(name=name, rows=file.metadata.num_rows, columns=file.schema_arrow.names)


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read ({' '.join(str(error).split())}); run its stage again.") from None


def _read(path: Path, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Rows ``first`` to ``first + count - 1``; only the row groups that hold them are read."""
    with _open(path) as file:
        begin = 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if begin < first + count and first < end:
                low, high = max(first, begin), min(first + count, end)
                yield from file.read_row_group(group, use_threads=False).slice(low - begin, high - low).to_pylist()
            begin = end


def _record(row: int, values: dict[str, Any], characters: int) -> RecordView:
    return RecordView(row=row, values={name: _spans(value, characters) for name, value in values.items()})


def _spans(value: Any, characters: int) -> list[Span]:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return clip(reveal(text[: characters + 1]), characters)
