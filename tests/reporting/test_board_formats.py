"""Every format of the board holds the same numbers, names and ranks; hostile names stay text."""

import csv
import io
import json
import re
from typing import Any

import pytest
from factories import make_record, make_trace
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.reporting.board import Board, build_boards
from equivbench.reporting.formats import COLUMNS, FORMATS, NUMBERS, PLANNED, SETTING, render
from equivbench.reporting.text import csv_cell, from_csv_cell, from_markdown_cell, markdown_cell, printable

Rows = list[dict[str, Any]]


def number(cell: str, null: str) -> float | None:
    return None if cell == null else float(cell)


def from_json(text: str) -> Rows:
    return [{name: row[name] for name in COLUMNS} for board in json.loads(text) for row in board["rows"]]


def from_csv(text: str) -> Rows:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    return [{name: number(row[name], "") if name in NUMBERS else from_csv_cell(row[name]) for name in COLUMNS} for row in rows]


def from_markdown(text: str) -> Rows:
    rows = []
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith(("| rank", "| ---")):
            cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
            assert len(cells) == len(COLUMNS), line
            named = zip(COLUMNS, (cell.strip() for cell in cells), strict=True)
            rows.append({name: number(cell, "n/a") if name in NUMBERS else from_markdown_cell(cell) for name, cell in named})
    return rows


PARSERS = {"json": from_json, "csv": from_csv, "md": from_markdown}
names = st.text(min_size=1, max_size=12) | st.sampled_from(
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2",
        "@SUM(A1)",
        "'quoted",
        "a|b",
        "a\\|b",
        "\\",
        "a\nb",
        "<b>",
        "[x](javascript:y)",
        "\t=1",
        "n/a",
        "",
    ]
)
totals = st.floats(0, 1e300) | st.sampled_from([0.0, 1e-300, 123456.789])


@st.composite
def boards(draw: st.DrawFn) -> list[Board]:
    records = [
        make_record(
            arm=draw(names),
            pair=draw(names),
            seed=seed,
            trace=make_trace(dict.fromkeys([10, 1000], draw(totals)).__getitem__, [10, 1000], 0.1, 32),
            model={"name": draw(names), "symmetry_verified": draw(st.booleans())},
            clock={"compile": draw(st.floats(0, 1e4))},
            environment={"machine_key": draw(names)},
            variant={"forces": draw(names)},
        )
        for seed in range(draw(st.integers(1, 4)))
    ]
    for record in records:
        assert record.final is not None
        record.final.explained = draw(st.none() | st.floats(-10, 1))
    return build_boards(records)


@given(built=boards())
def test_formats_hold_the_same_numbers_names_and_ranks(built: list[Board]) -> None:
    expected = [{name: getattr(row, name) for name in COLUMNS} for board in built for row in board.rows]
    for name, parse in PARSERS.items():
        assert parse(render(built, name)) == expected, name


@given(built=boards())
def test_settings_are_the_same_too(built: list[Board]) -> None:
    in_json = [board["setting"] for board in json.loads(render(built, "json")) for _ in board["rows"]]
    in_csv = [
        {name: from_csv_cell(row[name]) for name in SETTING}
        for row in csv.DictReader(io.StringIO(render(built, "csv"), newline=""))
    ]
    assert [{name: str(value) for name, value in setting.items()} for setting in in_json] == in_csv


@given(text=st.text())
def test_no_cell_of_a_sheet_is_a_formula(text: str) -> None:
    cell = csv_cell(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert from_csv_cell(cell) == printable(text)


@given(text=st.text())
def test_markdown_cell_stays_one_cell_of_literal_text(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>\[\]`*]", cell)
    assert from_markdown_cell(cell) == printable(text).strip()


@given(text=st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_formats_are_those_of_the_contract() -> None:
    assert set(FORMATS) | set(PLANNED) == {"md", "csv", "json", "html", "latex"}
    with pytest.raises(UsageError, match="planned"):
        render([], "html")
    with pytest.raises(UsageError, match="unknown format"):
        render([], "xml")
