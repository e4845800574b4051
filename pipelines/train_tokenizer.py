"""Trains a tokenizer: counts the words of the inputs, weights them, trains on the counts.

``python pipelines/train_tokenizer.py INPUT... --output DIR``; the input may be a finished count instead of documents.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from glm_data.config import to_mapping
from glm_data.errors import GlmDataError
from glm_data.stage import Success, find_inputs, finished, open_stage, read_success, write_shard_record
from glm_data.vocabulary import CountOptions, TokenizerOptions
from glm_data.vocabulary.options import check
from glm_data.vocabulary.stage import cut_checks, train_from_counts
from pipelines import count_words
from pipelines.arguments import stage_main
from pipelines.runner import RunnerOptions
from tokenizer import Tokenizer

NAME = "tokenizer"


def run(
    inputs: Sequence[str | Path],
    out: Path,
    options: TokenizerOptions | None = None,
    runner: RunnerOptions | None = None,
    overwrite: bool = False,
) -> Success:
    """Train a tokenizer on the documents of ``inputs``; ``out`` becomes a stage folder.

    Documents are counted into ``out/_work/count`` first; the folder of a finished count is trained on as it is. Raises
    :class:`ConfigError` for options that cannot be meant, :class:`InputError` for too little text or memory.
    """
    options = options or TokenizerOptions()
    check(options)
    found = find_inputs(inputs)
    deciding = {name: value for name, value in to_mapping(options).items() if name != "max_memory"}
    plan = (NAME, deciding, found)
    if not overwrite and (done := finished(out, *plan)):
        return done
    with open_stage(out, *plan, overwrite=overwrite) as stage:
        counts = _finished_count(inputs)
        if counts is None:
            counts = out / "_work" / "count"
            counting = CountOptions(format=options.format, max_bad_fraction=options.max_bad_fraction)
            count_words.run(inputs, counts, counting, runner, overwrite=True)
        started = time.perf_counter()
        record, facts = train_from_counts(counts, out, options)
        write_shard_record(out, record, started)
        checks = [*read_success(counts).checks, *cut_checks(facts)]
        return stage.succeed(1, checks, {"tokenizer": Tokenizer.load(out).description(), **facts})


def _finished_count(inputs: Sequence[str | Path]) -> Path | None:
    """The folder of the count, if that is what the inputs are."""
    if len(inputs) != 1 or not Path(inputs[0]).is_dir():
        return None
    try:
        return Path(inputs[0]) if read_success(Path(inputs[0])).stage == count_words.NAME else None
    except GlmDataError:
        return None


def main(argv: Sequence[str] | None = None) -> int:
    """The stage's command line; returns the exit code."""
    return stage_main(argv, NAME, __doc__ or "", TokenizerOptions, run)


if __name__ == "__main__":
    sys.exit(main())
