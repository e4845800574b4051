"""All signals of a block: those that kernels measure of the text, and those that models, lists and ``meta`` give.

A signal that is not there is NaN, and breaks no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glm_data.filters import quality
from glm_data.filters.options import FilterOptions
from glm_data.filters.urls import UrlRules, is_refused_source, make_url_rules, read_list
from glm_data.text import statistics, words

EXTRA = {
    "quality": "how good the model of --quality-model finds it, 0 to 1",
    "perplexity": "the number 'perplexity' of its meta, as CCNet and KenLM scripts write it",
    "language_score": "the number 'language_score' of its meta",
    "listed_words": "how many words of --word-lists it holds",
    "listed_word_share": "these / words that are not marks",
    "listed_words_a_line": "different words of --word-lists / lines (ChineseWebText)",
    "refused_source": "1 if the profile or --drop-sources names its source",
    "refused_url": "1 if --url-lists or the profile refuse the 'url' of its meta",
}
SIGNALS = {**statistics.SIGNALS, **EXTRA}
"""Every signal that rules may bound, and what it is."""

Signals = Mapping[str, NDArray[np.float64]]
_LARGEST = np.finfo(np.float32).max
_FROM_META = ("perplexity", "language_score")


class _Meta(msgspec.Struct):
    perplexity: float | None = None
    language_score: float | None = None


class _Address(msgspec.Struct):
    url: str | None = None


_meta_decoder = msgspec.json.Decoder(_Meta)
_address_decoder = msgspec.json.Decoder(_Address)


def gather(
    block: pa.RecordBatch,
    measured: NDArray[np.int64],
    options: FilterOptions,
    digests: Mapping[str, str],
    drop_url_words: tuple[str, ...] = (),
    drop_sources: tuple[str, ...] = (),
) -> dict[str, NDArray[np.float64]]:
    """All of :data:`SIGNALS` for a block whose texts gave ``measured``: ``float64[documents]`` each.

    ``digests`` are those of the files that ``options`` name.
    """
    signals = statistics.derive(measured)
    texts = block.column("text")
    missing = np.full(len(texts), np.nan)
    signals |= dict.fromkeys(EXTRA, missing)
    if options.quality_model:
        signals["quality"] = quality.score(texts, _model(options.quality_model, digests[options.quality_model]))
    signals |= _of_meta(block.column("meta"))
    if options.word_lists:
        listed = _words(options.word_lists, tuple(digests[path] for path in options.word_lists))
        counted = words.count_words(texts, listed)
        found, distinct = counted.astype(np.float64).T
        signals["listed_words"] = found
        signals["listed_word_share"] = found / np.maximum(signals["gopher_words"], 1)
        signals["listed_words_a_line"] = distinct / np.maximum(signals["lines"], 1)
    if options.url_lists or drop_url_words:
        lists = tuple((path, digests[path]) for path in options.url_lists)
        signals["refused_url"] = _refused(block.column("meta"), _url_rules(lists, drop_url_words))
    if drop_sources:
        sources = block.column("source").to_pylist()
        refused = {source: is_refused_source(source, drop_sources) for source in set(sources)}
        signals["refused_source"] = np.array([refused[source] for source in sources], np.float64)
    return signals


def _of_meta(metas: pa.StringArray) -> dict[str, NDArray[np.float64]]:
    """The numbers that ``meta`` may hold; most documents' does not, and is not decoded."""
    columns = {name: np.full(len(metas), np.nan) for name in _FROM_META}
    for row in pc.indices_nonzero(pc.match_substring_regex(metas, '"(perplexity|language_score)"')).to_pylist():
        try:
            meta = _meta_decoder.decode(metas[row].as_py())
        except msgspec.DecodeError:
            continue
        for name, column in columns.items():
            value = getattr(meta, name)
            column[row] = np.nan if value is None else value
    # Signals are kept as float32, which holds no more than this.
    return {name: np.where(np.abs(column) > _LARGEST, np.copysign(np.inf, column), column)
            for name, column in columns.items()}  # fmt: skip


def _refused(metas: pa.StringArray, rules: UrlRules) -> NDArray[np.float64]:
    refused = np.zeros(len(metas))
    for row in pc.indices_nonzero(pc.match_substring(metas, '"url"')).to_pylist():
        try:
            refused[row] = rules.refuse(_address_decoder.decode(metas[row].as_py()).url or "")
        except msgspec.DecodeError:
            continue
    return refused


@lru_cache(maxsize=2)
def _model(path: str, digest: str) -> NDArray[np.float32]:
    return quality.load(Path(path))


@lru_cache(maxsize=2)
def _words(paths: tuple[str, ...], digests: tuple[str, ...]) -> words.WordList:
    lists = [read_list(path, digest) for path, digest in zip(paths, digests, strict=True)]
    return words.make_word_list([word for lines in lists for word in lines])


@lru_cache(maxsize=2)
def _url_rules(lists: tuple[tuple[str, str], ...], url_words: tuple[str, ...]) -> UrlRules:
    return make_url_rules([host for path, digest in lists for host in read_list(path, digest)], url_words)
