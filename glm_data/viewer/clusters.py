"""Clusters of duplicates to be looked at: what went, what it went for, and the two texts side by side."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from glm_data.errors import InputError
from glm_data.inspection import Cluster, FinishedStage, Overlap, largest_clusters, source_overlap
from glm_data.inspection.audit import TABLE
from glm_data.inspection.lookup import find_documents
from glm_data.manifest import InputFile
from glm_data.viewer.differences import Facing, side_by_side
from glm_data.viewer.styled import Span, clip, reveal

SHOWN, REMOVED_SHOWN = 200, 50
"""Clusters that are listed, and removals of each, the least similar first."""
_CHARACTERS = 2_000
"""Of a passage that differs, or of the beginning of a text."""


class ClustersView(msgspec.Struct, frozen=True, kw_only=True):
    """What a dedupe stage removed."""

    records: int
    removed: int
    rules: dict[str, int]
    clusters: list[Cluster]
    overlap: Overlap | None
    """None if the stage's work folder is gone."""


class PairView(msgspec.Struct, frozen=True, kw_only=True):
    """A removed document beside the one that stayed."""

    facing: list[Facing]
    """Where they differ; none for equal texts."""
    characters: tuple[int, int]
    beginning: list[Span]
    """Of the kept document."""


def view_clusters(stage: FinishedStage) -> ClustersView:
    """The largest clusters of a dedupe stage, and the overlap of its sources."""
    try:
        overlap = source_overlap(stage.folder / "_work")
    except InputError:
        overlap = None
    return ClustersView(
        records=stage.success.records,
        removed=sum(stage.success.dropped.values()),
        rules=stage.success.dropped,
        clusters=largest_clusters(stage.folder / TABLE, SHOWN, REMOVED_SHOWN),
        overlap=overlap,
    )


def view_pair(stage: FinishedStage, removed: str, kept: str, inputs: Sequence[InputFile]) -> PairView:
    """Two documents of a dedupe stage, read again from its ``inputs``; :class:`InputError` if they are not there."""
    found = find_documents(inputs, {removed, kept}, stage.plan["options"]["format"])
    missing = [id for id in (removed, kept) if id not in found]
    if missing:
        raise InputError(f"the inputs of '{stage.folder}' hold no document '{missing[0]}'; it may be an earlier run's.")
    left, right = found[removed]["text"], found[kept]["text"]
    return PairView(
        facing=side_by_side(left, right, _CHARACTERS),
        characters=(len(left), len(right)),
        beginning=clip(reveal(right[: _CHARACTERS + 1]), _CHARACTERS),
    )
