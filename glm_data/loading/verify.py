"""Verify a pack: digests of its files, and the invariants of every row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from glm_data import files
from glm_data.loading.rows import PackedRows
from glm_data.packing.rows import GMASK, MASK, Rows
from glm_data.stage import Check, OutputFile, Success, read_success

_ROWS_AT_ONCE = 512
_SHOWN = 3


def verify(folder: Path) -> tuple[Check, ...]:
    """Digests first; rows only if every file is as it was written. Raises as :func:`read_success` does."""
    whole = verify_files(folder)
    return (whole, verify_rows(folder)) if whole.ok else (whole,)


def verify_files(folder: Path) -> Check:
    """Recompute the digest of every file the success manifest lists; names those that are missing, cut or changed."""
    manifest = read_success(folder)
    wrong = [f"{item.name} {what}" for item in manifest.files if (what := _what_is_wrong(folder, item))]
    sentence = f"{len(manifest.files)} files have the recorded digest."
    if wrong:
        sentence = "Damaged: " + "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if wrong[3:] else "")
    return Check(name="files", ok=not wrong, sentence=sentence.rstrip(".") + ".")


def _what_is_wrong(folder: Path, item: OutputFile) -> str:
    path = folder / item.name
    if not path.exists():
        return "is missing"
    if path.stat().st_size != item.bytes:
        return f"has {path.stat().st_size} bytes instead of {item.bytes}"
    return "" if files.digest_file(path) == item.digest else "has changed"


def row_faults(rows: Rows, manifest: Success, first: int = 0) -> Iterator[str]:
    """Sentences about rows that break an invariant; ``first`` is the number of the first row."""
    special, vocab = manifest.facts["specials"], manifest.facts["vocab_size"]
    one_kind = manifest.facts["boundaries"] == "stream"
    for row in range(len(rows)):
        for fault in _faults(rows, row, special, vocab):
            yield f"row {first + row}: {fault}"
        if one_kind and len(set(rows.row_pieces(row)[:, 3].tolist())) > 1:
            yield f"row {first + row}: more than one kind of piece"


def _faults(rows: Rows, row: int, special: dict[str, int], vocab: int) -> Iterator[str]:
    tokens, pieces, spans = rows.tokens[row], rows.row_pieces(row), rows.row_spans(row)
    if tokens.min() < 0 or tokens.max() >= vocab:
        yield f"a token outside the vocabulary of {vocab}"
    if not len(pieces):
        yield "no piece"
        return
    starts, seps, ends, kinds = pieces.T
    if (starts[1:] < ends[:-1]).any() or (starts >= seps).any() or (seps >= ends).any() or ends[-1] > len(tokens):
        yield "pieces overlap or leave the row"
        return
    if len(rows.row_tails(row)) != int((kinds == GMASK).sum()):
        yield "the number of tails is not that of the [gMASK] pieces"
    outside = np.ones(len(tokens), bool)
    for start, sep, end, kind in pieces.tolist():
        outside[start:end] = False
        yield from _piece_faults(tokens, (start, sep, end, kind), spans, special)
    if (tokens[outside] != special["pad"]).any():
        yield "a token in the padding"


def _piece_faults(
    tokens: np.ndarray, piece: tuple[int, int, int, int], spans: np.ndarray, special: dict[str, int]
) -> Iterator[str]:
    start, sep, end, kind = piece
    inside = spans[(spans[:, 1] >= sep) & (spans[:, 1] < end)]
    if not len(inside):
        yield f"the piece at {start} has no span"
        return
    masks, firsts, lengths = inside.T
    if firsts[0] != sep or (firsts[1:] != (firsts + lengths)[:-1]).any() or firsts[-1] + lengths[-1] != end:
        yield f"the spans of the piece at {start} do not fill its part B"
    if (tokens[firsts] != special["sop"]).any():
        yield f"a span of the piece at {start} does not begin with <sop>"
    wanted = special["gmask"] if kind == GMASK else special["mask"]
    if (masks < start).any() or (masks >= sep).any() or (tokens[masks] != wanted).any():
        yield f"a span of the piece at {start} does not point at its mask"
    if kind != MASK and (len(inside) != 1 or masks[0] != sep - 1):
        yield f"the mask of the piece at {start} does not end its part A"
    if kind == MASK:
        if np.diff(np.sort(masks)).min(initial=2) < 2:
            yield f"two masks of the piece at {start} touch"
        if int((tokens[start:sep] == special["mask"]).sum()) != len(masks):
            yield f"a mask of the piece at {start} has no span"


def verify_rows(folder: Path) -> Check:
    """Check every row's invariants; names the first rows at fault."""
    pack = PackedRows.open(folder)
    faults: list[str] = []
    for first in range(0, len(pack), _ROWS_AT_ONCE):
        rows = pack.rows(np.arange(first, min(first + _ROWS_AT_ONCE, len(pack))))
        faults += list(row_faults(rows, pack.manifest, first))
    sentence = f"{len(pack)} rows: spans, separators, budgets and padding are as they must be"
    if faults:
        sentence = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if faults[_SHOWN:] else "")
    return Check(name="rows", ok=not faults, sentence=sentence + ".")
