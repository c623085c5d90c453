"""Sphinx configuration of the documentation site: the Markdown pages of this folder, and the board
made from ``results/``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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
            results=Path(app.srcdir).parent / "results",
            out=Path(app.outdir) / "board-of-results.html",
        )


def setup(app: Sphinx) -> None:
    """Have the board made after the pages."""
    app.connect("build-finished", _export_board)
