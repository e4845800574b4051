"""Multi-task instruction data: data sets rendered through prompt templates to (prompt, target) samples."""

from glm_data.mip.mixture import DataSet, Mixture, read_mixture
from glm_data.mip.render import Refused, Rendered, Renderer, prepare_row
from glm_data.mip.stage import MipOptions, render_shard, render_stage
from glm_data.mip.templates import Template, TemplateError, TemplateFile, read_templates

__all__ = [
    "DataSet",
    "MipOptions",
    "Mixture",
    "Refused",
    "Rendered",
    "Renderer",
    "Template",
    "TemplateError",
    "TemplateFile",
    "prepare_row",
    "read_mixture",
    "read_templates",
    "render_shard",
    "render_stage",
]
