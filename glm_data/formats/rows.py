"""Rows of a data set: JSON lines or an array (plain, gzip or zstd), parquet, CSV, or a folder of ``datasets``.

Every row of the source comes back once, as a mapping or as :class:`~glm_data.formats.Unreadable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
Wanted = range | frozenset[int]
_BATCH_ROWS = 1024


class TableForm(NamedTuple):
    """How CSV and TSV files are written, as far as it cannot be seen."""

    names: tuple[str, ...] = ()
    """Names of the columns of a file without a header line."""
    quoted: bool = True
    """Whether ``"`` encloses fields; else it is a character like others."""
    escaped: bool = False
    """Whether a line end inside a field is written as backslash and n."""


def read_rows(
    path: Path, split: str = "train", form: TableForm | None = None, wanted: Wanted | None = None
) -> Iterator[tuple[int, Row] | Unreadable]:
    """Yield ``(number, row)`` from row 0 on; ``split`` is for folders that hold several.

    ``wanted`` are the numbers of the rows to yield, all by default; others cost as little as their format allows, and
    what is unreadable comes with the number that it has or, where it has none, with the last.

    Raises :class:`InputError` if ``path`` is no file of rows at all.
    """
    return (item for item in _read(path, split, form or TableForm(), wanted) if _is_wanted(item, wanted))


def count_rows(path: Path, split: str = "train", form: TableForm | None = None) -> int:
    """Rows of a source, unreadable ones included, without decoding them; raises as :func:`read_rows`."""
    nothing: Wanted = frozenset()
    if path.is_file() and sniff(path) == "parquet":
        try:
            with pq.ParquetFile(path) as file:
                return int(file.metadata.num_rows)
        except (pa.ArrowException, OSError):
            return 1
    return sum(1 for _ in _read(path, split, form or TableForm(), nothing))


def _is_wanted(item: tuple[int, Row] | Unreadable, wanted: Wanted | None) -> bool:
    return wanted is None or (item.record if isinstance(item, Unreadable) else item[0]) in wanted


def _read(path: Path, split: str, form: TableForm, wanted: Wanted | None) -> Iterator[tuple[int, Row] | Unreadable]:
    try:
        if path.is_dir():
            return _read_folder(path, split, wanted)
        if path.suffix.lower() in (".csv", ".tsv"):
            return _read_csv(path, form)
        kind = sniff(path)
        if kind == "parquet":
            return _read_parquet(path, wanted)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror or error}); check the file.") from None
    if kind == "text":
        raise InputError(
            f"'{path}' is plain text, which has no rows with fields; give JSON lines or a JSON array (plain, .gz or "
            ".zst), parquet, CSV or TSV, or a folder of datasets."
        )
    return _read_json(path, kind, wanted)


def _read_json(path: Path, kind: str, wanted: Wanted | None) -> Iterator[tuple[int, Row] | Unreadable]:
    for found in read_records(path, kind, DEFAULT_MAX_RECORD_BYTES):
        if isinstance(found, Unreadable):
            yield found
            continue
        for record in found.each():
            if isinstance(wanted, range) and record.number >= wanted.stop:
                return
            is_wanted = wanted is None or record.number in wanted
            yield _decode(record) if is_wanted else (record.number, {})


def _decode(record: Record) -> tuple[int, Row] | Unreadable:
    try:
        value = decode_json(record.data)
    except BadRecordError as error:
        return Unreadable(record.number, record.offset, error.reason, error.detail, excerpt(record.data))
    if not isinstance(value, dict):
        detail = "the record is not an object"
        return Unreadable(record.number, record.offset, "wrong_type", detail, excerpt(record.data))
    return record.number, value


def _read_parquet(path: Path, wanted: Wanted | None) -> Iterator[tuple[int, Row] | Unreadable]:
    first = 0
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        yield Unreadable(0, 0, "corrupt", f"the file is damaged: {_line(error)}", "")
        return
    with file:
        for group in range(file.num_row_groups):
            rows = range(first, first + file.metadata.row_group(group).num_rows)
            if _touches(wanted, rows):
                yield from _read_group(file, group, rows, wanted)
            first = rows.stop


def _read_group(
    file: pq.ParquetFile, group: int, rows: range, wanted: Wanted | None
) -> Iterator[tuple[int, Row] | Unreadable]:
    """The rows of a row group; if it is damaged, its rest (as far as wanted) is one unreadable item."""
    number = rows.start
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], use_threads=False):
            yield from enumerate(batch.to_pylist(), number)
            number += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        rest = range(number, rows.stop)
        if isinstance(wanted, range):
            rest = range(max(number, wanted.start), min(rows.stop, wanted.stop))
        detail = f"row group {group} is damaged from row {number} on: {_line(error)}"
        yield Unreadable(rest.start, rest.start, "corrupt", detail, "", len(rest))


def _touches(wanted: Wanted | None, rows: range) -> bool:
    """Whether any of ``rows`` is wanted."""
    if isinstance(wanted, range):
        return rows.start < wanted.stop and wanted.start < rows.stop
    return wanted is None or any(number in wanted for number in rows)


def _read_csv(path: Path, form: TableForm) -> Iterator[tuple[int, Row] | Unreadable]:
    """CSV, with a header line or given names; types are inferred, so that a label is a number. Bad rows come last."""
    bad: list[tuple[str, str]] = []

    def keep(row: Any) -> str:
        bad.append((f"{row.actual_columns} fields instead of {row.expected_columns}", (row.text or "")[:160]))
        return "skip"

    parse = pa_csv.ParseOptions(
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        quote_char='"' if form.quoted else False,
        newlines_in_values=form.quoted,
        invalid_row_handler=keep,
    )
    read = pa_csv.ReadOptions(use_threads=False, column_names=list(form.names) or None)
    try:
        table = pa_csv.read_csv(path, parse_options=parse, read_options=read)
        table.schema.names  # noqa: B018 - decoded here
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is no CSV table with a header ({_line(error)}); check it.") from None
    number = 0
    has_bytes = any(pa.types.is_binary(kind) for kind in table.schema.types)  # a column with anything but UTF-8
    for batch in table.to_batches(_BATCH_ROWS):
        rows = batch.to_pylist()
        if form.escaped:
            rows = [{name: _unescape(value) for name, value in row.items()} for row in rows]
        numbered = enumerate(rows, number)
        yield from (_decode_bytes(place, row) for place, row in numbered) if has_bytes else numbered
        number += batch.num_rows
    for place, (detail, text) in enumerate(bad, number):
        yield Unreadable(place, 0, "wrong_type", detail, text)


def _unescape(value: Any) -> Any:
    return value.replace("\\n", "\n") if isinstance(value, str) else value


def _decode_bytes(number: int, row: Row) -> tuple[int, Row] | Unreadable:
    try:
        return number, {name: value.decode() if isinstance(value, bytes) else value for name, value in row.items()}
    except UnicodeDecodeError as error:
        return Unreadable(number, 0, "invalid_utf8", str(error), excerpt(error.object))


def _read_folder(path: Path, split: str, wanted: Wanted | None) -> Iterator[tuple[int, Row] | Unreadable]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"'{path}' is no folder of save_to_disk ({_line(error)}); check it.") from None
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise InputError(f"'{path}' has the splits {', '.join(loaded)}, but no '{split}'; name one of those.")
        loaded = loaded[split]
    return _read_dataset(loaded, wanted)


def _read_dataset(dataset: Any, wanted: Wanted | None) -> Iterator[tuple[int, Row] | Unreadable]:
    if wanted is not None and not wanted:  # counting
        yield from ((number, {}) for number in range(len(dataset)))
        return
    number = 0
    if isinstance(wanted, range):
        if wanted.start >= len(dataset):
            return
        number = wanted.start
        dataset = dataset.select(range(number, min(wanted.stop, len(dataset))))
    for table in dataset.with_format("arrow").iter(_BATCH_ROWS):
        yield from enumerate(table.to_pylist(), number)
        number += table.num_rows


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
