"""The notebooks of ``examples/`` run, and the outputs that stand in them are what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("pandas")

import nbformat
import notebooks

RESULTS = Path(__file__).parents[1] / "results"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
@pytest.mark.parametrize("path", notebooks.notebooks(), ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_outputs_are_true(path: Path) -> None:
    found = notebooks.differences(nbformat.read(path, 4), notebooks.executed(path))
    assert found == [], "python tools/notebooks.py writes the outputs anew"


def test_another_number_or_word_is_seen() -> None:
    def one(text: str) -> nbformat.NotebookNode:
        output = nbformat.v4.new_output("stream", text=text)
        return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])

    stored = one("share 0.123, floor 1.2e-14")
    assert notebooks.differences(stored, one("share 0.124, floor 3.4e-14")) == []
    assert len(notebooks.differences(stored, one("share 0.140, floor 1.2e-14"))) == 1
    assert len(notebooks.differences(stored, one("part 0.123, floor 1.2e-14"))) == 1
