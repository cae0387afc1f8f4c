"""Configuration of the guide. ``make docs`` builds it; nothing is fetched, and warnings are errors."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import fastsched

project = "fastsched"
author = "the fastsched authors"
version = release = fastsched.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
nitpicky = True
nitpick_ignore = [
    ("py:class", "fastsched.schedulers.ranks._MetricScheduler")
]  # a base without methods of its own to read about

html_theme = "furo"
html_title = f"fastsched {version}"
html_math_renderer = "mathml"  # see setup()
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["guide.css"]

copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings have them
napoleon_use_rtype = False

plot_formats = ["svg"]
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = True

TORCH_DOCS = "https://docs.pytorch.org/docs/stable"


def link_outside(app, env, node, contnode):
    """Schedulers of torch's link to torch's documentation; all else of torch's stays plain text."""
    target = node["reftarget"]
    if not target.startswith("torch."):
        return None
    if not target.startswith("torch.optim.lr_scheduler."):
        return contnode
    reference = nodes.reference("", "", internal=False, refuri=f"{TORCH_DOCS}/generated/{target}.html")
    reference += contnode
    return reference


def inline_mathml(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def display_mathml(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Formulas as MathML, converted during the build: pages need neither a network nor scripts."""
    app.add_html_math_renderer("mathml", (inline_mathml, None), (display_mathml, None))
    app.connect("missing-reference", link_outside)
