"""Sphinx configuration."""

import os
import sys
from importlib.metadata import version as _version

# For the notebook kernels: waiting threads do not spin, which would slow other processes down.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

sys.path.insert(0, os.path.dirname(__file__))
from _scale import substitutions as myst_substitutions  # noqa: F401 - the numbers of large.md

project = "stcsm"
author = "The stcsm developers"
copyright = "2026, the stcsm developers"
release = _version("stcsm")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
autosummary_generate = True
autosummary_imported_members = True
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_custom_sections = [("Writes", "notes_style")]
napoleon_use_rtype = False
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "substitution"]
myst_heading_anchors = 3
# The build executes the tutorials on the simulated tissue; an error in one of them fails the build.
nb_execution_mode = "auto"
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_merge_streams = True
html_theme = "sphinx_book_theme"
html_title = "stcsm"
html_static_path = ["_static"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
suppress_warnings = ["mystnb.unknown_mime_type", "config.cache"]
