"""Writing the report of a run, or of one stage, to disk."""

from __future__ import annotations

from pathlib import Path

from glm_data import files
from glm_data.manifest import PLAN, RUN
from glm_data.report.collect import collect
from glm_data.report.render import render

REPORT_JSON, REPORT_HTML = "report.json", "report.html"


def write_report(run_dir: Path) -> Path:
    """Write ``report.json`` and ``report.html`` of a run's folder, or of one stage's; returns the page's path.

    A run's report lies in its folder, a stage's below ``_run/``, because everything else in a stage's folder is a
    function of inputs, options and code, and a report tells time and place too (under the key ``run``).
    Raises :class:`glm_data.errors.UsageError` for a folder without stages.
    """
    report = collect(run_dir)
    folder = run_dir / RUN if (run_dir / PLAN).exists() else run_dir
    files.write_if_new(folder / REPORT_JSON, files.json_bytes(report))
    files.write_if_new(folder / REPORT_HTML, render(report).encode())
    return folder / REPORT_HTML
