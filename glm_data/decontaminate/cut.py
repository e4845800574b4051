"""Cutting what was found out of a text, with a margin, and what is left of the text then."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glm_data.decontaminate.options import DecontaminateOptions

Array = npt.NDArray[Any]

JOINT = "\n\n"
"""Between the pieces that stay: the end of a paragraph."""

CONTAMINATED, NOTHING_LEFT, TOO_MANY_CUTS = "contaminated", "nothing_left", "too_many_cuts"
"""Reasons why a document is dropped: that is what was asked for; no piece is long enough; it fell into too many."""


class Cut(NamedTuple):
    """What becomes of a text: the text that stays, or an empty one and the reason."""

    text: str
    reason: str
    cuts: int


def apply_action(text: str, starts: Array, ends: Array, options: DecontaminateOptions) -> Cut:
    """Cut the bytes ``starts`` to ``ends`` (ascending by start) out of ``text``, or drop it, as ``options`` say.

    Every cut takes ``margin`` characters more on both sides; cuts that meet are one. Pieces shorter than
    ``shortest_piece`` characters go too, the others are joined by an empty line.
    """
    if options.action == "drop":
        return Cut("", CONTAMINATED, 0)
    spans = merge(*_in_characters(text, starts, ends), options.margin, len(text))
    if len(spans) > options.most_cuts:
        return Cut("", TOO_MANY_CUTS, len(spans))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    pieces = [text[first:beyond] for first, beyond in zip(edges[::2], edges[1::2], strict=True)]
    left = [piece.strip() for piece in pieces if len(piece.strip()) >= options.shortest_piece]
    return Cut(JOINT.join(left), "" if left else NOTHING_LEFT, len(spans))


def merge(firsts: Array, beyonds: Array, margin: int, length: int) -> list[tuple[int, int]]:
    """Spans of characters, ascending by start, widened by ``margin`` within ``length`` and joined where they meet."""
    merged: list[tuple[int, int]] = []
    for first, beyond in zip(firsts.tolist(), beyonds.tolist(), strict=True):
        first, beyond = max(0, first - margin), min(length, beyond + margin)
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], beyond))
        else:
            merged.append((first, beyond))
    return merged


def _in_characters(text: str, starts: Array, ends: Array) -> tuple[Array, Array]:
    """Places of bytes in the text's UTF-8 as places of characters."""
    if text.isascii():
        return starts, ends
    data = np.frombuffer(text.encode(), np.uint8)
    begins = np.flatnonzero((data & 0xC0) != 0x80)
    return np.searchsorted(begins, starts), np.searchsorted(begins, ends)
