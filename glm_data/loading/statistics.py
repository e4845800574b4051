"""What the rows of a pack amount to: fill, spans against the recipe's curve, targets by kind, language and source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_data.kernels import compiled
from glm_data.packing.masking import spans_of
from glm_data.packing.rows import GMASK, KINDS, MASK, SMASK, Rows
from glm_data.packing.spans import length_table

_LEAST_EXPECTED = 5
_DECILES = 10


@dataclass(frozen=True)
class SpanFit:
    """Span lengths of [MASK] pieces against the recipe's zero-truncated Poisson."""

    spans: int
    mean: float
    expected_mean: float
    chi_square: float
    degrees: int
    p_value: float
    distance: float
    """Total variation distance of the two distributions: 0 is the same, 1 is disjoint."""


class RowStatistics:
    """Sums over rows, whatever documents they are of: give them to :meth:`add_rows` in any portions."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        masks: Mapping[str, Any] = facts["masks"]
        self.masks = masks
        self.rows = self.places = 0
        self.by_kind: dict[str, dict[str, int]] = {kind: defaultdict(int) for kind in KINDS}
        self.lengths = np.zeros(masks["span_longest"] + 1, np.int64)
        self.suffixes = np.zeros(_DECILES, np.int64)

    def add_rows(self, rows: Rows) -> None:
        """Count ``rows``, which must be whole."""
        self.rows += len(rows)
        self.places += rows.tokens.size
        counts = spans_of(rows)
        kinds = rows.pieces[:, 3]
        of_span = np.repeat(kinds, counts)
        for kind, name in enumerate(KINDS):
            pieces, spans = rows.pieces[kinds == kind], rows.spans[of_span == kind]
            own = self.by_kind[name]
            own["pieces"] += len(pieces)
            own["tokens"] += int((pieces[:, 2] - pieces[:, 0]).sum())
            own["targets"] += int(spans[:, 2].sum())
            own["spans"] += len(spans)
        lengths = rows.spans[of_span == MASK, 2] - 1
        self.lengths += np.bincount(np.minimum(lengths, len(self.lengths) - 1), minlength=len(self.lengths))
        self._add_suffixes(rows)

    def _add_suffixes(self, rows: Rows) -> None:
        """Deciles of the part of [gMASK] pieces that is to be generated, from the least share to all."""
        pieces = rows.pieces[rows.pieces[:, 3] == GMASK]
        share = (pieces[:, 2] - pieces[:, 1]) / (pieces[:, 2] - pieces[:, 0] - 1)
        least = self.masks["gmask_least"]
        if least < 1:
            decile = np.clip((share - least) / (1 - least) * _DECILES, 0, _DECILES - 1).astype(int)
            self.suffixes += np.bincount(decile, minlength=_DECILES)

    def span_fit(self) -> SpanFit | None:
        """How well the lengths of [MASK] spans fit; None without any."""
        from scipy.special import chdtrc  # scipy.stats would take 0.7 s to import

        seen = self.lengths[1:]
        if not seen.sum():
            return None
        expected, lengths = self.expected_lengths(), np.arange(1, len(seen) + 1)
        share = expected / seen.sum()
        last = max(1, int((expected >= _LEAST_EXPECTED).sum()))  # longer ones are counted together
        pooled = [np.append(x[: last - 1], x[last - 1 :].sum()) for x in (seen, expected)]
        chi_square = float(((pooled[0] - pooled[1]) ** 2 / pooled[1]).sum())
        return SpanFit(
            spans=int(seen.sum()),
            mean=float((seen * lengths).sum() / seen.sum()),
            expected_mean=float((share * lengths).sum()),
            chi_square=chi_square,
            degrees=last - 1,
            p_value=float(chdtrc(last - 1, chi_square)) if last > 1 else 1.0,
            distance=float(np.abs(seen / seen.sum() - share).sum() / 2),
        )

    def expected_lengths(self) -> np.ndarray:
        """``float64[longest]``: spans of each length from 1 that the recipe's curve lets expect of as many spans."""
        table = length_table(self.masks["span_mean"], self.masks["span_longest"]).astype(float)
        return np.diff(np.concatenate([[0.0], table])) / table[-1] * self.lengths[1:].sum()

    def summary(self) -> dict[str, Any]:
        """Plain values: fill, kinds, suffix lengths."""
        used = sum(kind["tokens"] for kind in self.by_kind.values())
        all_targets = max(1, sum(kind["targets"] for kind in self.by_kind.values()))
        kinds = {
            name: {
                **kind,
                "token_share": kind["tokens"] / max(1, used),
                "target_share": kind["targets"] / all_targets,
                **(_mask_rate(kind) if number in (MASK, SMASK) else {}),
            }
            for number, (name, kind) in enumerate(self.by_kind.items())
            if kind["pieces"]
        }
        return {
            "rows": self.rows,
            "fill": used / max(1, self.places),
            "kinds": kinds,
            "gmask_deciles": (self.suffixes / max(1, self.suffixes.sum())).round(4).tolist(),
        }


class PackStatistics(RowStatistics):
    """Sums over rows and over the documents that they are of: give them to :meth:`add` in any portions."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self.eop: int = facts["specials"]["eop"]
        documents = folder / "documents.parquet"
        self.labels = {"sources": Labels.read(documents, "source"), "languages": Labels.read(documents, "lang")}

    def add(self, rows: Rows, origin_offsets: np.ndarray, origins: np.ndarray) -> None:
        """Count ``rows``, whose document slices are ``origins`` (``int64[n, 3]``); the rows must be whole."""
        self.add_rows(rows)
        self._add_documents(rows, spans_of(rows), origin_offsets, origins, self.eop)

    def _add_documents(
        self, rows: Rows, counts: np.ndarray, offsets: np.ndarray, origins: np.ndarray, eop: int
    ) -> None:
        targets = np.zeros(len(origins), np.int64)
        first_span = np.concatenate([[0], np.cumsum(counts)])
        columns = (rows.piece_offsets, rows.pieces, first_span, rows.spans, rows.tails, offsets, origins)
        _attribute(*columns, eop, targets)
        for label in self.labels.values():
            codes = label.codes[origins[:, 0]]
            label.tokens[:] += np.bincount(codes, weights=origins[:, 2], minlength=len(label.names)).astype(np.int64)
            label.targets[:] += np.bincount(codes, weights=targets, minlength=len(label.names)).astype(np.int64)

    def summary(self) -> dict[str, Any]:
        """Plain values: fill, kinds, suffix lengths, sources and languages."""
        return {**super().summary(), **{title: label.summary() for title, label in self.labels.items()}}


@dataclass(frozen=True)
class Labels:
    """A column of ``documents.parquet`` as numbers, with sums over its values."""

    codes: np.ndarray
    """``int32[D]``."""
    names: tuple[str, ...]
    tokens: np.ndarray
    """``int64[names]``: source tokens."""
    targets: np.ndarray
    """``int64[names]``: places to predict."""

    @classmethod
    def read(cls, path: Path, column: str) -> Labels:
        """The column of a pack's table of documents."""
        table = pq.read_table(path, columns=[column], read_dictionary=[column])
        chunk = table[column].unify_dictionaries().combine_chunks()
        chunk = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
        names = tuple(name or "unknown" for name in chunk.dictionary.to_pylist())
        zeros = np.zeros(len(names), np.int64)
        return cls(chunk.indices.to_numpy(), names, zeros, zeros.copy())

    def summary(self) -> dict[str, dict[str, int]]:
        """Tokens and targets by name, the largest first."""
        order = np.argsort(-self.tokens, kind="stable").tolist()
        return {
            self.names[at]: {"tokens": int(self.tokens[at]), "targets": int(self.targets[at])}
            for at in order
            if self.tokens[at]
        }


def _mask_rate(kind: Mapping[str, int]) -> dict[str, float]:
    source = kind["tokens"] - 2 * kind["spans"]
    masked = kind["targets"] - kind["spans"]
    return {"mask_rate": masked / max(1, source), "span_mean": masked / max(1, kind["spans"])}


@compiled
def _attribute(
    piece_offsets: np.ndarray,
    pieces: np.ndarray,
    first_span: np.ndarray,
    spans: np.ndarray,
    tails: np.ndarray,
    origin_offsets: np.ndarray,
    origins: np.ndarray,
    eop: int,
    targets: np.ndarray,
) -> None:
    """Targets of each document slice: a masked token counts where it stood, the end of a span where the span ended."""
    tail = 0
    for row in range(len(piece_offsets) - 1):
        slice_, before, done = origin_offsets[row], 0, 0  # source tokens before this slice, and before this piece
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            start, kind = pieces[piece, 0], pieces[piece, 3]
            is_open = kind == GMASK and tails[tail] != eop
            tail += kind == GMASK
            low = first_span[piece]
            hidden = 0  # source tokens that earlier masks stand for, less those masks
            for index in np.argsort(spans[low : first_span[piece + 1], 0]):
                length = spans[low + index, 2]
                first = done + spans[low + index, 0] - start + hidden
                last = first + length - (1 if is_open else 2)
                for at in range(first, first + length):
                    while slice_ + 1 < origin_offsets[row + 1] and min(at, last) >= before + origins[slice_, 2]:
                        before += origins[slice_, 2]
                        slice_ += 1
                    targets[slice_] += 1
                hidden += length - 2
            done += pieces[piece, 1] - start + hidden + is_open
