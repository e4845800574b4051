"""The run report: what the stages of a run wrote, collected into plain values and rendered as one HTML file.

::

    run folder --collect()--> plain dict --render()--> one page of HTML
                                   `-----------------> report.json

Nothing here runs a stage: numbers come from the stages' manifests, plans and measurements, span lengths from a sample
of the packed rows, excerpts from the few documents that are shown, the loss curve from ``train/metrics.jsonl``, and the
infill samples from ``infill.json`` in the run's folder (a list of objects
with ``prompt`` and ``filled``, the texts for the prompt's blanks in their order; without a mask, one blank at the end).
"""

from glm_data.report.collect import collect
from glm_data.report.origin import Origin, write_origin
from glm_data.report.render import render
from glm_data.report.write import REPORT_HTML, REPORT_JSON, write_report

__all__ = ["REPORT_HTML", "REPORT_JSON", "Origin", "collect", "render", "write_origin", "write_report"]
