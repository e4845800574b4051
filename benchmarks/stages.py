"""The stages of the main job up to the pack: seconds, throughput and peak memory from what the stages recorded."""

from __future__ import annotations

from pathlib import Path

from benchmarks.inputs import STAGES

HEAD = ("stage", "records", "kept", "MB in", "MB/s", "s", "peak MB")


def table(run: Path) -> list[tuple[str, ...]]:
    """One row a finished stage. ``MB in`` is UTF-8 text where the stage counts it, else file size."""
    return [HEAD, *(_row(run / stage) for stage in STAGES)]


def _row(folder: Path) -> tuple[str, ...]:
    from glm_data import files
    from glm_data.stage import PLAN, RUN, read_success

    success, measured = read_success(folder), files.read_json(folder / RUN / "stage.json")
    text = success.counts.get("text_bytes_in") or success.counts.get("text_bytes")
    size = text or sum(item["bytes"] for item in files.read_json(folder / PLAN)["inputs"])
    seconds, peak = measured["seconds"], measured["peak_bytes"] / 1e6
    rate = f"{size / 1e6 / seconds:.1f}"
    counts = (f"{success.records:,}", f"{success.kept:,}")
    return (folder.name, *counts, f"{size / 1e6:.1f}", rate, f"{seconds:.1f}", f"{peak:.0f}")
