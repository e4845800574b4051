"""``glm-data mip``: instruction data from prompt templates."""

from __future__ import annotations

from glm_data.cli.shell import LazyGroup

mip = LazyGroup(
    "mip",
    lazy={
        "render": ("glm_data.cli.mip_render:render", "Render the samples of a mixture of data sets and templates."),
        "show": ("glm_data.cli.mip_show:show", "Show what templates make of a row."),
        "lint": ("glm_data.cli.mip_lint:lint", "Check templates by their text, their columns and rows."),
        "report": ("glm_data.cli.mip_report:report", "Say what a rendered mixture holds, and what it gives away."),
        "packs": ("glm_data.cli.mip_show:packs", "List the bundled packs of templates."),
        "fetch": ("glm_data.cli.mip_fetch:fetch", "Get the rows of a mixture from the Hugging Face hub."),
    },
    help="Multi-task instruction data: data sets rendered through templates in promptsource's format.",
    example="""
        glm-data mip show zh/sentiment
        glm-data mip render mixture.yaml --out run/mip
    """,
)
