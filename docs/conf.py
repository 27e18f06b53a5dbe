"""Sphinx's settings for the site. Its pages are laid out by `tools.web.stage`: run `make site`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.web.sources import source_link  # noqa: E402 - the path is set above

project = "LLM fine-tuning, lab by lab"
language = "en"
html_title = project
smartquotes = False  # quotation marks in a text are often code
extensions = ["myst_nb", "sphinx.ext.linkcode", "tools.web.extension"]
suppress_warnings = [
    "myst.header",  # a lab may go from ## to ####
    "misc.highlighting_failure",  # code that is cut short with … is no Python
]

# --- notebooks and Markdown -----------------------------------------------------------------------
nb_execution_mode = "off"  # they were executed by `make labs`
nb_render_markdown_format = "myst"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
myst_heading_slug_func = "tools.web.sections.slug"
myst_links_external_new_tab = False

# --- the library ----------------------------------------------------------------------------------
add_module_names = False
maximum_signature_line_length = 80
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"


def linkcode_resolve(domain, info):
    """A name of the reference to its source."""
    return source_link(info) if domain == "py" else None


# --- pages ----------------------------------------------------------------------------------------
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False
html_permalinks_icon = "#"
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    "navigation_with_keys": False,  # the arrows scroll wide tables
    "top_of_page_buttons": [],
}
