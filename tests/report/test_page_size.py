"""A page of many runs stays small, and says what it leaves out."""

from __future__ import annotations

import re

import pytest
from factories import make_run

from equivbench.records.schema import RunRecord
from equivbench.report.html.page import MOST_BYTES, MOST_ROWS, shared_out, to_html
from equivbench.report.publication import MOST_CURVES, Publication, make_publication

STEPS = [10, 30, 100, 300, 1000]


def publication(pairs: int, task: str = "toy") -> Publication:
    """So many pairs of two arms, in one setting."""
    records: list[RunRecord] = [
        make_run(
            arm,
            lambda step, k=level * (1 + number / 1000): k * step**-0.5,
            STEPS,
            tau=0.1,
            pair=f"pair-{number:04d}",
            task=task,
        )
        for number in range(pairs)
        for arm, level in (("equivariant", 2.0), ("augmented", 3.0))
    ]
    return make_publication(records)


def rows(text: str) -> int:
    return text.count('data-column="total_low"') - text.count('<table id="b')


def gaps(text: str) -> int:
    return text.count('<tbody class="row gap"')


def test_a_page_of_few_runs_has_everything() -> None:
    text = to_html(publication(3))
    assert (rows(text), gaps(text)) == (6, 3)
    assert text.count('class="series') > 0
    assert "left out of a page" not in text
    assert "would be too large" not in text


@pytest.mark.parametrize("most", [30_000_000, 250_000, 200_000, 120_000, 100_000])
def test_what_makes_a_page_too_large_is_left_out_and_named(most: int) -> None:
    found = publication(12)
    text = to_html(found, most)
    assert len(text.encode()) <= most
    drawn = 'class="series' in text
    assert drawn != ('id="curves-left-out"' in text)
    shown = re.findall(
        r'id="rows-left-out">A page of all 24 rows would be too large: it has (\d+)', text
    )
    assert [str(rows(text))] * (rows(text) < 24) == shown
    assert ('id="gaps-left-out"' in text) == (gaps(text) < 12)
    assert "<dd>12</dd>" in text, "how many gaps there are is said all the same"


def test_smaller_limits_leave_less() -> None:
    found = publication(12)
    sizes = [len(to_html(found, most)) for most in (30_000_000, 250_000, 150_000, 100_000)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.slow
def test_a_page_of_a_thousand_rows_is_below_its_limit() -> None:
    found = publication(500)
    assert len(found.boards[0].rows) == 1000 > MOST_CURVES
    assert found.curves == ()
    text = to_html(found)
    assert len(text.encode()) <= MOST_BYTES
    assert 100 < rows(text) <= MOST_ROWS
    assert 'id="curves-left-out"' in text


def test_boards_share_the_rows_of_a_page() -> None:
    assert shared_out([3, 2], 5) == [3, 2]
    assert shared_out([100, 1, 5], 16) == [8, 1, 5]
    assert shared_out([7, 7, 7], 2) == [1, 1, 0]
    assert shared_out([0, 4], 4) == [0, 4]
