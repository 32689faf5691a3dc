"""The settings of the site, which `make docs` builds."""

import importlib
import os
import sys

ROOT = os.path.join(os.path.dirname(__file__), "..")
sys.path[:0] = [os.path.abspath(ROOT), os.path.dirname(__file__)]
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

release = importlib.import_module("bert_keras").__version__
project = "bert_keras"
html_title = f"bert_keras {release}"
copyright = "The authors of bert_keras, Apache License 2.0"
html_theme = "furo"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_show_sphinx = False
html_copy_source = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "extensions.docstrings",
    "extensions.settings",
]
exclude_patterns = ["extensions"]
nitpicky = False  # types of Keras and TensorFlow have no pages here

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
highlight_language = "none"

# `python not-run`, `sh not-run`: tests/markdown.py leaves these blocks out.
# MyST reads the language alone, so that they are highlighted like the others.

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # aliases of nested dicts are longer than the text
autodoc_preserve_defaults = True
# A method that only implements an interface is described there, or by Keras.
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 72
autosummary_generate = False
