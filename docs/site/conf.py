"""The site: `make site` renders README, docs and the notebooks, as they lie in the repository, to docs/site/_build/html.

The source folder is the repository, so that links between README, docs and notebooks are those that GitHub follows. Notebooks
are not run: their stored outputs are shown. A link to a file of code goes to the repository if `GITHUB_REPOSITORY`
(owner/name; set in GitHub's workflows) says where that is; otherwise to a copy of the file.
"""

import os
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")

project = "minilumiere"
copyright = "the minilumiere authors; MIT licence"
extensions = ["myst_nb"]
root_doc = "README"
include_patterns = ["*.md", "data/*.md", "docs/*.md", "notebooks/*.ipynb", "tests/benchmarks/*.md"]
exclude_patterns = [".*", "runs", "docs/site", "student"]
highlight_language = "text"

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "minilumiere"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {"home_page_in_toc": True, "show_toc_level": 2, "navbar_persistent": []}  # one search field is enough
if REPOSITORY:
    html_theme_options |= {"repository_url": f"https://github.com/{REPOSITORY}", "use_repository_button": True}

CONTENTS = """

```{toctree}
:hidden:
:caption: The course
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Reference

docs/api
docs/map
docs/results
docs/experiments
docs/deviations
docs/teaching
data/README
tests/benchmarks/README
CONTRIBUTING
```
"""


def add_contents(app: Sphinx, name: str, source: list[str]) -> None:
    """The sidebar hangs on the README, which is also read where nobody knows what a toctree is."""
    if name == root_doc:
        source[0] += CONTENTS


def link_code(app: Sphinx, doctree: nodes.document) -> None:
    for link in list(doctree.findall(addnodes.download_reference)) if REPOSITORY else []:
        path = app.env.relfn2path(link["reftarget"], app.env.docname)[0]
        reference = nodes.reference(refuri=f"https://github.com/{REPOSITORY}/blob/main/{path}")
        reference += link.children
        link.replace_self(reference)


def copy_pictures(app: Sphinx, problem: Exception | None) -> None:
    """What `<img src=...>` shows, which Sphinx does not look into; and the front page under the name that servers look for."""
    if problem:
        return
    for path in [*ROOT.glob("docs/*.svg"), *ROOT.glob("docs/gallery/*"), *ROOT.glob("notebooks/pictures/*")]:
        target = Path(app.outdir) / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("doctree-read", link_code)
    app.connect("build-finished", copy_pictures)
