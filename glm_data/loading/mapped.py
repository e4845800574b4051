"""Shards mapped into memory, and rows gathered from any of them at once by compiled code.

A shard is mapped when a row of it is first wanted, by one map whose file is closed again: thousands of shards need
thousands of maps but no open files. What the compiled gather needs is a table of addresses, one line a shard::

    0       1           2                       3                       4
    tokens  token bytes pieces: offsets, values, number of values       spans: ...

A damaged file must not lead to a read outside of its map, so a shard's buffers are measured when it is mapped and every
row's offsets are checked when it is read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import carray, types
from numba.extending import intrinsic

from glm_data.errors import InputError
from glm_data.kernels import compiled
from glm_data.packing.rows import Rows
from glm_data.packing.shards import TOKEN_TYPES, schema

_TOKENS, _TOKEN_BYTES, _RAGGED = 0, 1, 2
_OUTSIDE, _READY = -2, -1


class _Column(NamedTuple):
    """A ragged column: where its part of a table's line begins, bytes of a value, values that belong together."""

    place: int
    item_bytes: int
    unit: int


COLUMNS = {
    "pieces": _Column(_RAGGED, 2, 4),
    "spans": _Column(_RAGGED + 3, 2, 3),
    "tails": _Column(_RAGGED + 6, 4, 1),
    "origin": _Column(_RAGGED + 9, 4, 3),
    "keys": _Column(_RAGGED + 12, 8, 1),
}
_WIDTH = _RAGGED + 3 * len(COLUMNS)


class ShardFile(NamedTuple):
    """A shard to map: its file and the rows that its manifest says are in it."""

    path: Path
    rows: int


class MappedShards:
    """The rows of ``files``, one after the other, as one table of rows of ``seq_length`` tokens."""

    def __init__(self, files: Sequence[ShardFile], seq_length: int) -> None:
        self.files = tuple(files)
        self.seq_length = seq_length
        self.first = np.zeros(len(self.files) + 1, np.int64)
        np.cumsum([file.rows for file in self.files], out=self.first[1:])
        self._table = np.zeros((len(self.files), _WIDTH), np.int64)
        self._held: dict[int, pa.RecordBatch] = {}
        """Batches whose buffers the table points into."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the files anew."""
        return MappedShards, (self.files, self.seq_length)

    def __len__(self) -> int:
        return int(self.first[-1])

    def tokens(self, wanted: np.ndarray) -> np.ndarray:
        """``int32[B, L]``: the tokens of the rows ``wanted`` (``int64[B]``); raises ``IndexError`` outside of them."""
        wanted = np.ascontiguousarray(wanted, np.int64)
        return self._tokens(wanted, self._shards_of(wanted))

    def rows(self, wanted: np.ndarray) -> Rows:
        """The rows ``wanted`` with their pieces, spans and tails, copied out of the maps."""
        wanted = np.ascontiguousarray(wanted, np.int64)
        shards = self._shards_of(wanted)
        pieces = self._ragged("pieces", wanted, shards)
        spans = self._ragged("spans", wanted, shards)
        tails = self._ragged("tails", wanted, shards)
        return Rows(
            tokens=self._tokens(wanted, shards),
            piece_offsets=pieces[0] >> 2,
            pieces=pieces[1].reshape(-1, 4),
            span_offsets=spans[0] // 3,
            spans=spans[1].reshape(-1, 3),
            tail_offsets=tails[0],
            tails=tails[1],
        )

    def column(self, name: str, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Offsets ``int64[B + 1]`` and flat values of one of :data:`COLUMNS` for the rows ``wanted``.

        Values are ``int32``; of ``keys`` they are ``int64`` with the bits of ``uint64``.
        """
        wanted = np.ascontiguousarray(wanted, np.int64)
        return self._ragged(name, wanted, self._shards_of(wanted))

    def batch(self, number: int) -> pa.RecordBatch:
        """Everything of one shard, mapped."""
        if number not in self._held:
            self._map(number)
        return self._held[number]

    def place_of(self, row: int) -> tuple[Path, int]:
        """The file that holds ``row``, and which of its rows that is."""
        shard = int(np.searchsorted(self.first, row, "right")) - 1
        return self.files[shard].path, row - int(self.first[shard])

    def _tokens(self, wanted: np.ndarray, shards: np.ndarray) -> np.ndarray:
        out = np.empty((len(wanted), self.seq_length), np.int32)
        _gather_tokens(wanted, shards, self.first, self._table, out)
        return out

    def _ragged(self, name: str, wanted: np.ndarray, shards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place, item_bytes, unit = COLUMNS[name]
        ends = np.empty(len(wanted) + 1, np.int64)
        fault = _measure(wanted, shards, self.first, self._table, place, unit, ends)
        if fault >= 0:
            path, row = self.place_of(int(wanted[fault]))
            raise InputError(
                f"'{path}' is damaged: the {name} of its row {row} lie outside of it; "
                f"run 'glm-data verify {path.parent}'."
            )
        values = np.empty(ends[-1], np.int64 if item_bytes == 8 else np.int32)
        _gather_values(wanted, shards, self.first, self._table, place, item_bytes, ends, values)
        return ends, values

    def _shards_of(self, wanted: np.ndarray) -> np.ndarray:
        """``int64[B]``: the shard of each row, every one of them mapped."""
        shards = np.empty(len(wanted), np.int64)
        while (number := _locate(wanted, self.first, self._table, shards)) != _READY:
            if number == _OUTSIDE:
                raise IndexError(f"row {wanted.min()}..{wanted.max()} is outside a pack of {len(self)} rows")
            self._map(number)
        return shards

    def _map(self, number: int) -> None:
        file = self.files[number]
        try:
            with pa.memory_map(str(file.path)) as source:
                batch = pa.ipc.open_stream(source).read_next_batch()
            batch.validate()
            line = _addresses(batch, file.rows, self.seq_length)
        except (OSError, StopIteration, ValueError, pa.ArrowException) as error:  # damaged metadata
            raise InputError(
                f"'{file.path}' cannot be read as a shard of {file.rows} rows of {self.seq_length} tokens "
                f"({str(error) or 'it is empty'}); run 'glm-data verify {file.path.parent}'."
            ) from None
        self._held[number] = batch
        self._table[number] = line


def _addresses(batch: pa.RecordBatch, rows: int, seq_length: int) -> list[int]:
    """A line of the table; raises ``pa.ArrowInvalid`` if the batch is not one of ``rows`` rows of the format."""
    kind = next((kind for kind, wanted in _schemas(seq_length).items() if _has_columns(batch.schema, wanted)), None)
    if batch.num_rows != rows or kind is None:
        raise pa.ArrowInvalid(f"it holds {batch.num_rows} rows of {', '.join(map(str, batch.schema.types))}")
    tokens, item = batch.column("tokens"), TOKEN_TYPES[kind][1].bit_width // 8
    line = [_address(tokens.buffers()[-1], rows * seq_length * item), item]
    for name, (_, item_bytes, _) in COLUMNS.items():
        column = batch.column(name)
        values = len(column.values)
        _, offsets, _, flat = column.buffers()
        line += [_address(offsets, 4 * (rows + 1)), _address(flat, values * item_bytes), values]
    return line


@functools.cache
def _schemas(seq_length: int) -> dict[str, pa.Schema]:
    return {kind: schema(seq_length, kind) for kind in TOKEN_TYPES}


def _has_columns(found: pa.Schema, wanted: pa.Schema) -> bool:
    places = (found.get_field_index(field.name) for field in wanted)
    return all(
        place >= 0 and found.field(place).type == field.type for place, field in zip(places, wanted, strict=True)
    )


def _address(buffer: pa.Buffer | None, least: int) -> int:
    size = 0 if buffer is None else buffer.size
    if size < least:
        raise pa.ArrowInvalid(f"a column has {size} bytes instead of {least}")
    return 0 if buffer is None else int(buffer.address)


# --- compiled ---------------------------------------------------------------------------------------------------------


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    """``address`` (int64) as a pointer."""

    def generate(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), generate


@compiled
def _locate(wanted: np.ndarray, first: np.ndarray, table: np.ndarray, shards: np.ndarray) -> int:
    """Fill in the shard of each row; returns a shard that is still to be mapped, ``_READY`` or ``_OUTSIDE``."""
    for index in range(len(wanted)):
        row = wanted[index]
        if row < 0 or row >= first[-1]:
            return _OUTSIDE
        low, high = 0, len(first) - 1
        while high - low > 1:
            middle = (low + high) // 2
            if first[middle] <= row:
                low = middle
            else:
                high = middle
        if table[low, _TOKENS] == 0:
            return low
        shards[index] = low
    return _READY


@compiled
def _gather_tokens(
    wanted: np.ndarray, shards: np.ndarray, first: np.ndarray, table: np.ndarray, out: np.ndarray
) -> None:
    length = out.shape[1]
    for index in range(len(wanted)):
        shard = shards[index]
        size = table[shard, _TOKEN_BYTES]
        start = table[shard, _TOKENS] + (wanted[index] - first[shard]) * length * size
        if size == 2:
            narrow = carray(_pointer(start), (length,), np.uint16)
            for place in range(length):
                out[index, place] = narrow[place]
        else:
            wide = carray(_pointer(start), (length,), np.int32)
            for place in range(length):
                out[index, place] = wide[place]


@compiled
def _measure(
    wanted: np.ndarray,
    shards: np.ndarray,
    first: np.ndarray,
    table: np.ndarray,
    place: int,
    unit: int,
    ends: np.ndarray,
) -> int:
    """Fill in the offsets of the gathered values; returns the index of a row whose own cannot be, or -1."""
    ends[0] = 0
    for index in range(len(wanted)):
        line = table[shards[index]]
        local = wanted[index] - first[shards[index]]
        offsets = carray(_pointer(line[place] + 4 * local), (2,), np.int32)
        count = offsets[1] - offsets[0]
        if offsets[0] < 0 or count < 0 or count % unit or offsets[1] > line[place + 2]:
            return index
        ends[index + 1] = ends[index] + count
    return -1


@compiled
def _gather_values(
    wanted: np.ndarray,
    shards: np.ndarray,
    first: np.ndarray,
    table: np.ndarray,
    place: int,
    item_bytes: int,
    ends: np.ndarray,
    values: np.ndarray,
) -> None:
    for index in range(len(wanted)):
        line = table[shards[index]]
        local = wanted[index] - first[shards[index]]
        offsets = carray(_pointer(line[place] + 4 * local), (2,), np.int32)
        start, count, base = line[place + 1] + offsets[0] * item_bytes, ends[index + 1] - ends[index], ends[index]
        if item_bytes == 2:
            narrow = carray(_pointer(start), (count,), np.uint16)
            for at in range(count):
                values[base + at] = narrow[at]
        elif item_bytes == 8:
            word = carray(_pointer(start), (count,), np.int64)
            for at in range(count):
                values[base + at] = word[at]
        else:
            wide = carray(_pointer(start), (count,), np.int32)
            for at in range(count):
                values[base + at] = wide[at]
