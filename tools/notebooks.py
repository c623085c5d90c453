"""Executes the notebooks of ``examples/`` and writes what comes out into them.

``python tools/notebooks.py`` after a change of the code, the records or the cells. With ``--check``
nothing is written, and it says which outputs are no longer what comes out (the tests do so too).
"""

from __future__ import annotations

import argparse
import html
import math
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "examples"
TOLERANCE = 0.1
"""Relative: a network trained on another processor comes out a little different."""
ROUNDING = 1e-9
"""Numbers below are rounding, and differ from processor to processor."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def notebooks() -> list[Path]:
    """The notebooks, by name."""
    return sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path) -> Any:
    """The notebook at ``path`` with the outputs of a fresh kernel in its folder; raises
    ``CellExecutionError`` if a cell does."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata = {}
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def outputs(notebook: Any) -> list[str]:
    """The outputs of a notebook as texts, one a cell: what is printed and shown, tables without
    their markup, and of a picture only that there is one."""
    return [
        " ".join(map(_text, cell.get("outputs", ())))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return "" if output.name == "stderr" else str(output.text)
    data = output.get("data", {})
    if "image/png" in data:
        return "[picture]"
    if "text/html" in data:
        plain = re.sub(r"<style.*?</style>|<[^>]*>", " ", data["text/html"], flags=re.DOTALL)
        return html.unescape(plain)
    return str(data.get("text/plain", ""))


def differences(stored: Any, new: Any) -> list[str]:
    """What is another in ``new`` than in ``stored``: a sentence for each cell."""
    found = []
    for number, (was, now) in enumerate(zip(outputs(stored), outputs(new), strict=True), 1):
        if not _agree(was, now):
            found.append(
                f"output {number} was {' '.join(was.split())!r}, is {' '.join(now.split())!r}"
            )
    return found


def _agree(was: str, now: str) -> bool:
    """Whether two texts have the same words, and numbers that are close."""
    if _NUMBER.sub("#", was).split() != _NUMBER.sub("#", now).split():
        return False
    numbers = [[float(each) for each in _NUMBER.findall(text)] for text in (was, now)]
    return all(
        math.isclose(first, second, rel_tol=TOLERANCE) or max(abs(first), abs(second)) < ROUNDING
        for first, second in zip(*numbers, strict=True)
    )


def main() -> int:
    """Execute all; 1 with ``--check`` where an output differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    check = parser.parse_args().check
    found = []
    for path in notebooks():
        new = executed(path)
        found += [f"{path.name}: {text}" for text in differences(nbformat.read(path, 4), new)]
        if not check:
            nbformat.write(new, path)
    if found:
        print("\n".join(found))
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
