"""Languages paragraph by paragraph: what a mixed document is mixed of, and how to be rid of some of it.

A paragraph is a line that is not blank. A document is mixed if its paragraphs are, even where its characters as a whole
would name one language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from glm_data.filters.fasttext import Model
from glm_data.filters.language import LANGUAGES, SOME, detect, units_of
from glm_data.text import statistics
from glm_data.text.statistics import utf8_buffers

FIELDS = (pa.field("paragraph_languages", pa.list_(pa.string())), pa.field("language_shares", pa.string()))
"""Columns of labelled documents: the language of each paragraph, and the share of each language as a JSON object."""

_encoder = msgspec.json.Encoder()
_TOGETHER = np.array([max(number, 1) for number in range(len(LANGUAGES))])
"""Simplified and traditional Chinese are one language here."""


class Labelled(NamedTuple):
    """The paragraphs of a block's documents."""

    columns: list[pa.Array]
    """Those of :data:`FIELDS`."""
    mixed: NDArray[np.bool_]
    """``bool[documents]``: at least a tenth of it is in another language than most of it."""
    kept: dict[int, bytes]
    """The texts that lost paragraphs, by number of the document."""


def label_paragraphs(texts: pa.StringArray, drop: Sequence[str] = (), model: Model | None = None) -> Labelled:
    """Name the language of every paragraph; of those in the languages ``drop`` nothing is left.

    A paragraph without a letter (numbers, rulers) is ``other``, has no share, and always stays. Shares are of letters'
    units: Han characters, kana, Hangul syllables, words of Latin script.
    """
    data, offsets = utf8_buffers(texts)
    newlines = np.flatnonzero(data[offsets[0] : offsets[-1]] == ord("\n")) + offsets[0]
    starts = np.sort(np.concatenate([offsets[:-1], newlines + 1]))
    documents = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(newlines, offsets)) + 1)
    bounds = np.concatenate([starts, offsets[-1:]])
    lines = pa.StringArray.from_buffers(len(starts), pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(data))
    counts = statistics.count(lines)
    languages, units = detect(lines, counts, model), units_of(counts)
    unwanted = np.isin(languages, [LANGUAGES.index(name) for name in drop]) & (units > 0)
    is_paragraph = (counts[:, statistics.COUNTS.index("lines")] > 0) & ~unwanted
    weights = np.zeros((len(texts), len(LANGUAGES)))
    np.add.at(weights, (documents, languages), np.where(unwanted, 0.0, units))
    firsts = np.searchsorted(documents, np.arange(len(texts) + 1))
    kept = {
        row: _join(data, bounds, firsts[row] + np.flatnonzero(~unwanted[firsts[row] : firsts[row + 1]]))
        for row in np.unique(documents[unwanted]).tolist()
    }
    columns = [_labels(documents[is_paragraph], languages[is_paragraph], len(texts)), _shares(weights)]
    return Labelled(columns, _is_mixed(weights), kept)


def _join(data: NDArray[np.uint8], bounds: NDArray[np.int64], lines: NDArray[np.int64]) -> bytes:
    return b"".join(data[bounds[line] : bounds[line + 1]].tobytes() for line in lines.tolist()).strip(b"\n")


def _labels(documents: NDArray[np.int64], languages: NDArray[np.int8], count: int) -> pa.ListArray:
    names = pa.DictionaryArray.from_arrays(pa.array(languages), list(LANGUAGES)).cast(pa.string())
    offsets = np.searchsorted(documents, np.arange(count + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names)


def _shares(weights: NDArray[np.float64]) -> pa.StringArray:
    totals = np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    rows = np.round(weights / totals, 4).tolist()
    shares = [{name: share for name, share in zip(LANGUAGES, row, strict=True) if share} for row in rows]
    return pa.array([_encoder.encode(row).decode() for row in shares], pa.string())


def _is_mixed(weights: NDArray[np.float64]) -> NDArray[np.bool_]:
    together = np.zeros_like(weights)
    np.add.at(together.T, _TOGETHER, weights.T)
    mixed: NDArray[np.bool_] = together.max(axis=1) < (1 - SOME) * together.sum(axis=1)
    return mixed
