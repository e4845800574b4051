"""Whether the numbers of a run's stages fit together: each stage in itself, and each with the one before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glm_data.manifest import Check, Success

DOCUMENT_STAGES = ("filter", "dedupe", "decontaminate", "tokenize")
"""Those whose input and output are documents one by one, so that their losses add up."""


def cross_checks(finished: Mapping[str, Success], plans: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    """One check a document stage that its records are accounted for, and one a pair that hands on documents."""
    checks = [_adds_up(name, success) for name, success in finished.items() if success.stage in DOCUMENT_STAGES]
    checks += [check for name, success in finished.items() for check in _by_source(name, success)]
    return checks + list(_handed_on(finished, plans))


def _adds_up(name: str, success: Success) -> Check:
    dropped, unreadable = sum(success.dropped.values()), sum(success.unreadable.values())
    ok = success.records == success.kept + dropped + unreadable
    return Check(
        name=f"{name} adds up",
        ok=ok,
        sentence=f"{name}: {success.records:,} records read {'=' if ok else 'but'} {success.kept:,} kept + "
        f"{dropped:,} dropped + {unreadable:,} unreadable.",
    )


def _by_source(name: str, success: Success) -> Iterator[Check]:
    """``kept/<source>`` of a document stage adds up to what it kept, where it counts by source."""
    kept = [count for key, count in success.counts.items() if key.startswith("kept/")]
    if success.stage in DOCUMENT_STAGES and kept and sum(kept) != success.kept:
        sentence = f"{name}: {success.kept:,} documents kept, but {sum(kept):,} counted by source."
        yield Check(name=f"{name} by source", ok=False, sentence=sentence)


def _handed_on(finished: Mapping[str, Success], plans: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """A stage read as many documents as the stage kept whose files it read, known by their digests."""
    for name, success in finished.items():
        if success.stage not in DOCUMENT_STAGES:
            continue
        digests = {item["digest"] for item in plans[name]["inputs"]}
        for earlier, made in finished.items():
            files = {item.digest for item in made.files if item.name.startswith("data/")}
            if earlier != name and made.stage in DOCUMENT_STAGES and files and digests == files:
                read = success.records - success.unreadable.get("empty", 0)  # a file without documents, not a document
                ok = made.kept == read
                verb = "read by" if ok else f"but {read:,} read by"
                sentence = f"{made.kept:,} documents kept by {earlier}, {'all ' if ok else ''}{verb} {name}."
                yield Check(name=f"{earlier} to {name}", ok=ok, sentence=sentence)
