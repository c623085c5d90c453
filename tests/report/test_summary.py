"""What ``run`` ends with, the gap's table and its plain words."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from factories import make_run
from rich.console import Console

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RunRecord
from equivbench.report.arms import summary_tables
from equivbench.report.gaps import beyond_gaps, gap_table, headline, paragraphs, reading
from equivbench.report.render import cell_text, to_plain
from equivbench.report.table import Column, Table
from equivbench.report.terminal import fitted, to_terminal
from equivbench.report.text import quantity_text
from equivbench.request import RunRequest

STEPS = [10, 20, 50, 100, 200, 500, 1000]


def runs(equivariant: float, augmented: float, seeds: int = 6, **more: object) -> list[RunRecord]:
    """Both arms, losses 1% apart between seeds."""
    return [
        make_run(
            arm,
            lambda step, k=k, s=s: k * (1 + 0.01 * s) * step**-0.5,
            STEPS,
            tau=0.1,
            seed=s,
            run_id=f"{arm}-{s}",
            **more,
        )
        for arm, k in (("equivariant", equivariant), ("augmented", augmented))
        for s in range(seeds)
    ]


def only(records: list[RunRecord]) -> PairGap:
    (gap,) = efficiency_gap(records)
    return gap


def printed(records: list[RunRecord]) -> str:
    tables = [table.title + "\n" + to_plain(table) for table in summary_tables(records)]
    return "\n".join([*tables, *paragraphs(efficiency_gap(records))])


def first_row(table: Table) -> dict[str, str]:
    cells = zip(table.columns, table.rows[0], strict=True)
    return {column.name: cell_text(cell, column) for column, cell in cells}


def test_the_reading_names_the_arm_behind_and_how_much_faster_it_must_become() -> None:
    text = reading(only(runs(2.0, 4.0)))
    # The augmented arm needs four times the steps, which lie beyond its curve; the other could be
    # four times slower.
    assert "augmented arm is behind" in text
    assert "--extend" in text
    assert "equivariant arm could be 4.0x slower" in text
    assert "6 seeds, p < 0.001" in text


def test_runs_that_stand_in_no_gap_are_told_where_they_are_compared() -> None:
    both = runs(2.0, 4.0, seeds=1)
    request = RunRequest(pairs=("toy/pair",), arms=("frames",), budget="2min", out="my results")
    assert beyond_gaps(both, request) == []
    frames = make_run("frames", lambda step: step**-0.5, STEPS, tau=0.1)
    gap, beside = beyond_gaps([frames], request)
    assert "takes runs of both contestants, equivariant and augmented" in gap
    assert "`equivbench run toy/pair --budget 2min --out 'my results'` trains them in turn" in gap
    command = (
        "equivbench run toy/pair --arm augmented --arm frames --budget 2min --out 'my results'"
    )
    assert beside == (
        "toy/pair: whether frames learns more than the augmented arm shows where they take turns: "
        f"`{command}`"
    )
    command = "`equivbench leaderboard export --race --results 'my results'`"
    assert beyond_gaps([*both, frames], request) == [
        f"toy/pair: frames beside the other arms of the task, ranked by loss: {command}"
    ]
    (alone,) = beyond_gaps(both[:1], request)
    assert alone == gap


def test_the_reading_says_why_there_is_no_verdict() -> None:
    gap = only(runs(2.0, 4.0, seeds=2))
    assert reading(replace(gap, seeds_needed=None)) == "No verdict: 2 seeds; a verdict takes 3."
    assert "would need 12 seeds" in reading(replace(gap, seeds_needed=12))
    busy = replace(gap, n_seeds=6, seeds_needed=12, reason="the machine was busy")
    assert reading(busy) == "No verdict: the machine was busy."
    assert headline(gap) is not None


def test_the_reading_counts_the_seeds_that_finished() -> None:
    records = runs(4.0, 2.0, seeds=3)
    records[1] = make_run(
        "equivariant",
        lambda step: 1.0,
        STEPS,
        tau=0.1,
        seed=1,
        run_id="equivariant-1",
        status="diverged",
    )
    assert "No verdict: 2 of 3 seeds finished" in reading(only(records))
    assert first_row(gap_table(efficiency_gap(records)))["seeds"] == "2 of 3"


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(1.8, 1.5, 2.25), "1.80 (1.50 to 2.25)"),
        (Quantity(3.0, 2.0, None, "above"), "more than 3.00 (surely 2.00 or more)"),
        (Quantity(0.01, None, None, "below"), "less than 0.0100"),
        (Quantity(None, None, None, "above"), "infinite"),
        (Quantity(), "-"),
    ],
)
def test_quantities_show_bounds_as_bounds(quantity: Quantity, text: str) -> None:
    assert quantity_text(quantity) == text


def test_every_gap_has_a_full_row() -> None:
    row = first_row(gap_table(efficiency_gap(runs(2.0, 4.0))))
    assert row["behind"] == "augmented"
    assert row["s_star_steady"].startswith("more than 1")
    assert row["slowdown_margin"].startswith("4.00 ")


def test_the_summary_has_a_row_per_arm_with_its_figures() -> None:
    text = printed(runs(2.0, 4.0))
    for shown in (
        "toy/pair",
        "equivariant",
        "augmented",
        "320",
        "break-even speed-up",
        "sample efficiency",
    ):
        assert shown in text


def test_a_false_symmetry_and_unfinished_seeds_are_flagged() -> None:
    records = runs(
        2.0, 4.0, seeds=2, model={"symmetry_verified": False, "symmetry_reason": "it wobbles"}
    )
    records[0] = make_run(
        "equivariant", lambda step: 1.0, STEPS, tau=0.1, seed=0, status="interrupted", final=None
    )
    (table,) = summary_tables(records)
    row = first_row(table)
    assert "which its measurement refutes: it wobbles" in row["remarks"]
    assert "seed 0 interrupted" in row["remarks"]
    assert row["seeds"] == "1 of 2"


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    (table,) = summary_tables(runs(2.0, 4.0))
    assert table.title == "toy/pair"
    header, *rows = to_plain(table).splitlines()
    shown = "arm seeds loss explained share raw EMA samples/s compile"
    assert header.split() == shown.split()
    assert len(rows) == 2
    assert max(map(len, (header, *rows))) <= 80


def test_a_table_of_small_numbers_fits_it_without_the_spare_columns() -> None:
    records = runs(2.0e-5, 4.0e-5, share=1.23e-10)
    for record in records:
        record.final_raw.share = record.final_ema.share = 1.23e-10
    (table,) = summary_tables(records)
    assert max(map(len, to_plain(table).splitlines())) > 80
    narrow = fitted(table, 80)
    assert max(map(len, to_plain(narrow).splitlines())) <= 80
    assert {"loss", "explained", "share", "samples/s"} <= {each.name for each in narrow.columns}
    assert narrow.notes[0] == "not shown for want of width: compile"


def test_square_brackets_in_names_are_no_markup() -> None:
    records = runs(2.0, 4.0, seeds=1, pair="[red]pair[/]")
    assert "[red]pair[/]" in printed(records)
    page = io.StringIO()
    console = Console(file=page, width=400)
    console.print(to_terminal(Table("", (Column("pair"),), [("[red]pair[/]",)]), 400))
    assert "[red]pair[/]" in page.getvalue()
