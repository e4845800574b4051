"""What the packer reads: tokenised documents as one seeded stream, and MIP samples as ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.packing.fill import MipTokens
from glm_data.packing.mixing import document_copies
from glm_data.packing.options import Recipe
from glm_data.packing.rng import DOCUMENT_ORDER, permutation
from tokenizer import Tokenizer

IDS_SUFFIX, DOCUMENTS_SUFFIX = ".ids.npy", ".documents.parquet"
_ENCODE_ROWS = 4096


@dataclass(frozen=True)
class TextStream:
    """All documents in a seeded order, each followed by ``<eos>``, read from mapped files on demand."""

    files: tuple[np.ndarray, ...]
    """Mapped flat ids, one array a tokenised shard."""
    documents: pa.Table
    """Columns id, source, lang of every document, in input order; the row number is the document's number."""
    file: np.ndarray
    """``int32[D]``: which of ``files`` holds a document."""
    offset: np.ndarray
    """``int64[D]``: where in its file it starts."""
    order: np.ndarray
    """``int64[N]``: the documents in stream order; one that is used twice stands there twice."""
    starts: np.ndarray
    """``int64[N + 1]``: where they start in the stream."""
    eos: int

    @property
    def tokens(self) -> int:
        """The length of the stream, ``<eos>`` included."""
        return int(self.starts[-1])

    def read(self, first: int, last: int) -> np.ndarray:
        """``int32[last - first]``: the stream from offset ``first`` to ``last``."""
        out = np.full(last - first, self.eos, np.int32)
        begin = int(np.searchsorted(self.starts, first, "right")) - 1
        place = begin
        while place < len(self.order) and self.starts[place] < last:
            document, start = self.order[place], int(self.starts[place])
            length = int(self.starts[place + 1]) - start - 1
            skip, stop = max(0, first - start), min(length, last - start)
            if stop > skip:
                source = self.offset[document]
                ids = self.files[self.file[document]][source + skip : source + stop]
                out[start + skip - first : start + stop - first] = ids
            place += 1
        return out

    def gather(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """``int32[sum(lengths)]``: several slices of the stream one after another; neighbours are read as one."""
        ends = starts + lengths
        joins = np.flatnonzero(np.concatenate([[True], starts[1:] != ends[:-1]])) if len(starts) else np.empty(0, int)
        lasts = np.append(joins[1:], len(starts)) - 1
        parts = [self.read(int(starts[a]), int(ends[b])) for a, b in zip(joins, lasts, strict=False) if b >= a]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def origins(self, starts: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The document slices of stream slices: ``int64[n, 3]`` (document, offset, tokens) and how many each has."""
        first = np.searchsorted(self.starts, starts, "right") - 1
        last = np.searchsorted(self.starts, starts + tokens, "left")
        counts = last - first
        which = np.repeat(np.arange(len(starts)), counts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        begin = np.maximum(starts[which], self.starts[place])
        end = np.minimum(starts[which] + tokens[which], self.starts[place + 1])
        return np.stack([self.order[place], begin - self.starts[place], end - begin], 1), counts


def open_stream(folder: Path, names: Sequence[str], recipe: Recipe, eos: int) -> TextStream:
    """Open the tokenised shards ``names`` (``data/part-….ids.npy`` and their document tables) below ``folder``.

    Documents stand in the stream as often as the recipe's mix says.
    """
    stems = sorted(name.removesuffix(IDS_SUFFIX) for name in names if name.endswith(IDS_SUFFIX))
    files, tables = [], []
    for stem in stems:
        files.append(np.load(folder / (stem + IDS_SUFFIX), mmap_mode="r", allow_pickle=False))
        tables.append(pq.read_table(folder / (stem + DOCUMENTS_SUFFIX)))
    if not tables:
        raise InputError(f"'{folder}' holds no tokenised shard; run the tokenize stage first.")
    table = pa.concat_tables(tables)
    lengths = table["length"].to_numpy().astype(np.int64)
    copies = document_copies(
        lengths,
        table["source"].to_numpy(),
        table["duplicates"].to_numpy().astype(np.int64),
        recipe.mix,
        use_duplicates=recipe.use_duplicates,
        max_epochs=recipe.max_epochs,
        seed=recipe.seed,
    )
    items = np.repeat(np.arange(len(lengths)), copies)
    order = items[permutation(recipe.seed, len(items), DOCUMENT_ORDER)]
    return TextStream(
        files=tuple(files),
        documents=table.select(["id", "source", "lang"]),
        file=np.repeat(np.arange(len(tables), dtype=np.int32), [len(part) for part in tables]),
        offset=table["offset"].to_numpy().astype(np.int64),
        order=order,
        starts=np.concatenate([[0], np.cumsum(lengths[order] + 1)]),
        eos=eos,
    )


@dataclass(frozen=True)
class MipSamples:
    """MIP samples ready for rows; a refused sample has length 0."""

    tokens: MipTokens
    lengths: np.ndarray
    """``int64[n]``: prompt + target + 2, or 0 when the target alone does not fit the window."""
    table: pa.Table
    """Columns id, source (the data set), lang."""
    cut: int
    """Prompts that lost their end to fit the window."""
    refused: int
    """Samples whose target does not fit."""


def read_mip(folder: Path, names: Sequence[str], tokenizer: Tokenizer, window: int) -> MipSamples:
    """Encode the rendered samples of a MIP stage and fit them to ``window`` tokens; targets are never cut."""
    tables = [pq.read_table(folder / name) for name in sorted(names)]
    columns = ["id", "dataset", "lang", "prompt", "target"]
    table = pa.concat_tables([part.select(columns) for part in tables]) if tables else None
    if table is None or not len(table):
        raise InputError(f"'{folder}' holds no rendered MIP row; run the mip stage first.")
    prompts, prompt_lengths = _encode(table["prompt"], tokenizer)
    targets, target_lengths = _encode(table["target"], tokenizer)
    kept = np.minimum(prompt_lengths, np.maximum(0, window - 2 - target_lengths))
    fits = (target_lengths + 2 <= window) & (target_lengths > 0)
    kept_targets = np.where(fits, target_lengths, 0)
    kept = np.where(fits, kept, 0)
    ids, offsets = _join(prompts, prompt_lengths, kept, targets, target_lengths, kept_targets)
    return MipSamples(
        tokens=MipTokens(ids, offsets),
        lengths=np.where(fits, kept + kept_targets + 2, 0),
        table=table.select(["id", "dataset", "lang"]).rename_columns(["id", "source", "lang"]),
        cut=int((kept < prompt_lengths)[fits].sum()),
        refused=int((~fits).sum()),
    )


def _encode(texts: pa.ChunkedArray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for start in range(0, len(texts), _ENCODE_ROWS):
        part, offsets = tokenizer.encode_batch(texts.slice(start, _ENCODE_ROWS).to_pylist())
        ids.append(part)
        lengths.append(np.diff(offsets))
    return np.concatenate(ids), np.concatenate(lengths)


def _join(
    left: np.ndarray, left_lengths: np.ndarray, left_kept: np.ndarray, right: np.ndarray, right_lengths: np.ndarray,
    right_kept: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Interleave the heads of two ragged columns: left 0, right 0, left 1, …; returns flat ids and offsets[2 n + 1]."""
    starts = np.stack([_starts(left_lengths), _starts(right_lengths) + len(left)], 1).reshape(-1)
    kept = np.stack([left_kept, right_kept], 1).reshape(-1)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], kept)
    return np.concatenate([left, right])[index].astype(np.int32), offsets


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths
