"""Inputs looked at by the beginnings of some of their files: formats, documents, sources, languages, losses."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from glm_data.dedupe import DedupeOptions
from glm_data.dedupe.plan import beginning
from glm_data.errors import UsageError
from glm_data.filters import LANGUAGES, FilterOptions, filter_block, load_profile
from glm_data.filters.clean_block import replace_column
from glm_data.filters.language import detect
from glm_data.formats import sniff
from glm_data.inputs import find_inputs
from glm_data.manifest import InputFile
from glm_data.text import statistics

SAMPLED_FILES = 8


class Part(NamedTuple):
    """Documents of one source in one language, in all inputs."""

    source: str
    lang: str
    documents: float
    text_bytes: float


@dataclass
class Look:
    """What a sample says of all inputs; numbers are scaled up from the beginnings of ``sampled`` files."""

    files: int
    bytes: int
    sampled: int
    formats: Counter[str] = field(default_factory=Counter)
    documents: float = 0.0
    text_bytes: float = 0.0
    kept: tuple[Part, ...] = ()
    """What the filter keeps, by source and language; all documents if nothing is filtered."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents of the sample itself by the filter's reason."""
    seconds_per_byte: float = 0.0
    """CPU for reading and filtering a byte of text on this machine."""

    @property
    def kept_documents(self) -> float:
        """Documents that the filter keeps."""
        return sum(part.documents for part in self.kept)

    @property
    def kept_bytes(self) -> float:
        """Text that the filter keeps."""
        return sum(part.text_bytes for part in self.kept)


def look_at(paths: Sequence[str | Path], options: FilterOptions | None = None) -> Look:
    """Read the beginnings of up to eight of the inputs, and filter them by ``options``.

    Without options documents are named by language and all kept. Raises :class:`UsageError` for inputs that cannot be
    found or hold no document.
    """
    inputs = find_inputs(paths, digest=False)
    chosen = [inputs[place] for place in np.unique(np.linspace(0, len(inputs) - 1, SAMPLED_FILES).astype(int))]
    whole = sum(item.bytes for item in inputs)
    look = Look(len(inputs), whole, len(chosen))
    scale = whole / max(sum(item.bytes for item in chosen), 1)
    kept: defaultdict[tuple[str, str], float] = defaultdict(float)
    size: defaultdict[tuple[str, str], float] = defaultdict(float)
    read = seconds = 0.0
    for number, item in enumerate(chosen):
        look.formats[sniff(Path(item.path))] += 1
        if number == 0:
            _read(item, options)  # once unmeasured: kernels are loaded or compiled
        started = time.process_time()
        blocks, share, reasons = _read(item, options)
        seconds += time.process_time() - started
        look.dropped.update(reasons)
        for before, after in blocks:
            factor = scale / share
            look.documents += before.num_rows * factor
            look.text_bytes += _text_bytes(before) * factor
            read += _text_bytes(before)
            _add(kept, size, after, factor)
    if not look.documents:
        raise UsageError("the inputs hold no document that can be read; check the paths and their format.")
    look.kept = tuple(Part(*name, kept[name], size[name]) for name in sorted(kept, key=lambda name: -size[name]))
    look.seconds_per_byte = seconds / max(read, 1)
    return look


_Blocks = list[tuple[pa.RecordBatch, pa.RecordBatch]]


def _read(item: InputFile, options: FilterOptions | None) -> tuple[_Blocks, float, Counter[str]]:
    """Blocks before and after the filter, the share of the file that they are, and reasons of those dropped."""
    blocks, share = beginning(item, DedupeOptions(format=options.format if options else "auto"))
    if options is None:
        return [(block, _with_language(block)) for block in blocks], share, Counter()
    profile = load_profile(options.profile)
    filtered = [filter_block(block, options, profile) for block in blocks]
    reasons = sum((each.reasons for each in filtered), Counter[str]())
    return [(block, each.kept) for block, each in zip(blocks, filtered, strict=True)], share, reasons


def _with_language(block: pa.RecordBatch) -> pa.RecordBatch:
    texts = block.column("text")
    codes = detect(texts, statistics.count(texts))
    names = pa.DictionaryArray.from_arrays(pa.array(codes), list(LANGUAGES)).cast(pa.string())
    return replace_column(block, "lang", names)


_Sums = defaultdict[tuple[str, str], float]


def _add(kept: _Sums, size: _Sums, block: pa.RecordBatch, factor: float) -> None:
    """Add a block's documents and bytes by source and language."""
    table = pa.table(
        {
            "source": block.column("source"),
            "lang": block.column("lang"),
            "bytes": pc.binary_length(block.column("text")),
        }
    )
    groups = table.group_by(["source", "lang"]).aggregate([("bytes", "sum"), ("bytes", "count")])
    for row in groups.to_pylist():
        name = (row["source"] or "", row["lang"] or "")
        kept[name] += row["bytes_count"] * factor
        size[name] += (row["bytes_sum"] or 0) * factor


def _text_bytes(block: pa.RecordBatch) -> int:
    return int(pc.sum(pc.binary_length(block.column("text"))).as_py() or 0)
