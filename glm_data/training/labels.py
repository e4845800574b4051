"""Language and source of what a row's pieces are made of, so that losses can be told apart by them.

A piece may hold several documents (stream boundaries); it counts as the one that gives it most tokens. The source of a
MIP sample is its data set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from glm_data.errors import InputError
from glm_data.loading import PackedRows
from glm_data.loading.provenance import DOCUMENTS, slices_of
from glm_data.training.batches import FlatBatch, IntArray
from glm_data.training.losses import LossSums


class LabelNames(NamedTuple):
    """The names behind the numbers of :class:`PackLabels`, as metrics have them."""

    languages: tuple[str, ...]
    sources: tuple[str, ...]


class PackLabels:
    """Labels of a pack's pieces; in memory one byte a document for each of the two, more for more than 256 names."""

    def __init__(self, pack: PackedRows) -> None:
        self.pack = pack
        path = pack.folder / DOCUMENTS
        try:
            table = pq.read_table(path, columns=["lang", "source"], read_dictionary=["lang", "source"])
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"'{path}' cannot be read ({error}); run 'glm-data verify {pack.folder}'.") from None
        self._langs, languages = _numbered(table["lang"])
        self._sources, sources = _numbered(table["source"])
        self.names = LabelNames(
            tuple(f"lang/{name}" for name in languages), tuple(f"source/{name}" for name in sources)
        )

    def add(self, sums: LossSums, losses_P: Tensor, batch: FlatBatch, rows: IntArray) -> None:
        """Add the losses of ``batch``, whose rows are numbered ``rows`` in the pack, by language and by source."""
        language, source = self.of(batch, rows)
        sums.add_labels(losses_P, self.names.languages, language)
        sums.add_labels(losses_P, self.names.sources, source)

    def of(self, batch: FlatBatch, rows: IntArray) -> tuple[IntArray, IntArray]:
        """Language and source, numbers into the names ``[P]``, of the predicting tokens."""
        documents = np.zeros(len(batch.row_P), np.int64)
        for number, row in enumerate(rows.tolist()):
            here = batch.row_P == number
            documents[here] = self._documents(row)[batch.piece_P[here]]
        return self._langs[documents], self._sources[documents]

    def _documents(self, row: int) -> IntArray:
        """The document of each piece of a row."""
        origins, pieces = self.pack.origins(row), len(self.pack.rows([row]).pieces)
        if len(origins) in (1, pieces):
            return np.broadcast_to(origins[:, 0], pieces)
        most = np.zeros((2, pieces), np.int64)
        for found in slices_of(self.pack, row):
            if len(found.ids) > most[0, found.piece]:
                most[:, found.piece] = len(found.ids), found.document
        return most[1]


def _numbered(column: pa.ChunkedArray) -> tuple[IntArray, tuple[str, ...]]:
    column = column.unify_dictionaries()
    names = column.chunk(0).dictionary.to_pylist() if column.num_chunks else []
    kind = np.min_scalar_type(max(0, len(names) - 1))
    indices = [chunk.indices.to_numpy().astype(kind) for chunk in column.chunks]
    return np.concatenate([np.zeros(0, kind), *indices]), tuple(names)
