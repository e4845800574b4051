"""Rows of a data set: JSON lines or an array (plain, gzip or zstd), parquet, CSV, or a folder of ``datasets``.

Every row of the source comes back once, as a mapping or as :class:`~glm_data.formats.Unreadable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.formats import DEFAULT_MAX_RECORD_BYTES, Unreadable
from glm_data.formats.blocks import BadRecordError, Record, excerpt
from glm_data.formats.records import decode_json
from glm_data.formats.sniff import sniff
from glm_data.formats.splitting import read_records

Row = Mapping[str, Any]
_BATCH_ROWS = 1024


def read_rows(path: Path, split: str = "train") -> Iterator[tuple[int, Row] | Unreadable]:
    """Yield ``(number, row)`` from row 0 on; ``split`` is for folders that hold several.

    Raises :class:`InputError` if ``path`` is no file of rows at all.
    """
    try:
        if path.is_dir():
            return _read_folder(path, split)
        if path.suffix.lower() in (".csv", ".tsv"):
            return _read_csv(path)
        kind = sniff(path)
        if kind == "parquet":
            return _read_parquet(path)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error}); check the file.") from None
    if kind == "text":
        raise InputError(f"'{path}' holds no rows; give JSON lines, a JSON array, parquet, CSV or a datasets folder.")
    return _read_json(path, kind)


def _read_json(path: Path, kind: str) -> Iterator[tuple[int, Row] | Unreadable]:
    for record in read_records(path, kind, DEFAULT_MAX_RECORD_BYTES):
        yield record if isinstance(record, Unreadable) else _decode(record)


def _decode(record: Record) -> tuple[int, Row] | Unreadable:
    try:
        value = decode_json(record.data)
    except BadRecordError as error:
        return Unreadable(record.number, record.offset, error.reason, error.detail, excerpt(record.data))
    if not isinstance(value, dict):
        detail = "the record is not an object"
        return Unreadable(record.number, record.offset, "wrong_type", detail, excerpt(record.data))
    return record.number, value


def _read_parquet(path: Path) -> Iterator[tuple[int, Row] | Unreadable]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                yield from enumerate(batch.to_pylist(), number)
                number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield Unreadable(number, number, "corrupt", f"the file is damaged from row {number} on: {_line(error)}", "")


def _read_csv(path: Path) -> Iterator[tuple[int, Row] | Unreadable]:
    """CSV with a header line; types are inferred, so that a label is a number."""
    bad: list[Unreadable] = []

    def keep(row: Any) -> str:
        detail = f"{row.actual_columns} fields instead of {row.expected_columns}"
        bad.append(Unreadable(len(bad), 0, "wrong_type", detail, (row.text or "")[:160]))
        return "skip"

    parse = pa_csv.ParseOptions(
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True, invalid_row_handler=keep
    )
    try:
        table = pa_csv.read_csv(path, parse_options=parse, read_options=pa_csv.ReadOptions(use_threads=False))
    except pa.ArrowException as error:
        raise InputError(f"'{path}' is no CSV table with a header ({_line(error)}); check it.") from None
    number = 0
    for batch in table.to_batches(_BATCH_ROWS):
        yield from enumerate(batch.to_pylist(), number)
        number += batch.num_rows
    yield from bad


def _read_folder(path: Path, split: str) -> Iterator[tuple[int, Row] | Unreadable]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"'{path}' is no folder of save_to_disk ({_line(error)}); check it.") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise InputError(f"'{path}' has the splits {', '.join(loaded)}, but no '{split}'; name one of those.")
        loaded = loaded[split]
    return _read_dataset(loaded)


def _read_dataset(dataset: Any) -> Iterator[tuple[int, Row] | Unreadable]:
    number = 0
    for table in dataset.with_format("arrow").iter(_BATCH_ROWS):
        yield from enumerate(table.to_pylist(), number)
        number += table.num_rows


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
