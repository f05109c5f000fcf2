"""Settings of the documentation, which `make docs` builds without the network."""

import os
import re
import warnings

# Examples draw to files, without a window.
os.environ["MPLBACKEND"] = "Agg"

from sphinx_gallery.sorting import ExplicitOrder

import sknas

project = "sknas"
author = "The sknas developers"
copyright = author
version = release = sknas.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings name the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the template of classes lists them

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(^|/)(?!plot_)[^/]*\.py$",
    "within_subsection_order": ExplicitOrder(
        [
            "plot_quick_start.py",
            "plot_pipeline_mixed_columns.py",
            "plot_cv_results.py",
            "plot_grid_search_strategies.py",
            "plot_function_search.py",
            "plot_own_space.py",
            "plot_image_search.py",
            "plot_cell_search.py",
            "plot_table_by_gradient.py",
            "plot_textbook_space.py",
            "*",
        ]
    ),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "plot_gallery": True,
    "show_signature": False,
    "write_computation_times": False,
}
# A warning in an example fails the build, since readers would get it, too.
warnings.simplefilter("error", UserWarning)

html_theme = "pydata_sphinx_theme"
html_title = f"sknas {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def unlink(app, what, name, obj, options, lines):
    """Replace links to pages of scikit-learn by their text, in inherited docstrings."""
    for index, line in enumerate(lines):
        lines[index] = re.sub(r":ref:`([^`<]+?)\s*<[^`]+>`", r"\1", line)


def setup(app):
    app.connect("autodoc-process-docstring", unlink)
