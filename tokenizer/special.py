"""The task tokens: fixed ids, the same in every vocabulary of ours.

==  =========  ================================================================
id  piece      use
==  =========  ================================================================
0   <pad>      fills a row behind its last piece
1   <unk>      demanded by SentencePiece; never made, because of byte fallback
2   <eos>      ends a document
3   <sop>      starts a span in part B
4   <eop>      ends a span in part B
5   [MASK]     a short blank inside a text
6   [gMASK]    a long blank that runs to the end
7   [sMASK]    a blank of whole sentences
==  =========  ================================================================

GLM-130B has the same tokens at 150000 and above. All are control symbols of SentencePiece: a document that holds the
letters ``[gMASK]`` is encoded as those letters.
"""

from __future__ import annotations

from typing import NamedTuple


class Special(NamedTuple):
    """The ids of the task tokens."""

    pad: int = 0
    unk: int = 1
    eos: int = 2
    sop: int = 3
    eop: int = 4
    mask: int = 5
    gmask: int = 6
    smask: int = 7


SPECIAL = Special()

SPECIAL_PIECES = ("<pad>", "<unk>", "<eos>", "<sop>", "<eop>", "[MASK]", "[gMASK]", "[sMASK]")
"""Pieces by id, from 0."""
