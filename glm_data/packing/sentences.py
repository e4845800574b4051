"""Which pieces of a vocabulary end a sentence: what [sMASK], and [MASK] spans within sentences, go by.

The marks are those of the original GLM (``. ? ! ; : 。 ？ ！ ； …`` and the line end). An ASCII mark counts only before
white space or the end of the text, so that ``3.14`` and ``example.com`` stay whole; closing quotes and brackets may
follow a mark. A mark that a vocabulary has no piece for, and so spells in bytes, is not seen.
"""

from __future__ import annotations

import numpy as np

from glm_data.packing.placing import HARD_END, SOFT_END, SPACE_START
from tokenizer import Tokenizer

_HARD, _SOFT = "。？！；…", ".?!;:"
_CLOSING = "\"'”’»)]}）】》」』〉"


def sentence_table(tokenizer: Tokenizer) -> np.ndarray:
    """``uint8[vocab]``: the bits of :mod:`glm_data.packing.placing` for every id. ``<eos>`` ends a sentence."""
    table = np.zeros(tokenizer.vocab_size, np.uint8)
    for number in range(tokenizer.pieces):
        table[number] = _bits(tokenizer.piece_bytes(number).decode("utf-8", "ignore"))
    table[tokenizer.special.eos] = HARD_END | SPACE_START
    return table


def _bits(piece: str) -> int:
    bits = SPACE_START if piece[:1].isspace() else 0
    if "\n" in piece:
        return bits | HARD_END
    last = piece.rstrip(_CLOSING)[-1:]
    if last and last in _HARD:
        return bits | HARD_END
    return bits | SOFT_END if last and last in _SOFT else bits
