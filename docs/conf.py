"""Sphinx configuration of the documentation site: the Markdown pages of this folder, the board made
from ``results/``, and the history of them and of what asv measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sphinx.util.logging import getLogger

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

project = "equivbench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "signature"
napoleon_google_docstring = False
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "equivbench"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 3


def _export_board(app: Sphinx, error: Exception | None) -> None:
    """Put the board of the shipped records beside the pages, as ``board-of-results.html``."""
    if error is None and app.builder.format == "html":
        from equivbench.cli.stored import export

        export(
            format="html",
            results=ROOT / "results",
            out=Path(app.outdir) / "board-of-results.html",
        )


def _publish_history(app: Sphinx, error: Exception | None) -> None:
    """Put the history beside the pages, as ``history/index.html``."""
    if error is None and app.builder.format == "html":
        from history_page import publish_history

        found = publish_history(ROOT, Path(app.outdir) / "history")
        getLogger("equivbench").info(
            "history: %d values of records; %d left out, of commits that are not in it",
            found.drawn,
            found.left_out,
        )


def setup(app: Sphinx) -> None:
    """Have the board and the history made after the pages."""
    app.connect("build-finished", _export_board)
    app.connect("build-finished", _publish_history)
