"""Counted words, weighted: what the trainer takes, from the folder of a finished count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from glm_data.errors import InputError
from glm_data.formats.parquet import read_batches
from glm_data.stage import read_success
from glm_data.vocabulary.options import TokenizerOptions
from tokenizer.kernels import CODE_POINTS
from tokenizer.train import Counted

CHARACTERS = "characters.parquet"

FINENESS = 16
"""Weighted counts are whole numbers of sixteenths of the least weight."""


class Weights(NamedTuple):
    """How often each occurrence counts, by ``language/source``; the least of a used one is 1."""

    factors: dict[str, float]
    bytes: dict[str, int]
    """Text by name of the option ``weights``, sources weighted."""


def weigh(groups: Mapping[str, Mapping[str, int]], options: TokenizerOptions) -> Weights:
    """Factors that make the shares of bytes those of ``options.weights`` (of the languages present), exactly."""
    places = {name: _language(name.partition("/")[0], options.weights) for name in groups}
    own = {name: options.sources.get(name.partition("/")[2], 1.0) for name in groups}
    sizes = dict.fromkeys(sorted(set(places.values()) - {""}), 0.0)
    for name, language in places.items():
        if language:
            sizes[language] += own[name] * groups[name]["bytes"]
    raw = {
        name: own[name] * options.weights[language] / sizes[language] if language and sizes[language] else 0.0
        for name, language in places.items()
    }
    least = min((factor for factor in raw.values() if factor > 0), default=1.0)
    return Weights({name: factor / least for name, factor in raw.items()}, {k: int(v) for k, v in sizes.items()})


def _language(lang: str, weights: Mapping[str, float]) -> str:
    """The entry of ``weights`` that a document's language falls under, or nothing."""
    return next((name for name in (lang, lang.partition("-")[0], "other") if weights.get(name, 0) > 0), "")


def count_groups(folder: Path) -> dict[str, dict[str, int]]:
    """Documents and bytes by ``language/source`` of a finished count."""
    groups: dict[str, dict[str, int]] = read_success(folder).facts["groups"]
    return groups


def load_words(folder: Path, weights: Weights, min_count: int) -> Counted:
    """Words, weighted counts and characters of a finished count; words of no weight are left out."""
    fineness = 1 if set(weights.factors.values()) <= {0.0, 1.0} else FINENESS
    words: list[pa.Array] = [pa.array([], pa.binary())]
    counts: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for item in read_success(folder).files:
        if item.name.startswith("data/"):
            found, weighted = _weighted(pq.read_table(folder / item.name), weights, min_count, fineness)
            words.append(found)
            counts.append(weighted)
    return Counted(pa.concat_arrays(words), np.concatenate(counts), *_characters(folder, weights))


def _weighted(
    table: pa.Table, weights: Weights, min_count: int, fineness: int
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    factors = pa.array(_factors(table, weights))
    weighted = pc.multiply(table["count"].cast(pa.float64()), factors)
    table = pa.table({"word": table["word"], "count": table["count"], "weighted": weighted})
    table = table.filter(pc.greater(factors, 0.0)).group_by("word", use_threads=False)
    summed = table.aggregate([("count", "sum"), ("weighted", "sum")])
    summed = summed.filter(pc.greater_equal(summed["count_sum"], min_count))
    whole = np.floor(summed["weighted_sum"].to_numpy() * fineness + 0.5).astype(np.int64)
    words = summed["word"].combine_chunks()
    return words.chunk(0) if isinstance(words, pa.ChunkedArray) else words, np.maximum(whole, 1)


def _factors(table: pa.Table, weights: Weights) -> npt.NDArray[np.float64]:
    """The factor of every row."""
    columns = [table[name].combine_chunks().dictionary_encode() for name in ("lang", "source")]
    langs, sources = (column.dictionary.to_pylist() for column in columns)
    grid = np.array([[weights.factors.get(f"{lang}/{source}", 0.0) for source in sources] for lang in langs])
    indices = [column.indices.to_numpy(zero_copy_only=False) for column in columns]
    return grid[indices[0], indices[1]] if len(table) else np.zeros(0)


def _characters(folder: Path, weights: Weights) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Occurrences by language and code point, and the languages' mean factors."""
    groups = count_groups(folder)
    used = sorted({name.partition("/")[0] for name, factor in weights.factors.items() if factor > 0})
    characters, means = np.zeros((len(used), CODE_POINTS), np.int64), np.zeros(len(used))
    for place, lang in enumerate(used):
        own = [name for name in groups if name.partition("/")[0] == lang]
        sizes = np.array([groups[name]["bytes"] for name in own], float)
        means[place] = np.average([weights.factors[name] for name in own], weights=sizes) if sizes.sum() else 0.0
    for batch in read_batches(folder / CHARACTERS):
        langs = np.array([used.index(lang) if lang in used else -1 for lang in batch["lang"].to_pylist()])
        known = langs >= 0
        points, counts = batch["point"].to_numpy()[known], batch["count"].to_numpy()[known]
        characters[langs[known], points] += counts
    return characters, means


def refuse_if_empty(weights: Weights, options: TokenizerOptions) -> None:
    """Raise :class:`InputError` if no text is in a language that has a weight."""
    if not sum(weights.bytes.values()):
        found = ", ".join(sorted({name.partition("/")[0] for name in weights.factors})) or "no text at all"
        raise InputError(
            f"tokenizer: there is no text to train on in {', '.join(options.weights)} (found: {found}); "
            "give other inputs, or weights for the languages that are there."
        )


def facts_of(weights: Weights) -> dict[str, Any]:
    """What the success manifest of a training keeps."""
    return {"factors": weights.factors, "weighted_bytes": weights.bytes}
