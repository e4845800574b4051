"""The filter's guard rails: a run that lost more than it should says so and ends with exit code 3."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from glm_data.errors import UsageError
from glm_data.files import digest_file
from glm_data.filters.options import FilterOptions
from glm_data.manifest import unreadable_check
from glm_data.stage import Check, ShardRecord

FEWEST = 20
"""Documents below which a source's loss is no sign of anything."""


def digest_files(options: FilterOptions) -> dict[str, str]:
    """The digests of the models and lists that ``options`` name; raises :class:`UsageError` for one that is missing.

    They make part of the stage's key, so that a changed list is another run.
    """
    models = (options.language_model, options.quality_model)
    paths = [path for path in (*models, *options.word_lists, *options.url_lists) if path]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise UsageError(f"'{missing[0]}' is no file; models, word lists and URL lists are files.")
    return {path: digest_file(Path(path)) for path in paths}


def check_shards(records: Sequence[ShardRecord], options: FilterOptions) -> tuple[Check, ...]:
    """Check the shards of a finished run against the options' limits."""
    return unreadable_check(records, options.max_bad_fraction), check_sources(records, options.max_source_loss)


def check_sources(records: Sequence[ShardRecord], limit: float) -> Check:
    """Whether no source of at least :data:`FEWEST` documents lost more than ``limit`` of them."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record.counts)
    sources = [name.removeprefix("in/") for name, count in counts.items() if name.startswith("in/") and count >= FEWEST]
    losses = {source: 1 - counts[f"kept/{source}"] / counts[f"in/{source}"] for source in sources}
    if not losses:
        return Check(name="source loss", ok=True, sentence=f"no source has {FEWEST} documents to judge its loss by.")
    worst = max(sorted(losses), key=lambda source: losses[source])
    ok = losses[worst] <= limit
    sentence = (
        f"'{worst}' lost most, {losses[worst]:.1%} of its {counts[f'in/{worst}']:,} documents; the limit is {limit:.1%}"
    )
    if not ok:
        sentence += ": look at dropped/, choose another profile, or raise --max-source-loss"
    return Check(name="source loss", ok=ok, sentence=sentence + ".")
