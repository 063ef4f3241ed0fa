"""Sphinx: the site is built without a network, and every warning is an error (-W)."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import vcmbench

project = "vcmbench"
author = "The vcmbench developers"
project_copyright = author
version = release = vcmbench.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docstrings",
    "generated_pages",
    "mathml",
]
exclude_patterns = ["_ext", "examples", "result.schema.json"]
suppress_warnings = ["config.cache"]

myst_enable_extensions = ["dollarmath", "deflist", "attrs_block"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
# Docstrings name things in single backticks; what is no public object stays code.
default_role = "py:obj"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_type_aliases = {name: name for name in ("FloatArray", "IntArray", "Progress", "ArrayLike")}
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True

highlight_language = "none"

html_theme = "furo"
html_title = f"vcmbench {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"
