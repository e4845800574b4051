"""Memory-mapped packed rows and the batches made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from glm_data.errors import InputError
from glm_data.packing.rows import Rows, assemble
from glm_data.packing.shards import TOKEN_TYPES
from glm_data.stage import Success, read_success


@dataclass(frozen=True)
class Batch:
    """``B`` rows ready for a model; every array is ``[B, L]``."""

    tokens: np.ndarray
    """``int32``: the model's input."""
    targets: np.ndarray
    """``int32``: what is to be predicted here, where ``loss_mask`` is 1."""
    position_ids: np.ndarray
    """``int32``."""
    loss_mask: np.ndarray
    """``uint8``."""
    segments: np.ndarray
    """``uint8``: piece number from 1, 0 on padding."""
    pieces: list[np.ndarray]
    """For each row ``int32[p, 4]``: (start, sep, end, kind) of its pieces."""


@dataclass(frozen=True)
class _Shard:
    tokens: np.ndarray
    ragged: dict[str, tuple[np.ndarray, np.ndarray]]
    """For pieces, spans, tails, origin: (offsets, flat values), mapped."""


class PackedRows:
    """All rows of a pack, mapped; opening reads no row. Use :meth:`open`."""

    def __init__(self, folder: Path, manifest: Success) -> None:
        self.folder = folder
        self.manifest = manifest
        self.seq_length: int = manifest.facts["seq_length"]
        self.specials: dict[str, int] = manifest.facts["specials"]
        self._listed: list[dict[str, Any]] = manifest.facts["shards"]
        self._first = np.concatenate([[0], np.cumsum([item["rows"] for item in self._listed])])
        self._open: dict[int, _Shard] = {}

    @classmethod
    def open(cls, folder: Path) -> PackedRows:
        """Open a finished pack; :class:`UsageError` if it is not one, :class:`InputError` if a shard is cut."""
        manifest = read_success(folder)
        if manifest.stage != "pack":
            raise InputError(f"'{folder}' is a finished '{manifest.stage}' stage, not a pack; give the pack's folder.")
        sizes = {item.name: item.bytes for item in manifest.files}
        for listed in manifest.facts["shards"]:
            path = folder / listed["file"]
            if not path.exists() or path.stat().st_size != sizes[listed["file"]]:
                raise InputError(f"'{path}' is missing or cut; pack again with --overwrite or restore the file.")
        return cls(folder, manifest)

    def __len__(self) -> int:
        return int(self._first[-1])

    def rows(self, indices: Sequence[int] | np.ndarray) -> Rows:
        """The rows ``indices`` (``int64[B]``), copied from the maps, tokens as ``int32``."""
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"row {wanted.min()}..{wanted.max()} is outside a pack of {len(self)} rows")
        numbers = np.searchsorted(self._first, wanted, "right") - 1
        tokens = np.empty((len(wanted), self.seq_length), np.int32)
        for at, (number, row) in enumerate(zip(numbers, wanted, strict=True)):
            tokens[at] = self._shard(number).tokens[row - self._first[number]]
        columns = {name: self._gather(name, numbers, wanted) for name in ("pieces", "spans", "tails")}
        return Rows(
            tokens=tokens,
            piece_offsets=columns["pieces"][0] // 4,
            pieces=columns["pieces"][1].reshape(-1, 4),
            span_offsets=columns["spans"][0] // 3,
            spans=columns["spans"][1].reshape(-1, 3),
            tail_offsets=columns["tails"][0],
            tails=columns["tails"][1],
        )

    def origins(self, row: int) -> np.ndarray:
        """``int64[n, 3]``: the (document, offset, tokens) slices of a row; numbers of ``documents.parquet``."""
        number = int(np.searchsorted(self._first, row, "right")) - 1
        _, values = self._gather("origin", np.array([number]), np.array([row]))
        return values.astype(np.int64).reshape(-1, 3)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The rows ``indices`` assembled for a model."""
        rows = self.rows(indices)
        derived = assemble(rows, self.specials["eop"])
        return Batch(
            tokens=rows.tokens,
            targets=derived.targets,
            position_ids=derived.position_ids,
            loss_mask=derived.loss_mask,
            segments=derived.segments,
            pieces=[rows.row_pieces(row) for row in range(len(rows))],
        )

    def _gather(self, name: str, numbers: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for number, row in zip(numbers, wanted, strict=True):
            offsets, values = self._shard(number).ragged[name]
            local = row - self._first[number]
            parts.append(values[offsets[local] : offsets[local + 1]])
        ends = np.cumsum([0, *(len(part) for part in parts)])
        return ends, np.concatenate(parts).astype(np.int32) if parts else np.empty(0, np.int32)

    def _shard(self, number: int) -> _Shard:
        number = int(number)
        if number not in self._open:
            self._open[number] = _map_shard(self.folder, self._listed[number], self.manifest.facts)
        return self._open[number]


def _map_shard(folder: Path, listed: dict[str, Any], facts: dict[str, Any]) -> _Shard:
    path = folder / listed["file"]
    shape = (listed["rows"], facts["seq_length"])
    tokens = np.memmap(path, TOKEN_TYPES[facts["token_type"]][0], "r", listed["offset"], shape)
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_stream(source).read_next_batch()
    ragged = {}
    for name in ("pieces", "spans", "tails", "origin"):
        column = batch.column(name)
        ragged[name] = (column.offsets.to_numpy(), column.values.to_numpy())
    return _Shard(tokens, ragged)
