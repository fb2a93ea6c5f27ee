"""Configuration of Sphinx. `scripts/docs` builds the site; nothing is fetched from the network."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent / "_extensions"))
sys.path.insert(0, str(ROOT))

from openmm_cgadv.version import __version__  # noqa: E402

project = "openmm_cgadv"
author = "The openmm_cgadv developers"
copyright = f"2026, {author}"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "command_line",
    "experiment_file",
]
exclude_patterns = ["_build", "_extensions"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"{project} {release}"
html_show_sourcelink = False

myst_enable_extensions = ["amsmath", "attrs_inline", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
# The first sentences of log messages and file names stay as they are written.
smartquotes = False
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
