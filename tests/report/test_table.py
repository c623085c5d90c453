"""The table: every format says the same, nothing in a cell acts, and no two rows look alike."""

import csv
import io
import json
import math
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.gap.intervals import Quantity
from equivbench.report.render import to_csv, to_json, to_latex, to_markdown, to_plain
from equivbench.report.table import (
    Amount,
    Cell,
    Column,
    IndistinguishableRowsWarning,
    Missing,
    Table,
)
from equivbench.report.text import (
    change_text,
    number_text,
    percent_text,
    quantity_text,
    seconds_text,
)

FINITE = st.floats(-1e300, 1e300)


@given(value=FINITE, digits=st.integers(1, 6))
def test_a_number_reads_back_to_its_digits(value: float, digits: int) -> None:
    text = number_text(value, digits)
    # The smallest floats have fewer digits than are asked for.
    assert math.isclose(float(text), value, rel_tol=0.501 * 10.0 ** (1 - digits), abs_tol=5e-324)
    assert not text.startswith((".", "-."))
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.5, "0.500"), (12.34, "12.3"), (1234.0, "1234"), (3e-10, "3.00e-10"), (7, "7")],
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (2e-9, "2.00 ns"), (1.5e-3, "1.50 ms"), (90.0, "90.0 s"), (150.0, "2.50 min")],
)
def test_times_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_percentages() -> None:
    assert percent_text(0.0456) == "4.56%"
    assert change_text(0.05, 2) == "+5.0%"


@pytest.mark.parametrize(
    ("quantity", "short", "long"),
    [
        (Quantity(), "-", "-"),
        (Quantity(0.5, 0.47, 0.53), "0.50 (0.47 to 0.53)", "0.50 (0.47 to 0.53)"),
        (Quantity(0.5, None, 0.53), "0.50 (0.53 or less)", "0.50 (0.53 or less)"),
        (Quantity(1.6, 1.6, None, "above"), "more than 1.6", "more than 1.6 (it never tied)"),
        (
            Quantity(1.0, 0.2, None, "above"),
            "more than 1.0 (surely 0.20 or more)",
            "more than 1.0 (it never tied)",
        ),
        (Quantity(0.3, None, 0.3, "below"), "less than 0.30", "less than 0.30 (it never tied)"),
        (Quantity(censored="above"), "infinite", "infinite"),
    ],
)
def test_quantities_in_a_cell_and_in_a_sentence(quantity: Quantity, short: str, long: str) -> None:
    assert quantity_text(quantity, 2) == short
    assert quantity_text(quantity, 2, why="it never tied") == long


HOSTILE = st.text() | st.sampled_from(
    ["=1+1", "| a |", "\\input{x}", "<b>&amp;</b>", "\x1b[31m", "a\nb", " @x", "`x`", "\u202e"]
)
CELLS = st.one_of(
    HOSTILE,
    st.none(),
    st.booleans(),
    st.integers(),
    FINITE,
    st.builds(Missing, HOSTILE),
    st.builds(Amount, FINITE, st.sampled_from(["s", "eV", ""])),
    st.builds(Quantity, FINITE, FINITE, FINITE),
)


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=4))
def test_every_format_has_every_row_and_one_line_for_it(rows: list[tuple[Cell, Cell]]) -> None:
    columns = (Column("left"), Column("right", kind="number"))
    table = Table("", columns, rows)
    plain = to_plain(table)
    assert plain.count("\n") == 1 + len(rows)
    assert plain.replace("\n", "").isprintable()
    lines = to_markdown(table).splitlines()
    assert len(lines) == 2 + len(rows)
    # Bars that are not escaped: three a line.
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3 for line in lines)
    sheet = list(csv.reader(io.StringIO(to_csv(table), newline="")))
    assert len(sheet) == 1 + len(rows)
    assert len({len(line) for line in sheet}) == 1
    for cell in (cell for line in sheet for cell in line):
        assert not cell.lstrip().startswith(("=", "+", "@"))
        assert not cell.lstrip().startswith("-") or math.isfinite(float(cell))
    assert len(json.loads(msgspec.json.encode(to_json(table)))) == len(rows)
    assert to_latex(table).count(r" \\") == 1 + len(rows)


def test_two_rows_that_look_alike_are_an_error_of_the_maker() -> None:
    columns = (Column("pair", key=True), Column("budget", key=True), Column("total"))
    Table("", columns, [("a", "60s", 1.0), ("a", "30s", 1.0)])
    with pytest.warns(IndistinguishableRowsWarning, match="rows 1 and 3"):
        Table("", columns, [("a", "60s", 1.0), ("b", "60s", 1.0), ("a", "60s", 2.0)])


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table("", (Column("a"), Column("b")), [("x",)])


@given(rows=st.lists(st.tuples(*[st.sampled_from("ab")] * 4), min_size=1, max_size=8, unique=True))
def test_what_tells_rows_apart_is_always_shown(rows: list[tuple[str, ...]]) -> None:
    columns = (
        Column("pair", key=True),
        Column("data", key=True, show="needed"),
        Column("group", key=True, show="needed"),
        Column("machine", key=True, show="differs"),
    )
    shown = Table("", columns, rows).shown()
    assert len({tuple(row) for row in shown.rows}) == len(rows)
    assert "pair" in [column.name for column in shown.columns]
    machines = {row[3] for row in rows}
    assert ("machine" in [column.name for column in shown.columns]) == (len(machines) > 1)


def test_a_column_in_which_no_row_has_anything_can_be_left_out() -> None:
    columns = (Column("a"), Column("note", show="filled"))
    assert "note" not in to_plain(Table("", columns, [("x", ""), ("y", None)]))
    assert "note" in to_plain(Table("", columns, [("x", ""), ("y", "!")]))
    assert to_json(Table("", columns, [("x", "")])) == [{"a": "x", "note": ""}]
