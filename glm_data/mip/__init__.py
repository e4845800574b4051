"""Multi-task instruction data: data sets rendered through prompt templates to (prompt, target) samples."""

from glm_data.mip.mixture import DataSet, Mixture, load_mixture, read_mixture
from glm_data.mip.options import MipOptions
from glm_data.mip.render import Refused, Rendered, Renderer, render_row
from glm_data.mip.rows import RowMap, prepare_row
from glm_data.mip.shard import render_shard
from glm_data.mip.stage import render_stage
from glm_data.mip.templates import Template, TemplateError, TemplateFile, find_templates, packs, read_templates

__all__ = [
    "DataSet",
    "MipOptions",
    "Mixture",
    "Refused",
    "Rendered",
    "Renderer",
    "RowMap",
    "Template",
    "TemplateError",
    "TemplateFile",
    "find_templates",
    "load_mixture",
    "packs",
    "prepare_row",
    "read_mixture",
    "read_templates",
    "render_row",
    "render_shard",
    "render_stage",
]
