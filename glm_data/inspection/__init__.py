"""Finished runs, looked into: the life of one document, clusters of duplicates, an audit of what was removed."""

from glm_data.inspection.audit import Audit, audit
from glm_data.inspection.clusters import Cluster, Overlap, largest_clusters, source_overlap
from glm_data.inspection.life import Event, Life, trace
from glm_data.inspection.runs import FinishedStage, Run, locate_inputs, open_run

__all__ = [
    "Audit",
    "Cluster",
    "Event",
    "FinishedStage",
    "Life",
    "Overlap",
    "Run",
    "audit",
    "largest_clusters",
    "locate_inputs",
    "open_run",
    "source_overlap",
    "trace",
]
