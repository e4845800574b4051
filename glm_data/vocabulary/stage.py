"""Training from counted words, with the memory asked for first and what was cut proved afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glm_data.errors import InputError
from glm_data.stage import Check, ShardRecord, output_file, read_success
from glm_data.vocabulary.options import TokenizerOptions, train_options
from glm_data.vocabulary.words import FINENESS, Weights, count_groups, facts_of, load_words, refuse_if_empty, weigh
from tokenizer import Tokenizer, TokenizerError, TrainOptions
from tokenizer.train import Counted, last_merge, train_counted, training_memory

_FREE_SHARE = 0.9


def train_from_counts(folder: Path, out: Path, options: TokenizerOptions) -> tuple[ShardRecord, dict[str, Any]]:
    """Train on the finished count in ``folder`` and write the tokenizer to ``out``; returns the record and the facts.

    Raises :class:`InputError` if there is too little text or too little memory.
    """
    counted_by = read_success(folder)
    weights = weigh(count_groups(folder), options)
    refuse_if_empty(weights, options)
    counted = load_words(folder, weights, options.min_count)
    needed = check_memory(counted, train_options(options), options.max_memory)
    try:
        tokenizer = train_counted(counted, train_options(options))
    except TokenizerError as error:
        shares = ", ".join(f"{name} {size:,}" for name, size in sorted(weights.bytes.items()))
        raise InputError(f"tokenizer: {error} Its texts have, in bytes: {shares}.") from None
    tokenizer.save(out)
    facts = facts_of(weights) | _proof(tokenizer, counted, weights, counted_by.facts["rare_below"])
    facts |= {"words": len(counted.words), "word_bytes": _size(counted), "estimated_memory": needed}
    documents = counted_by.facts["documents"]
    record = ShardRecord(
        shard=0,
        input=f"{len(counted_by.files)} files of counts",
        records=documents,
        kept=documents,
        counts={f"bytes/{name}": size for name, size in weights.bytes.items()},
        files=(output_file(out, "tokenizer.json"), output_file(out, "tokenizer.model")),
    )
    return record, facts


def check_memory(counted: Counted, options: TrainOptions, most_gb: float) -> int:
    """Bytes that training will need; raises :class:`InputError` if that is more than there may be."""
    needed = training_memory(len(counted.words), _size(counted), options)
    most = int(most_gb * 1e9) or int(_free_memory() * _FREE_SHARE)
    if needed <= most:
        return needed
    raise InputError(
        f"tokenizer: training on {len(counted.words):,} different words would take about {needed / 1e9:.1f} GB, and "
        f"{most / 1e9:.1f} GB may be used; ask for min_count {_fitting(counted, options, most)} (rarer words are left "
        "out), or raise max_memory."
    )


def _fitting(counted: Counted, options: TrainOptions, most: int) -> int:
    """The least ``min_count`` (of weighted counts, so that it errs on the safe side) that fits."""
    mean = _size(counted) / len(counted.words)
    least = 1
    while least < 1 << 20:
        least *= 2
        left = int((counted.counts >= least * FINENESS).sum())
        if training_memory(left, int(left * mean), options) <= most:
            break
    return least


def _size(counted: Counted) -> int:
    return int(counted.words.nbytes) - 4 * len(counted.words)


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 40


def _proof(tokenizer: Tokenizer, counted: Counted, weights: Weights, bound: int) -> dict[str, Any]:
    """How frequent the last piece is, and how frequent a piece across a cut could be at most."""
    fineness = 1 if set(weights.factors.values()) <= {0.0, 1.0} else FINENESS
    return {
        "last_merge": last_merge(tokenizer, counted) / fineness,
        "cut_below": bound * max(weights.factors.values()) if bound > 1 else 0.0,
    }


def cut_checks(facts: Mapping[str, Any]) -> list[Check]:
    """Says whether cutting rare Han neighbours can have cost a piece, if any were cut; never trips."""
    last, bound = facts["last_merge"], facts["cut_below"]
    if not bound:
        return []
    meaning = "so no piece was lost by it" if last >= bound else "so a few of the rarest pieces may differ by it"
    sentence = (
        f"long Han runs were cut between neighbours met fewer than {bound:,.0f} times; "
        f"the last piece made is met {last:,.0f} times, {meaning}."
    )
    return [Check(name="cuts", ok=True, sentence=sentence)]
