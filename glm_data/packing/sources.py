"""The text that the packer reads: tokenised documents as one seeded stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.kernels import compiled
from glm_data.packing.mixing import document_copies
from glm_data.packing.options import Recipe
from glm_data.packing.rng import DOCUMENT_ORDER, permutation

IDS_SUFFIX, DOCUMENTS_SUFFIX = ".ids.npy", ".documents.parquet"


@dataclass(frozen=True)
class Tokenized:
    """All documents of a tokenize stage, in input order: the number of a document is its place here."""

    stems: tuple[str, ...]
    """Shards, without what their files end with."""
    file: np.ndarray
    """``int32[D]``: which of ``stems`` holds a document."""
    offset: np.ndarray
    """``int64[D]``: where in its ids it starts."""
    length: np.ndarray
    """``int64[D]``: its tokens."""
    duplicates: np.ndarray
    """``int64[D]``: documents of the corpus that it stands for."""
    source: np.ndarray
    """``int32[D]``: number of its source in ``sources``."""
    sources: tuple[str, ...]
    lang: np.ndarray
    """``int32[D]``: number of its language in ``langs``."""
    langs: tuple[str, ...]


def read_tokenized(folder: Path, names: Sequence[str]) -> Tokenized:
    """Read the document tables of the shards ``names`` (``data/part-….documents.parquet`` and their ids)."""
    stems = sorted(name.removesuffix(IDS_SUFFIX) for name in names if name.endswith(IDS_SUFFIX))
    columns = ["offset", "length", "duplicates", "source", "lang"]
    tables = [_read_table(folder / (stem + DOCUMENTS_SUFFIX), columns) for stem in stems]
    if not tables:
        raise InputError(f"'{folder}' holds no tokenised shard; run the tokenize stage first.")
    table = pa.concat_tables(tables)
    _check_places(folder, stems, tables)
    source, sources = _numbered(table["source"])
    lang, langs = _numbered(table["lang"])
    return Tokenized(
        stems=tuple(stems),
        file=np.repeat(np.arange(len(tables), dtype=np.int32), [len(part) for part in tables]),
        offset=table["offset"].to_numpy().astype(np.int64),
        length=table["length"].to_numpy().astype(np.int64),
        duplicates=table["duplicates"].to_numpy().astype(np.int64),
        source=source,
        sources=sources,
        lang=lang,
        langs=langs,
    )


def _read_table(path: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, read_dictionary=["source", "lang"])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' cannot be read ({error}); run the tokenize stage again.") from None


def _check_places(folder: Path, stems: Sequence[str], tables: Sequence[pa.Table]) -> None:
    """Every document lies within the ids of its shard: compiled code copies from there."""
    for stem, table, ids in zip(stems, tables, map_ids(folder, stems), strict=True):
        offset, length = table["offset"].to_numpy(), table["length"].to_numpy()
        if len(table) and (offset.min() < 0 or length.min() < 0 or (offset + length).max() > len(ids)):
            raise InputError(f"'{folder / (stem + DOCUMENTS_SUFFIX)}' names ids that its shard has not; it is damaged.")


def _numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """``int32[D]`` numbers of the values, and the values in alphabetical order."""
    encoded = column.unify_dictionaries().combine_chunks() if column.num_chunks else column
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], pa.dictionary(pa.int32(), pa.string()))
    names = np.array(encoded.dictionary.to_pylist(), object)
    order = np.argsort(names.astype(str), kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], tuple(names[order].tolist())


@dataclass(frozen=True)
class TextStream:
    """Documents in a seeded order, each followed by ``<eos>``, read from mapped files on demand."""

    files: tuple[np.ndarray, ...]
    """Mapped flat ids, one array a tokenised shard."""
    file: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    """As in :class:`Tokenized`."""
    order: np.ndarray
    """``int64[N]``: the documents in stream order; one that is used twice stands there twice."""
    starts: np.ndarray
    """``int64[N + 1]``: where they start in the stream."""
    eos: int

    def slices(self, starts: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The document slices of slices of the stream: ``int64[n, 3]`` (document, offset, tokens), and how many each
        has. The token behind a document's last one is its <eos>."""
        first = np.searchsorted(self.starts, starts, "right") - 1
        last = np.searchsorted(self.starts, starts + tokens, "left")
        counts = last - first
        which = np.repeat(np.arange(len(starts)), counts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        begin = np.maximum(starts[which], self.starts[place])
        end = np.minimum(starts[which] + tokens[which], self.starts[place + 1])
        return np.stack([self.order[place], begin - self.starts[place], end - begin], 1), counts

    def gather(self, slices: np.ndarray) -> np.ndarray:
        """``int32[n]``: the tokens of document slices, one after the other."""
        document, offset, tokens = slices.T
        ends = np.cumsum(tokens)
        out = np.empty(int(ends[-1]) if len(ends) else 0, np.int32)
        count = np.minimum(tokens, self.length[document] - offset)
        out[ends[count < tokens] - 1] = self.eos
        file = self.file[document]
        for number in np.unique(file).tolist():
            own = np.flatnonzero(file == number)
            source = self.offset[document[own]] + offset[own]
            _copy_slices(self.files[number], source, count[own], (ends - tokens)[own], out)
        return out


@compiled
def _copy_slices(ids: np.ndarray, source: np.ndarray, count: np.ndarray, target: np.ndarray, out: np.ndarray) -> None:
    for at in range(len(source)):
        first, place = source[at], target[at]
        for step in range(count[at]):
            out[place + step] = ids[first + step]


def map_ids(folder: Path, stems: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Flat ids of tokenised shards, mapped."""
    mapped = []
    for stem in stems:
        path = folder / (stem + IDS_SUFFIX)
        try:
            mapped.append(np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray))
        except (OSError, ValueError) as error:
            raise InputError(f"'{path}' cannot be read ({error}); run the tokenize stage again.") from None
    return tuple(mapped)


def stream_order(documents: Tokenized, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``int64[N]`` documents in stream order, ``int64[N + 1]`` where they start, and ``int64[D]`` how often each is
    used: as often as the recipe's mix says."""
    copies = document_copies(documents, recipe)
    items = np.repeat(np.arange(len(copies)), copies)
    order = items[permutation(recipe.seed, len(items), DOCUMENT_ORDER)]
    return order, np.concatenate([[0], np.cumsum(documents.length[order] + 1)]), copies
