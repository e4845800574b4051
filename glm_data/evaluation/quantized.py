"""What quantising cost: the held-out bits per byte of a model before and after, beside sizes and errors of matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from glm_data import files
from glm_data.evaluation.held_out import score_folder
from glm_data.int4.stage import REPORT
from glm_data.model.store import read_description
from glm_data.training.options import held_out_rows

ROWS = 16
"""Rows that are measured if training kept none back."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Bits per byte of one kind of piece."""

    before: float
    after: float
    rise: float
    """Share by which they rose."""


def quantization_report(model: Path, quantized: Path, pack: Path) -> dict[str, Any]:
    """Measure ``model`` and what it was ``quantized`` to on the rows of ``pack`` that training kept back.

    Returns ``rows``, ``bits_per_byte`` (a :class:`Change` by kind and for ``all``), sizes in bytes and the relative
    error of each matrix. Raises :class:`UsageError` if the pack has another tokenizer or too few rows.
    """
    rows = held_out_rows(read_description(model).training) or ROWS
    before, after = score_folder(model, pack, rows), score_folder(quantized, pack, rows)
    changes = {
        kind: Change(
            before=item.bits_per_byte,
            after=after[kind].bits_per_byte,
            rise=after[kind].bits_per_byte / item.bits_per_byte - 1,
        )
        for kind, item in before.items()
    }
    return {"rows": rows, "bits_per_byte": msgspec.to_builtins(changes), **files.read_json(quantized / REPORT)}
