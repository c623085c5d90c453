"""No table has two rows that a reader cannot tell apart, whatever the runs behind them differ
in."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import combinations

import pytest
from factories import make_run
from hypothesis import given
from hypothesis import strategies as st

from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.frontier import frontiers
from equivbench.records.schema import RunRecord
from equivbench.report.arms import gather_sweeps, summary_tables, sweep_table
from equivbench.report.board import build_boards
from equivbench.report.formats import TABULARS, board_table, sheet
from equivbench.report.frontier import frontier_table
from equivbench.report.gaps import gap_table
from equivbench.report.html.page import labels
from equivbench.report.table import Table

Change = Callable[[RunRecord], None]


def _set(path: str, value: object) -> Change:
    """Sets ``a.b`` of a record."""

    def change(record: RunRecord) -> None:
        *parents, name = path.split(".")
        owner = record
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, value)

    return change


FACTS: dict[str, Change] = {
    "pair": _set("pair", "other"),
    "task": _set("task", "other"),
    "preset": _set("preset", "dev"),
    "budget": _set("budget.limit", 50.0),
    "variant": _set("variant", {"forces": "conservative"}),
    "fraction of the data": _set("variant", {"sweep": "data", "value": "0.25"}),
    "data": _set("dataset.name", "other"),
    "version of the data": _set("dataset.sha256", "1" * 64),
    "size of the data": _set("dataset.sizes", {"train": 7, "validation": 8, "test": 64}),
    "machine": _set("environment.machine_key", "other"),
    "kernels": _set("model.kernels", "fused"),
    "rules": _set("rules_version", 99),
}
"""Whatever two results of one arm may differ in."""


def results(facts: Sequence[str]) -> list[RunRecord]:
    """Both arms as declared, and once more for each of ``facts`` with that changed."""
    runs = [
        make_run(arm, lambda step, k=k: k * step**-0.5, [10, 100, 1000], tau=0.1)
        for arm, k in (("equivariant", 2.0), ("augmented", 4.0))
    ]
    changed = []
    for fact in facts:
        for run in runs:
            other = copy.deepcopy(run)
            FACTS[fact](other)
            changed.append(other)
    return runs + changed


def assert_told_apart(table: Table) -> None:
    """What a reader sees of the keys differs from row to row."""
    shown = table.shown()
    keys = [place for place, column in enumerate(shown.columns) if column.key]
    assert keys
    seen = [tuple(str(row[key]) for key in keys) for row in shown.rows]
    assert len(set(seen)) == len(seen)


def assert_all_told_apart(records: Sequence[RunRecord]) -> None:
    assert_told_apart(gap_table(efficiency_gap(records)))
    for table in summary_tables(records):
        assert_told_apart(table)
    boards = build_boards(records)
    assert_told_apart(sheet(boards))
    for board in boards:
        assert_told_apart(board_table(board))
        for names in TABULARS:
            assert_told_apart(board_table(board).select(names))
        rows = zip(board.rows, labels(board.rows), strict=True)
        names_in_legends = [(row.pair, row.arm, label) for row, label in rows]
        assert len(set(names_in_legends)) == len(names_in_legends)
    for sweep in gather_sweeps(records):
        assert_told_apart(sweep_table(sweep))


@pytest.mark.parametrize("fact", FACTS)
def test_rows_that_differ_in_one_fact_are_told_apart(fact: str) -> None:
    records = results([fact])
    assert len(efficiency_gap(records)) in (2, 3)
    assert_all_told_apart(records)


@given(facts=st.sampled_from(list(combinations(FACTS, 3))))
def test_rows_that_differ_in_several_facts_are_told_apart(facts: tuple[str, ...]) -> None:
    assert_all_told_apart(results(facts))


@pytest.mark.parametrize("fact", sorted(FACTS.keys() - {"budget", "fraction of the data"}))
def test_frontiers_are_told_apart(fact: str) -> None:
    """A budget is told by its rungs, which these runs have in common; sweeps over the data have no
    frontier."""
    found = frontiers(results([fact])).found
    assert len(found) in (2, 3)
    assert_told_apart(frontier_table(found))


def test_a_quarter_of_the_data_is_named_in_the_table_of_gaps() -> None:
    table = gap_table(efficiency_gap(results(["fraction of the data"]))).shown()
    place = [column.name for column in table.columns].index("variant")
    assert sorted(str(row[place]) for row in table.rows) == ["", "sweep of data at 0.25"]
