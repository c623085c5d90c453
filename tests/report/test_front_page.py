"""Every number of the first pages and of the board is that of the records that the project
ships."""

from pathlib import Path

import pytest
from blocks import replaced
from front_page import FIGURE, PAGES, with_numbers
from measurements_page import PAGE as MEASUREMENTS
from measurements_page import with_tables

from equivbench.records.store import load_results
from equivbench.registry import board_units
from equivbench.report.publication import publish
from equivbench.report.sections import to_markdown_page

README = PAGES[0]
RESULTS = README.parent / "results"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_numbers_of_the_first_pages_are_those_of_the_records(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert page == with_numbers(page, load_results(RESULTS)), "python tools/front_page.py"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_the_tables_of_what_was_measured_are_those_of_the_records() -> None:
    page = MEASUREMENTS.read_text(encoding="utf-8")
    assert page == with_tables(page, RESULTS), "python tools/measurements_page.py"


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the records are no part of a source archive")
def test_the_board_beside_the_records_is_theirs() -> None:
    made = to_markdown_page(publish(RESULTS, units=board_units()))
    assert (RESULTS / "board.md").read_text(encoding="utf-8") == made, (
        "equivbench leaderboard export --results results --format md --out results/board.md"
    )


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) < 900


def test_its_figure_is_there() -> None:
    assert FIGURE.stat().st_size > 10_000


@pytest.mark.parametrize(
    "page", ["none", "<!-- a -->\nopen\n", "<!-- a -->\n<!-- end of a -->\n<!-- a -->\n"]
)
def test_a_page_without_just_one_such_block_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="one block between <!-- a -->"):
        replaced(page, "a", "new\n")
