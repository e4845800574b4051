"""What the filter does to one block of documents: clean, measure, name the language, judge, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from glm_data.filters import fasttext, paragraphs
from glm_data.filters.border import Example, Limits, find_examples
from glm_data.filters.clean_block import clean_block, replace_column, replace_texts
from glm_data.filters.clean_text import to_simplified
from glm_data.filters.language import LANGUAGES, detect
from glm_data.filters.options import FilterOptions
from glm_data.filters.paragraphs import label_paragraphs
from glm_data.filters.rules import Profile, Verdicts, judge
from glm_data.filters.signals import SIGNALS, Signals, gather
from glm_data.text import statistics

VERDICT_FIELDS = (pa.field("reason", pa.string()), pa.field("value", pa.float64()), pa.field("broken", pa.string()))
"""Columns of dropped documents: the first reason, its measured value, and all reasons with theirs as JSON."""

_encoder = msgspec.json.Encoder()


class Filtered(NamedTuple):
    """A block, parted; every document is in one of the two."""

    kept: pa.RecordBatch
    dropped: pa.RecordBatch
    reasons: Counter[str]
    """Dropped documents by first reason."""
    counts: Counter[str]
    """See :func:`filter_block`."""
    signals: pa.RecordBatch
    """Every document's verdict, source, language and signals, in the order of the block."""
    examples: list[Example]
    """Documents near the bounds of rules."""


def filter_block(
    block: pa.RecordBatch,
    options: FilterOptions,
    profile: Profile,
    digests: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Filtered:
    """Part the documents of a block into kept (cleaned, with ``lang``) and dropped (the same, with the verdict).

    Counts: ``text_bytes_in`` (before cleaning), ``text_bytes_kept`` (after), ``cleaned/<step>`` documents changed,
    ``in/<source>``, ``kept/<source>``, ``dropped/<source>/<reason>``, ``dropped_language/<lang>/<reason>``,
    ``kept_documents/<lang>``, ``kept_bytes/<lang>``. ``digests`` are those of the files that ``options`` name;
    examples beyond ``limits`` are left out.
    """
    counts = Counter({"text_bytes_in": text_bytes(block)})
    block, cleaned = clean_block(block, options.steps)
    model = _language_model(options.language_model, (digests or {}).get(options.language_model, ""))
    block, mixed = _label(block, options, model, cleaned)
    texts = block.column("text")
    measured = statistics.count(texts)
    languages = np.where(mixed, LANGUAGES.index("mixed"), detect(texts, measured, model)).astype(np.int8)
    drop_sources = (*options.drop_sources, *profile.drop_sources)
    signals = gather(block, measured, options, digests or {}, profile.drop_url_words, drop_sources)
    verdicts = judge(profile, signals, languages)
    examples = list(find_examples(block, profile, signals, languages, verdicts, limits))
    if options.to_simplified:
        block, languages, cleaned["to_simplified"] = _simplify(block, measured, languages)
    counts.update({f"cleaned/{step}": count for step, count in cleaned.items() if count})
    names = pa.DictionaryArray.from_arrays(pa.array(languages), list(LANGUAGES)).cast(pa.string())
    block = replace_column(block, "lang", names)
    keep = pa.array(verdicts.reasons == "", pa.bool_())
    table = signal_table(block, keep, verdicts, signals)
    kept = block.filter(keep)
    rows = np.flatnonzero(verdicts.reasons != "")
    dropped = _with_verdicts(block.take(pa.array(rows)), verdicts, rows)
    _count(block, kept, dropped, counts)
    reasons = Counter(dropped.column("reason").to_pylist())
    return Filtered(kept, dropped, reasons, counts, table, examples)


def signal_table(block: pa.RecordBatch, keep: pa.BooleanArray, verdicts: Verdicts, signals: Signals) -> pa.RecordBatch:
    """What ``glm-data filter tune`` reads: ``kept``, ``reason``, ``source``, ``lang``, and a column a signal."""
    names = ("source", "lang")
    columns = {"kept": keep, "reason": pa.array(verdicts.reasons, pa.string())}
    columns |= {name: block.column(name) for name in names}
    columns |= {name: pa.array(signals[name].astype(np.float32)) for name in SIGNALS}
    return pa.RecordBatch.from_pydict(columns)


def text_bytes(block: pa.RecordBatch) -> int:
    """Bytes of the block's texts in UTF-8."""
    return pc.sum(pc.binary_length(block.column("text"))).as_py() or 0


@lru_cache(maxsize=2)
def _language_model(path: str, digest: str) -> fasttext.Model | None:
    """The model at ``path``, if one is named; ``digest`` tells versions of the file apart."""
    return fasttext.load(Path(path)) if path else None


def _label(
    block: pa.RecordBatch, options: FilterOptions, model: fasttext.Model | None, cleaned: Counter[str]
) -> tuple[pa.RecordBatch, NDArray[np.bool_]]:
    """The block with its paragraphs' languages, as far as ``options`` ask for it, and which documents are mixed."""
    if not (options.paragraph_languages or options.drop_paragraphs):
        return block, np.zeros(block.num_rows, bool)
    labelled = label_paragraphs(block.column("text"), options.drop_paragraphs, model)
    cleaned["paragraphs"] = len(labelled.kept)
    block = replace_column(block, "text", replace_texts(block.column("text"), labelled.kept))
    if options.paragraph_languages:
        schema = pa.schema([*block.schema, *paragraphs.FIELDS])
        block = pa.RecordBatch.from_arrays([*block.columns, *labelled.columns], schema=schema)
    return block, labelled.mixed


def _simplify(
    block: pa.RecordBatch, measured: NDArray[np.int64], languages: NDArray[np.int8]
) -> tuple[pa.RecordBatch, NDArray[np.int8], int]:
    """Convert the documents in traditional Chinese, mixed ones included; returns how many changed too."""
    hans, hant, mixed = (LANGUAGES.index(name) for name in ("zh-Hans", "zh-Hant", "mixed"))
    traditional = measured[:, statistics.COUNTS.index("traditional")]
    rows = np.flatnonzero((languages == hant) | ((languages == mixed) & (traditional > 0))).tolist()
    texts = block.column("text")
    simplified = to_simplified([texts[row].as_py() for row in rows])
    changes = {row: text.encode() for row, text in zip(rows, simplified, strict=True)}
    languages = np.where(languages == hant, hans, languages).astype(np.int8)
    return replace_column(block, "text", replace_texts(texts, changes)), languages, len(rows)


def _with_verdicts(dropped: pa.RecordBatch, verdicts: Verdicts, rows: NDArray[np.int64]) -> pa.RecordBatch:
    """The documents of ``rows`` with the verdicts on them."""
    values = pa.array(verdicts.values[rows], from_pandas=True)  # NaN becomes null
    broken = [_encoder.encode(verdicts.broken[row]).decode() for row in rows.tolist()]
    columns = [*dropped.columns, pa.array(verdicts.reasons[rows], pa.string()), values, pa.array(broken, pa.string())]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([*dropped.schema, *VERDICT_FIELDS]))


def _count(block: pa.RecordBatch, kept: pa.RecordBatch, dropped: pa.RecordBatch, counts: Counter[str]) -> None:
    counts["text_bytes_kept"] = text_bytes(kept)
    for name, part in (("in", block), ("kept", kept)):
        for found in pc.value_counts(part.column("source")).to_pylist():
            counts[f"{name}/{found['values']}"] += found["counts"]
    sources, languages, reasons = (dropped.column(name).to_pylist() for name in ("source", "lang", "reason"))
    counts.update(f"dropped/{source}/{reason}" for source, reason in zip(sources, reasons, strict=True))
    counts.update(f"dropped_language/{language}/{reason}" for language, reason in zip(languages, reasons, strict=True))
    names, sizes = kept.column("lang"), pc.binary_length(kept.column("text"))
    for language in pc.unique(names).to_pylist():
        own = sizes.filter(pc.equal(names, language))
        counts[f"kept_documents/{language}"] += len(own)
        counts[f"kept_bytes/{language}"] += pc.sum(own).as_py()
