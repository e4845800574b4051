"""A packed row taken apart: pieces, spans, who sees whom, what is predicted where.

python examples/look_at_a_row.py my-run/pack 0
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from glm_data.loading import PackedRows
from glm_data.packing.rows import KINDS
from tokenizer import Tokenizer


def attention(piece: np.ndarray) -> np.ndarray:
    """``bool[n, n]``: which places of a piece ``(start, sep, end, kind)`` see which; others see nothing of it."""
    start, sep, end, _ = piece.tolist()
    seen = np.tril(np.ones((end - start, end - start), bool))
    seen[:, : sep - start] = True
    return seen


def describe(folder: Path, number: int) -> list[str]:
    """Lines about row ``number`` of the pack in ``folder``."""
    pack, model = PackedRows.open(folder), Tokenizer.load(folder)
    rows, batch = pack.rows([number]), pack.batch([number])
    lines = [f"row {number} of {len(pack)}: {len(rows.row_pieces(0))} pieces, {int(batch.loss_mask.sum())} predictions"]
    for piece in rows.row_pieces(0):
        start, sep, end, kind = piece.tolist()
        lines.append(f"\n{KINDS[kind]} piece, places {start} to {end - 1}")
        lines.append(f"  A  {model.decode(rows.tokens[0, start:sep], special=True)}")
        for mask, first, length in rows.row_spans(0).tolist():
            if sep <= first < end:
                target = model.decode(batch.targets[0, first : first + length], special=True)
                lines.append(f"  B  place {first} predicts for the mask at {mask}: {target}")
        lines.append(f"  {attention(piece).mean():.0%} of all pairs of its places see each other")
    return lines


if __name__ == "__main__":
    print("\n".join(describe(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
