"""Sphinx: the documentation site, built from the repository alone, without a network."""

import sys
from pathlib import Path

import plotly

from lab import paths

sys.path.insert(0, str(paths.ROOT / "docs" / "_ext"))

project = "embedding-lab"
author = "The embedding-lab authors"
copyright = author
language = "en"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "drawn",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "_templates", "_static"]
# An annotation may name a class by its short name, of which two modules have one each.
suppress_warnings = ["ref.python"]

# Notebooks are shown as runs left them; the site runs nothing.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["deflist", "dollarmath", "colon_fence", "fieldlist"]
myst_heading_anchors = 3
myst_update_mathjax = False
html_math_renderer = "mathml"

# A module documents what it defines; names that a package passes on stand where they are from.
autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_typehints_format = "short"
autosummary_generate = True

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_copy_source = False
html_static_path = [
    "_static",
    str(Path(plotly.__file__).parent / "package_data" / "plotly.min.js"),
    str(paths.ROOT / "lab" / "export" / "templates" / "site.js"),
]
html_css_files = ["lab.css"]
html_context = {"default_mode": "auto"}
# A list of 200 modules beside each of 200 pages: the bread crumbs and the index lead there too.
html_sidebars = {"_generated/reference/*": []}
html_theme_options = {
    "collapse_navigation": True,
    "navigation_depth": 2,
    "show_prev_next": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
