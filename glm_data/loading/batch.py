"""Rows made ready for a model: targets, positions, weights and segments, ``[B, L]`` each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from glm_data.errors import UsageError
from glm_data.kernels import compiled
from glm_data.packing.rows import Rows, assemble, check_fit

Weighting = Literal["per-token", "per-sequence"]
"""``per-token``: every target weighs 1. ``per-sequence``: the targets of a row weigh 1 together, as in GLM-130B, where
a [MASK] row of 250 targets counts as much as a [gMASK] row of 1,200."""

Positions = Literal["glm-130b", "glm-2d"]
"""``glm-130b``: one row of positions, for rotary embeddings. ``glm-2d``: the two rows of the original GLM (Du et al.
2022, section 2.1): all of part B stands at the position of its mask, and ``block_position_ids`` counts within it."""


@dataclass(frozen=True)
class Batch:
    """``B`` rows ready for a model; every array is ``[B, L]`` unless it says otherwise."""

    tokens: np.ndarray
    """``int32``: the model's input."""
    targets: np.ndarray
    """``int32``: what is to be predicted here, where ``loss_mask`` is 1."""
    position_ids: np.ndarray
    """``int32``."""
    loss_mask: np.ndarray
    """``uint8``."""
    segments: np.ndarray
    """``uint16``: piece number from 1, 0 on padding."""
    piece_offsets: np.ndarray
    """``int64[B + 1]``: the pieces of row ``i`` are ``piece_table[piece_offsets[i] : piece_offsets[i + 1]]``."""
    piece_table: np.ndarray
    """``int32[P, 4]``: (start, sep, end, kind) of all pieces."""
    weighting: Weighting = "per-token"
    block_position_ids: np.ndarray | None = None
    """``int32``, with the positions ``glm-2d`` only: 0 in part A, from 1 within each span of part B."""

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def pieces(self) -> list[np.ndarray]:
        """For each row ``int32[p, 4]``: (start, sep, end, kind) of its pieces, views of ``piece_table``."""
        return [self.piece_table[first:last] for first, last in pairwise(self.piece_offsets.tolist())]

    @cached_property
    def loss_weights(self) -> np.ndarray:
        """``float32``: what each target weighs by ``weighting``; 0 where nothing is predicted."""
        out = np.empty(self.loss_mask.shape, np.float32)
        _weigh(self.loss_mask, self.weighting == "per-sequence", out)
        return out


def make_batch(rows: Rows, eop: int, *, weighting: Weighting = "per-token", positions: Positions = "glm-130b") -> Batch:
    """Assemble ``rows``; ``eop`` is the id of the token that ends a span.

    Raises :class:`MisfitRowError` for rows that no packer writes: the compiled assembler trusts pieces and spans.
    """
    _check_choice("weighting", weighting, get_args(Weighting))
    _check_choice("positions", positions, get_args(Positions))
    check_fit(rows)
    derived = assemble(rows, eop)
    blocks = None
    if positions == "glm-2d":
        blocks = np.zeros(rows.tokens.shape, np.int32)
        _two_rows(rows.piece_offsets, rows.pieces, rows.span_offsets, rows.spans, derived.position_ids, blocks)
    return Batch(
        tokens=rows.tokens,
        targets=derived.targets,
        position_ids=derived.position_ids,
        loss_mask=derived.loss_mask,
        segments=derived.segments,
        piece_offsets=rows.piece_offsets,
        piece_table=rows.pieces,
        weighting=weighting,
        block_position_ids=blocks,
    )


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} '{value}' is not known; give {' or '.join(known)}.")


@compiled
def _weigh(loss_mask: np.ndarray, share: bool, out: np.ndarray) -> None:
    for row in range(loss_mask.shape[0]):
        weight = np.float32(1.0)
        if share:
            count = 0
            for place in range(loss_mask.shape[1]):
                count += loss_mask[row, place]
            weight = np.float32(1.0 / max(1, count))
        for place in range(loss_mask.shape[1]):
            out[row, place] = weight * loss_mask[row, place]


@compiled
def _two_rows(
    piece_offsets: np.ndarray,
    pieces: np.ndarray,
    span_offsets: np.ndarray,
    spans: np.ndarray,
    positions: np.ndarray,
    blocks: np.ndarray,
) -> None:
    """Move part B to the position of its mask, whatever the kind, and count within each span."""
    for row in range(positions.shape[0]):
        span = span_offsets[row]
        for piece in range(piece_offsets[row], piece_offsets[row + 1]):
            start, end = pieces[piece, 0], pieces[piece, 2]
            while span < span_offsets[row + 1] and spans[span, 1] < end:
                mask, first = spans[span, 0], spans[span, 1]
                for offset in range(spans[span, 2]):
                    positions[row, first + offset] = mask - start
                    blocks[row, first + offset] = offset + 1
                span += 1
