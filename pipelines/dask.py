"""Beam's Dask runner, for pipelines that it runs right: others are refused before they start."""

from __future__ import annotations

from typing import Any

from apache_beam.runners.dask.dask_runner import DaskRunner as BeamDaskRunner

from pipelines.portable import check_portable


class DaskRunner(BeamDaskRunner):  # type: ignore[misc]
    """As Beam's own, behind :func:`pipelines.portable.check_portable`."""

    def run_pipeline(self, pipeline: Any, options: Any) -> Any:
        """Run ``pipeline``; :class:`UsageError` if Beam's runner would lose data of it without saying so."""
        check_portable(pipeline, "dask")
        return super().run_pipeline(pipeline, options)
