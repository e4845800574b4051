"""What stands in packed rows: lengths of spans against the recipe's curve, and one piece of each kind drawn as text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from glm_data.errors import GlmDataError
from glm_data.loading import PackedRows
from glm_data.loading.statistics import RowStatistics
from glm_data.manifest import Success
from glm_data.packing.rows import KINDS, MASK, SMASK
from tokenizer import Tokenizer, TokenizerError

_MOST_ROWS = 2048
"""Rows that are counted, evenly over the pack; all of a smaller one."""
_FEWEST_PLACES, _MOST_PLACES = 24, 150
"""Places of a piece that can be drawn; the shortest such piece of a kind is taken."""
_SAMPLES = (
    "The quick brown fox jumps over the lazy dog.",
    "床前明月光，疑是地上霜。",
    "def add(a, b):\n    return a + b  # 两数之和",
)


def summarise_rows(folder: Path, success: Success, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Counted rows, span lengths seen and expected, deciles of [gMASK] suffixes, example pieces; None without rows."""
    if "masks" not in success.facts or not success.facts.get("rows"):
        return None
    try:
        pack = PackedRows.open(folder)
        numbers = np.unique(np.linspace(0, len(pack) - 1, min(_MOST_ROWS, len(pack))).astype(np.int64))
        rows = pack.whole_rows(numbers)
    except (GlmDataError, OSError):
        return None
    counted = RowStatistics(success.facts)
    counted.add_rows(rows)
    fit = counted.span_fit()
    return {
        "rows": len(numbers),
        "lengths": counted.lengths[1:].tolist(),
        "expected": counted.expected_lengths().round(2).tolist(),
        "fit": msgspec.to_builtins(fit) if fit else None,
        "suffixes": counted.suffixes.tolist(),
        "examples": list(_examples(folder, rows)),
    }


def _examples(folder: Path, rows: Any) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(TokenizerError, OSError):
        model = Tokenizer.load(folder)
        row_of = np.repeat(np.arange(len(rows)), np.diff(rows.piece_offsets))
        sizes = rows.pieces[:, 2] - rows.pieces[:, 0]
        for kind, name in enumerate(KINDS):
            fit = np.flatnonzero((rows.pieces[:, 3] == kind) & (sizes >= _FEWEST_PLACES) & (sizes <= _MOST_PLACES))
            if len(fit):
                chosen = int(fit[np.argmin(sizes[fit])])
                yield {"kind": name, **_piece(rows, int(row_of[chosen]), rows.pieces[chosen].tolist(), model)}


def _piece(rows: Any, row: int, piece: list[int], model: Tokenizer) -> dict[str, Any]:
    """A piece as text: part A with the numbers of its spans where their masks stand, part B in its order."""
    start, sep, end, kind = piece
    tokens = rows.tokens[row]
    spans = [span for span in rows.row_spans(row).tolist() if sep <= span[1] < end]
    part_a: list[str | int] = []
    place = start
    for mask, number in sorted((span[0], number) for number, span in enumerate(spans, 1)):
        part_a += [_text(tokens[place:mask], model), number]
        place = mask + 1
    part_b = [
        {
            "text": _text(tokens[first + 1 : first + length], model),
            "position": (mask if kind in (MASK, SMASK) else first) - start,
        }
        for mask, first, length in spans
    ]
    return {"places": end - start, "part_a": [*part_a, _text(tokens[place:sep], model)], "part_b": part_b}


def _text(tokens: np.ndarray, model: Tokenizer) -> str:
    """The text of ``tokens``, task tokens by name; what is no character becomes U+FFFD or a question mark."""
    return model.decode(tokens, special=True).encode("utf-8", "replace").decode()


def summarise_tokenizer(folder: Path, success: Success, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the tokenizer cuts three lines: their pieces; empty if its model cannot be read."""
    with contextlib.suppress(TokenizerError, OSError):
        model = Tokenizer.load(folder)
        return [{"text": text, "pieces": [model.decode([id]) for id in model.encode(text)]} for text in _SAMPLES]
    return []
