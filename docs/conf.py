"""The documentation as a site: ``make docs`` builds it into docs/_build, with warnings as errors and no network."""

import glm_data

project = "glm-data"
author = copyright = "the authors of glm-data"
version = release = glm_data.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

html_theme = "alabaster"
html_theme_options = {
    "description": "Chinese and English text, packed the way GLM-130B is trained",
    "fixed_sidebar": True,
    "page_width": "1060px",
    "sidebar_width": "220px",
}
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_show_sourcelink = False
html_copy_source = False
