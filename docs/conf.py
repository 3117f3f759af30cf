"""Sphinx reads this; scripts/docs calls it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import refllm  # noqa: E402

project = "refllm"
author = "The refllm authors"
copyright = "the refllm authors"
release = refllm.__version__
language = "en"

extensions = ["myst_parser", "book.extension"]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # schematic JSON is not JSON
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "images/README.md"]
nitpicky = True

html_theme = "furo"
html_title = f"refllm {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
highlight_language = "none"
