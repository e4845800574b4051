"""MIP samples as the packer reads them: rendered rows encoded and fitted to their window, and which are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.packing.binning import best_fit, choose_amounts, choose_rows
from glm_data.packing.fill import MipTokens
from glm_data.packing.options import Recipe
from glm_data.packing.plan import Pieces, Plan
from tokenizer import Tokenizer

_ENCODE_ROWS = 4096
_COLUMNS = ("id", "dataset", "lang", "prompt", "target")
_OPTIONAL = {
    "subset": pa.scalar("", pa.string()),
    "shots": pa.scalar(0, pa.int32()),
    "template_name": pa.scalar("", pa.string()),
}
_SCHEMA = pa.schema(
    [*((name, pa.string()) for name in _COLUMNS), *((name, value.type) for name, value in _OPTIONAL.items())]
)


@dataclass(frozen=True)
class MipSamples:
    """MIP samples ready for rows; a refused sample has length 0."""

    tokens: MipTokens
    lengths: np.ndarray
    """``int64[n]``: prompt + target + 2, or 0 when the sample cannot be packed."""
    targets: np.ndarray
    """``int64[n]``: places that are predicted: target + 1."""
    table: pa.Table
    """Columns id, source (``dataset`` or ``dataset/subset``), lang, template."""
    cut: int
    """Prompts that lost their end to fit the window."""
    refused: int
    """Samples whose target, or whose few-shot prompt, does not fit."""


def no_samples() -> MipSamples:
    """A pack without MIP."""
    table = pa.table({name: pa.array([], pa.string()) for name in ("id", "source", "lang", "template")})
    nothing = np.empty(0, np.int64)
    return MipSamples(MipTokens(np.empty(0, np.int32), np.zeros(1, np.int64)), nothing, nothing, table, 0, 0)


def read_mip(folder: Path, names: Sequence[str], tokenizer: Tokenizer, window: int, row: int) -> MipSamples:
    """Encode the rendered samples of a MIP stage and fit them: zero-shot ones to ``window`` tokens, few-shot ones to a
    ``row``. Targets are never cut, nor is a few-shot prompt, whose end is the question."""
    tables = [pq.read_table(folder / name) for name in sorted(names)]
    if not sum(map(len, tables)):
        raise InputError(f"'{folder}' holds no rendered MIP row; run the mip stage first.")
    table = pa.concat_tables([_with_optional(part) for part in tables])
    few_shot = table["shots"].to_numpy() > 0
    prompts, prompt_lengths = _encode(table["prompt"], tokenizer)
    targets, target_lengths = _encode(table["target"], tokenizer)
    room = np.where(few_shot, row, min(window, row)) - 2 - target_lengths
    fits = (room >= 0) & (target_lengths > 0) & (~few_shot | (prompt_lengths <= room))
    kept = np.where(fits, np.minimum(prompt_lengths, room), 0)
    kept_targets = np.where(fits, target_lengths, 0)
    ids, offsets = _join(prompts, prompt_lengths, kept, targets, target_lengths, kept_targets)
    return MipSamples(
        tokens=MipTokens(ids, offsets),
        lengths=np.where(fits, kept + kept_targets + 2, 0),
        targets=np.where(fits, kept_targets + 1, 0),
        table=_named(table),
        cut=int((kept < prompt_lengths)[fits].sum()),
        refused=int((~fits).sum()),
    )


def _with_optional(part: pa.Table) -> pa.Table:
    """The columns that are used; rows of other makers may lack some."""
    for name, value in _OPTIONAL.items():
        if name not in part.schema.names:
            part = part.append_column(name, pa.repeat(value, len(part)))
    return pa.table({name: part[name] for name in (*_COLUMNS, *_OPTIONAL)}).cast(_SCHEMA)


def _named(table: pa.Table) -> pa.Table:
    """What ``documents.parquet`` says of samples; the source is ``dataset`` or ``dataset/subset``."""
    plain = pc.equal(table["subset"], "")
    source = pc.if_else(plain, table["dataset"], pc.binary_join_element_wise(table["dataset"], table["subset"], "/"))
    return pa.table({"id": table["id"], "source": source, "lang": table["lang"], "template": table["template_name"]})


def _encode(texts: pa.ChunkedArray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for start in range(0, len(texts), _ENCODE_ROWS):
        part, offsets = tokenizer.encode_batch(texts.slice(start, _ENCODE_ROWS).to_pylist())
        ids.append(part)
        lengths.append(np.diff(offsets))
    return np.concatenate(ids), np.concatenate(lengths)


def _join(
    left: np.ndarray, left_lengths: np.ndarray, left_kept: np.ndarray, right: np.ndarray, right_lengths: np.ndarray,
    right_kept: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Interleave the heads of two ragged columns: left 0, right 0, left 1, …; returns flat ids and offsets[2 n + 1]."""
    starts = np.stack([_starts(left_lengths), _starts(right_lengths) + len(left)], 1).reshape(-1)
    kept = np.stack([left_kept, right_kept], 1).reshape(-1)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], kept)
    return np.concatenate([left, right])[index].astype(np.int32), offsets


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.cumsum(lengths) - lengths


# --- which of them ----------------------------------------------------------------------------------------------------


def choose_samples(text: Plan | Pieces, samples: MipSamples, ratio: float, recipe: Recipe) -> tuple[np.ndarray, float]:
    """``int64[n]``: the samples to pack, and the share of the pack that they are to be.

    That share is ``ratio``, less what a ramp leaves out: over its rows MIP has half of its ratio on average. Counted is
    what ``recipe.mip_ratio_of`` says.
    """
    wanted, choice = ratio, np.empty(0, np.int64)
    for _ in range(_RAMP_ROUNDS if recipe.mip_ramp else 1):
        choice = _choose(text, samples, wanted, recipe)
        if recipe.mip_ramp:
            rows = _rows_of_text(text, recipe) + -(-int(samples.lengths[choice].sum()) // recipe.seq_length)
            wanted = ratio * (1 - min(1.0, recipe.mip_ramp / max(1, rows)) / 2)
    return choice, wanted


_RAMP_ROUNDS = 4
"""The share depends on the rows and they on the share, by a few per cent: each round gains two digits."""


def _rows_of_text(text: Plan | Pieces, recipe: Recipe) -> int:
    if isinstance(text, Plan):
        return text.rows
    return int(best_fit(text.size(), recipe.seq_length).max(initial=-1)) + 1


def _choose(text: Plan | Pieces, samples: MipSamples, ratio: float, recipe: Recipe) -> np.ndarray:
    pieces = text.pieces if isinstance(text, Plan) else text
    factor = ratio / (1 - ratio)
    if recipe.mip_ratio_of == "sequences":
        rows = round(factor * _rows_of_text(text, recipe))
        return choose_rows(samples.lengths, rows, recipe.seq_length, recipe.mip_repeats, recipe.seed)
    if recipe.mip_ratio_of == "loss-tokens":
        wanted, amounts = factor * int(pieces.targets.sum(dtype=np.int64)), samples.targets
    else:
        wanted, amounts = factor * int(pieces.size().sum()), samples.lengths
    return choose_amounts(amounts, wanted, recipe.mip_repeats, recipe.seed)
