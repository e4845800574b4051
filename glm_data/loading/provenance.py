"""From rows back to what they were made of: documents and MIP samples, with the tokens taken from each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.loading.rows import PackedRows, misfit
from glm_data.packing.masking import invert
from glm_data.packing.rows import KINDS, MisfitRowError

DOCUMENTS = "documents.parquet"
_ROWS_AT_ONCE = 1 << 16
_FEW = ["source", "lang", "template"]
"""Columns of few values: read as numbers of values, a row group takes half the time."""


@dataclass(frozen=True)
class Slice:
    """Tokens of one document, or a whole MIP sample, within a piece of a row."""

    piece: int
    """Number of the piece in its row, from 0."""
    kind: str
    """One of ``glm_data.packing.rows.KINDS``."""
    document: int
    """Number of the document: a row of ``documents.parquet``."""
    offset: int
    """Where in the document's tokens the slice begins."""
    ids: np.ndarray
    """``int32[n]``: the source tokens, masks undone. For MIP the prompt and the answer, one after the other."""


def slices_of(pack: PackedRows, row: int) -> list[Slice]:
    """The slices of a row in the order of its pieces; :class:`InputError` for a row that no packer writes."""
    taken, found = pack.rows([row]), []
    origins = iter(pack.origins(row).tolist())
    try:
        texts = invert(taken, 0, pack.specials["eop"])
        for piece, (ids, kind) in enumerate(zip(texts, taken.pieces[:, 3].tolist(), strict=True)):
            while len(ids):
                document, offset, tokens = next(origins)
                if not 0 < tokens <= len(ids):
                    raise misfit(pack, row)
                found.append(Slice(piece, KINDS[kind], document, offset, ids[:tokens]))
                ids = ids[tokens:]
    except (StopIteration, MisfitRowError):
        raise misfit(pack, row) from None
    if next(origins, None) is not None:
        raise misfit(pack, row)
    return found


class Documents:
    """Ids, sources and languages of a pack's documents by number, read from the row groups that hold them."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / DOCUMENTS
        try:
            self._file = pq.ParquetFile(self.path, read_dictionary=_FEW)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"'{self.path}' cannot be read ({error}); run 'glm-data verify {folder}'.") from None
        groups = range(self._file.num_row_groups)
        rows = [self._file.metadata.row_group(group).num_rows for group in groups]
        self._first = np.cumsum([0, *rows])

    def __len__(self) -> int:
        return int(self._first[-1])

    def named(self, numbers: Iterable[int]) -> dict[int, dict[str, str]]:
        """``id``, ``source``, ``lang`` and ``template`` (of MIP) of each of ``numbers``.

        Raises :class:`InputError` if there is no such document.
        """
        wanted = np.unique(np.fromiter(numbers, np.int64))
        if len(wanted) and (wanted[0] < 0 or wanted[-1] >= len(self)):
            raise InputError(
                f"'{self.path}' has {len(self)} documents, but a row names number {wanted[-1]}; "
                f"run 'glm-data verify {self.path.parent}'."
            )
        groups = np.searchsorted(self._first, wanted, "right") - 1
        found: dict[int, dict[str, str]] = {}
        for group in np.unique(groups).tolist():
            own = wanted[groups == group]
            part = self._file.read_row_group(group, columns=["id", *_FEW], use_threads=False)
            found.update(zip(own.tolist(), part.take(own - self._first[group]).to_pylist(), strict=True))
        return found


def rows_with(pack: PackedRows, document: int) -> list[int]:
    """The rows that hold tokens of a document, ascending; reads the origins of every row, a few thousand at a time."""
    found: list[int] = []
    for first in range(0, len(pack), _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, len(pack)))
        offsets, values = pack.shards.column("origin", rows)
        places = np.flatnonzero(values.view(np.uint32)[::3] == document) * 3
        found += rows[np.unique(np.searchsorted(offsets, places, "right") - 1)].tolist()
    return found
