"""``glm-data mip``: instruction data from prompt templates."""

from __future__ import annotations

from glm_data.cli.shell import LazyGroup

mip = LazyGroup(
    "mip",
    lazy={"render": ("glm_data.cli.mip_render:render", "Render the samples of a mixture of data sets and templates.")},
    help="Multi-task instruction data: data sets rendered through templates in promptsource's format.",
    example="glm-data mip render mixture.yaml --out run/mip",
)
