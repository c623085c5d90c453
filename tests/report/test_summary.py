"""What ``run`` ends with, the gap's table and its plain words."""

from __future__ import annotations

import io

import pytest
from factories import make_run
from rich.console import Console

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RunRecord
from equivbench.report.gaps import COLUMNS, gap_rows, headline, reading, scaling_lines, show
from equivbench.report.summary import COLUMNS as SUMMARY_COLUMNS
from equivbench.report.summary import print_summary, summary_rows

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
    console = Console(file=io.StringIO(), width=400)
    print_summary(records, efficiency_gap(records), console)
    return console.file.getvalue()


def test_the_reading_names_the_arm_behind_and_how_much_faster_it_must_become() -> None:
    text = reading(only(runs(2.0, 4.0)))
    # The augmented arm needs four times the steps, which lie beyond its curve; the other could be
    # four times slower.
    assert "augmented arm is behind" in text
    assert "--extend" in text
    assert "equivariant arm could be 4x slower" in text
    assert "equivariant arm leads" in text


def test_the_reading_claims_nothing_with_few_seeds() -> None:
    text = reading(only(runs(2.0, 4.0, seeds=3)))
    assert "leads" not in text
    assert "3 seeds; a lead is claimed from 6 on" in text


def test_the_reading_says_when_nothing_is_decided() -> None:
    gap = only(runs(3.0, 3.0, seeds=1))
    assert "do not decide" in reading(gap)
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
    assert "2 of 3 seeds finished" in reading(only(records))
    assert "2 of 3" in gap_rows(efficiency_gap(records))[0]


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Quantity(1.8, 1.5, 2.25), "1.8 (1.5 to 2.25)"),
        (Quantity(3.0, 2.0, None, "above"), "> 3 (2 to ..)"),
        (Quantity(0.01, None, None, "below"), "< 0.01"),
        (Quantity(None, None, None, "above"), "> any"),
        (Quantity(), "-"),
    ],
)
def test_quantities_show_bounds_as_bounds(quantity: Quantity, text: str) -> None:
    assert show(quantity) == text


def test_every_gap_has_a_full_row() -> None:
    (row,) = gap_rows(efficiency_gap(runs(2.0, 4.0)))
    assert len(row) == len(COLUMNS)
    assert row[COLUMNS.index("behind")] == "augmented"
    assert row[COLUMNS.index("s* steady")].startswith("> 1")
    assert row[COLUMNS.index("leader's slack")].startswith("4 ")


def test_the_summary_has_a_row_per_arm_with_its_figures() -> None:
    text = printed(runs(2.0, 4.0))
    for shown in (
        "toy/pair",
        "equivariant",
        "augmented",
        "320",
        "1000",
        "break-even speed-up",
        "sample efficiency",
    ):
        assert shown in text


def test_a_false_symmetry_and_unfinished_seeds_are_flagged() -> None:
    records = runs(2.0, 4.0, seeds=2, model={"symmetry_verified": False})
    records[0] = make_run(
        "equivariant", lambda step: 1.0, STEPS, tau=0.1, seed=0, status="interrupted", final=None
    )
    first, *_ = summary_rows(records)["toy/pair"]
    row = dict(zip(SUMMARY_COLUMNS, first, strict=True))
    assert "NOT confirmed" in row[""]
    assert "seed 0 interrupted" in row[""]
    assert row["seeds"] == "1 of 2"


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_summary(runs(2.0, 4.0), [], console)
    title, header, *rows = console.file.getvalue().splitlines()
    assert title.strip() == "toy/pair"
    assert header.split() == [word for column in SUMMARY_COLUMNS for word in column.split()]
    assert len(rows) == 2


def test_square_brackets_in_names_are_no_markup() -> None:
    records = runs(2.0, 4.0, seeds=1, pair="[red]pair[/]")
    assert "[red]pair[/]" in printed(records)


def test_scaling_is_a_line_per_arm() -> None:
    records = []
    for limit in (20.0, 50.0, 100.0):
        steps = [step for step in STEPS if step * 0.1 <= limit]
        for arm in ("equivariant", "augmented"):
            records.append(
                make_run(
                    arm,
                    lambda step: 3.0 * step**-0.5,
                    steps,
                    tau=0.1,
                    limit=limit,
                    run_id=f"{arm}{limit}",
                )
            )
    lines = scaling_lines(efficiency_gap(records))
    assert len(lines) == 2
    assert "budget^-0.50" in lines[0]
