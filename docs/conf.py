"""Sphinx configuration of the documentation site: the Markdown pages of this folder, the board made
from ``results/``, and asv's history where there is one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

NO_HISTORY = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>equivbench: no history here</title></head>
<body><p>This site was built where asv had measured nothing. After <code>asv run</code> the history
of every benchmark stands here.</p></body></html>
"""

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


def publish_history(project: Path, out: Path) -> bool:
    """Put the pages that asv makes of its results in ``project`` into the folder ``out``; where it
    has none, one page that says so. Returns whether there was a history.

    Raises ``subprocess.CalledProcessError`` where asv fails.
    """
    settings = json.loads((project / "asv.conf.json").read_text(encoding="utf-8"))
    measured = [
        file
        for file in (project / settings["results_dir"]).glob("*/*.json")
        if file.name != "machine.json"
    ]
    if measured:
        # asv empties the folder first; its repository is this one, so there is nothing to pull.
        command = ["-m", "asv", "publish", "--no-pull", "--html-dir", str(out.resolve())]
        subprocess.run([sys.executable, *command], cwd=project, check=True)
    else:
        out.mkdir(parents=True, exist_ok=True)
        (out / "index.html").write_text(NO_HISTORY, encoding="utf-8")
    return bool(measured)


def _publish_history(app: Sphinx, error: Exception | None) -> None:
    """Put the history beside the pages, as ``history/index.html``."""
    if error is None and app.builder.format == "html":
        publish_history(Path(app.srcdir).parent, Path(app.outdir) / "history")


def setup(app: Sphinx) -> None:
    """Have the board and the history made after the pages."""
    app.connect("build-finished", _export_board)
    app.connect("build-finished", _publish_history)
