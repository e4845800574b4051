"""What a recipe would take: documents, tokens, disk, memory and core-hours of each stage, and the cost of training.

Filtering and de-duplication are measured on a sample on this machine; the other stages go by what they took elsewhere
(docs/benchmarks.md, docs/lab-notes.md), so core-hours are good to a factor of two. What de-duplication and
decontamination remove is known only afterwards: documents and tokens are those before them, the most there can be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from glm_data.dedupe.plan import costs, take_sample
from glm_data.errors import UsageError
from glm_data.inputs import find_inputs
from glm_data.model.config import preset
from glm_data.packing.options import resolve
from glm_data.packing.spans import length_table
from glm_data.planning.sample import Look, look_at
from glm_data.recipe import Loaded
from glm_data.recipe import resolve as resolve_path
from glm_data.training.plan import PlanOptions
from glm_data.training.plan import plan as plan_training
from glm_data.vocabulary.options import train_options
from tokenizer.train import training_memory

BYTES_A_TOKEN = {
    "en": ((512, 1.6), (4096, 2.5), (8000, 2.88), (16_000, 3.19), (32_000, 3.58), (50_000, 3.79), (147_456, 4.34)),
    "zh": ((512, 1.3), (4096, 2.8), (8000, 3.10), (16_000, 3.33), (32_000, 3.65), (50_000, 3.92), (147_456, 4.45)),
}
"""Bytes of text a token by the size of the vocabulary: from 8,000 pieces on measured on held-out text
(docs/lab-notes.md), below guessed, as it hangs on the corpus there; in between, by the logarithm of the size."""
BYTES_A_SECOND = {"decontaminate": 20e6, "tokenizer": 6e6, "tokenize": 25e6, "pack": 60e6}
"""Text a core takes in (docs/benchmarks.md, docs/lab-notes.md), start included, at some hundred megabytes."""
MEMORY = {"filter": 0.45e9, "decontaminate": 0.6e9, "tokenizer": 0.7e9, "tokenize": 0.5e9, "pack": 0.7e9, "mip": 0.3e9}
"""Peak of one process, from the same pages."""
WRITTEN = {"filter": 0.55, "decontaminate": 0.45, "tokenizer": 0.2}
"""Bytes written a byte of text: parquet at zstd level 1, with what was dropped and the signals; counts of words."""
START_SECONDS = 3.0
"""CPU of a stage's start: Beam, imports, kernels."""
ALONE = {"tokenizer": 0.65}
"""The share of a stage's CPU that one process takes while no other has work: training, once words are counted."""
WORDS = (241e6, 2.99e6, 0.87, 53.1e6, 0.9)
"""Different words of so much text and their bytes, each with the power of the text that it grows by: fitted to 0.57 and
241 MB of Chinese and English."""
_FREQUENT = (0.23, 0.14)
"""The share of words, and of their bytes, that are met twice or more."""
PACKED_BYTES = {True: 2.2, False: 4.3}
"""Bytes a place of a row, by whether ids fit 16 bits (docs/format.md)."""


class StageCost(NamedTuple):
    """What one stage would take."""

    stage: str
    documents: float
    """It reads."""
    text_bytes: float
    disk_bytes: float
    """Its folder, at its fullest."""
    memory_bytes: float
    """Of one worker process."""
    core_seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a recipe would take."""

    look: Look
    stages: tuple[StageCost, ...]
    tokens: Mapping[str, float]
    """By source."""
    rows: float
    training: Mapping[str, Any] | None
    """Parameters, tokens and operations of the recipe's training; None without."""

    @property
    def disk_bytes(self) -> float:
        """Of all stages together."""
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def core_seconds(self) -> float:
        """Of all corpus stages together."""
        return sum(stage.core_seconds for stage in self.stages)

    def seconds(self, workers: int) -> float:
        """By the clock, with a core for each of ``workers`` processes."""
        shares = [ALONE.get(stage.stage, 0.0) for stage in self.stages]
        times = (share + (1 - share) / workers for share in shares)
        return sum(stage.core_seconds * time for stage, time in zip(self.stages, times, strict=True))


def estimate(loaded: Loaded) -> Estimate:
    """Look at the recipe's inputs and say what its stages would take; :class:`UsageError` if it has none to look at."""
    if not loaded.recipe.inputs:
        raise UsageError(f"'{loaded.path}' makes its own input, the bundled demo's; plan a recipe with 'inputs:'.")
    paths = [resolve_path(loaded.path, given) for given in loaded.recipe.inputs]
    look = look_at(paths, loaded.options.get("filter"))  # type: ignore[arg-type]
    tokens = _tokens(look, loaded) if "tokenizer" in loaded.options else {}
    places = _places(sum(tokens.values()), loaded)
    recipe = resolve(loaded.options["pack"]) if "pack" in loaded.options else None  # type: ignore[arg-type]
    rows = places / recipe.seq_length if recipe else 0.0
    stages = tuple(_stages(loaded, look, paths, sum(tokens.values()), places))
    return Estimate(look, stages, tokens, rows, _training(loaded, rows, recipe.seq_length if recipe else 2048))


def bytes_a_token(lang: str, vocab_size: int) -> float:
    """Bytes of text a token of a tokenizer with so many pieces, in ``zh…``, ``en`` or another language."""
    known = [BYTES_A_TOKEN["zh"]] if lang.startswith("zh") else [BYTES_A_TOKEN["en"]]
    known = list(BYTES_A_TOKEN.values()) if lang == "mixed" else known
    size = np.log(vocab_size)
    rates = [np.interp(size, [np.log(n) for n, _ in table], [rate for _, rate in table]) for table in known]
    return float(np.mean(rates))


def _tokens(look: Look, loaded: Loaded) -> dict[str, float]:
    size: int = loaded.options["tokenizer"].vocab_size  # type: ignore[attr-defined]
    found: defaultdict[str, float] = defaultdict(float)
    for part in look.kept:
        found[part.source] += part.text_bytes / bytes_a_token(part.lang, size)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _places(tokens: float, loaded: Loaded) -> float:
    """Places of rows that so many tokens of text take: times their epochs, with two places a span, and MIP."""
    if "pack" not in loaded.options:
        return 0.0
    recipe = resolve(loaded.options["pack"])  # type: ignore[arg-type]
    everything = recipe.mix.get("*")
    table = length_table(recipe.span_mean, recipe.span_longest).astype(float)
    mean = float((np.diff([0.0, *table]) / table[-1] * np.arange(1, len(table) + 1)).sum())
    masked = recipe.mask_share * (1 + 2 * recipe.mask_rate / mean)
    places = tokens * ((everything.epochs if everything else None) or 1.0) * (masked + 1 - recipe.mask_share)
    mip = recipe.mip_ratio if recipe.mip_ratio is not None else 0.05 if "mip" in loaded.options else 0.0
    return places / (1 - min(mip, 0.99))


def _stages(loaded: Loaded, look: Look, paths: list[str], tokens: float, places: float) -> Iterator[StageCost]:
    documents, text = look.documents, look.text_bytes
    is_small = "tokenizer" in loaded.options and loaded.options["tokenizer"].vocab_size <= 1 << 16  # type: ignore[attr-defined]
    for stage, options in loaded.options.items():
        if stage == "filter":
            seconds = text * look.seconds_per_byte
            yield StageCost(stage, documents, text, text * WRITTEN[stage], MEMORY[stage], seconds + START_SECONDS)
            documents, text = look.kept_documents, look.kept_bytes
        elif stage == "dedupe":
            sample = take_sample(find_inputs(paths, digest=False), options)  # type: ignore[arg-type]
            if "filter" in loaded.options:
                sample = sample._replace(is_spooled=False)  # it reads what the filter has parsed
            cost = costs(sample, options, round(documents))  # type: ignore[arg-type]
            seconds = cost.cpu_seconds + START_SECONDS
            yield StageCost(stage, documents, text, cost.disk_bytes, cost.memory_bytes, seconds)
        elif stage in BYTES_A_SECOND or stage == "mip":
            disk = {"tokenize": tokens * (2 if is_small else 4), "pack": places * PACKED_BYTES[is_small]}
            written = disk.get(stage, text * WRITTEN.get(stage, 0.0))
            read = places * 4 if stage == "pack" else 0.0 if stage == "mip" else text
            seconds = read / BYTES_A_SECOND.get(stage, 1.0) + START_SECONDS
            memory = training_bytes(text, options) if stage == "tokenizer" else MEMORY[stage]
            yield StageCost(stage, documents, text, written, memory, seconds)


def training_bytes(text: float, options: Any) -> float:
    """Memory to train a tokenizer on so many bytes of text; counting takes what :data:`MEMORY` says."""
    measured, words, growth, size, size_growth = WORDS
    kept, kept_bytes = _FREQUENT if options.min_count > 1 else (1.0, 1.0)
    ratio = text / measured
    counted = int(kept * words * ratio**growth), int(kept_bytes * size * ratio**size_growth)
    return max(MEMORY["tokenizer"], training_memory(*counted, train_options(options)))


def _training(loaded: Loaded, rows: float, seq_length: int) -> dict[str, Any] | None:
    if "train" not in loaded.options:
        return None
    options: Any = loaded.options["train"]
    size: int = loaded.options["tokenizer"].vocab_size  # type: ignore[attr-defined]
    shape = {name: getattr(options, name) for name in ("layers", "hidden", "heads", "ffn") if getattr(options, name)}
    config = msgspec.structs.replace(preset(options.model, size), **shape)
    steps = options.steps or rows * options.epochs / options.batch_rows
    tokens = steps * options.batch_rows * seq_length
    told = plan_training(config, PlanOptions(tokens=tokens, gpus=1, batch_rows=options.batch_rows, recompute=False))
    return {
        "parameters": told["parameters"],
        "steps": steps,
        "tokens": tokens,
        "passes": tokens / max(rows * seq_length, 1),
        "flops": told["flops"],
        "h100_hours": told["days"] * 24,
        "tokens_a_parameter": tokens / told["parameters"],
    }
