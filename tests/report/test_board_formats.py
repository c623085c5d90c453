"""Every format of the board holds the same numbers, names and ranks; hostile names stay text."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
import read_back
from factories import make_record, make_rungs
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.records.schema import RunRecord
from equivbench.report.board import Board, build_boards
from equivbench.report.formats import (
    ALL_FORMATS,
    DOCUMENT,
    FORMATS,
    TABULARS,
    check_format,
    remarks,
)
from equivbench.report.formats import COLUMNS as BOARD_COLUMNS
from equivbench.report.formats import SETTING as SETTING_COLUMNS
from equivbench.report.html.page import to_html
from equivbench.report.publication import make_publication
from equivbench.report.render import csv_text, latex_text, markdown_text
from equivbench.report.sections import to_markdown_page
from equivbench.report.text import number_text, printable
from equivbench.specs import CONTESTANTS

Rows = list[dict[str, Any]]
COLUMNS = tuple(column.name for column in BOARD_COLUMNS)
NUMBERS = {column.name for column in BOARD_COLUMNS if column.kind == "number"}
SETTING = tuple(column.name for column in SETTING_COLUMNS)


def number(cell: str, null: str) -> float | None:
    return None if cell == null else float(cell)


def from_json(text: str) -> Rows:
    return [
        {name: row[name] for name in COLUMNS} for board in json.loads(text) for row in board["rows"]
    ]


def from_csv(text: str) -> Rows:
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    return [
        {
            name: number(row[name], "") if name in NUMBERS else read_back.from_csv(row[name])
            for name in COLUMNS
        }
        for row in rows
    ]


def from_markdown(text: str) -> Rows:
    rows, on_board = [], False
    for line in text.splitlines():
        # Other tables stand between the boards.
        on_board = line.startswith("|") and (on_board or line.startswith("| rank"))
        if on_board and not line.startswith(("| rank", "| ---")):
            cells = re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]
            assert len(cells) == len(COLUMNS), line
            named = zip(COLUMNS, (cell.strip() for cell in cells), strict=True)
            rows.append(
                {
                    name: number(cell, "n/a") if name in NUMBERS else read_back.from_markdown(cell)
                    for name, cell in named
                }
            )
    return rows


def from_latex(text: str) -> Rows:
    rows: Rows = []
    for table in text.split("\\begin{table}")[1:]:
        halves = []
        for columns, tabular in zip(TABULARS, table.split("\\begin{tabular}")[1:], strict=True):
            body = tabular.partition("\\midrule\n")[2].partition("\n\\bottomrule")[0].splitlines()
            cells = [
                [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix("\\\\"))]
                for line in body
            ]
            halves.append(
                [
                    {
                        name: (
                            read_back.number_from_latex if name in NUMBERS else read_back.from_latex
                        )(cell)
                        for name, cell in zip(columns, row, strict=True)
                    }
                    for row in cells
                ]
            )
        rows += [
            {name: (first | second)[name] for name in COLUMNS}
            for first, second in zip(*halves, strict=True)
        ]
    return rows


class _Page(HTMLParser):
    """The text of what carries ``data-field``, row by row."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[dict[str, str]] = []
        self.field: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag == "tbody" and named.get("class") == "row":
            self.rows.append({})
        self.field = named.get("data-field")
        if self.field is not None:
            self.rows[-1][self.field] = ""

    def handle_endtag(self, tag: str) -> None:
        self.field = None

    def handle_data(self, data: str) -> None:
        if self.field is not None:
            self.rows[-1][self.field] += data


def from_html(text: str) -> Rows:
    page = _Page()
    page.feed(text)
    # The page sets thousands apart by commas, for readers.
    plain = [
        {name: text.replace(",", "") if name in NUMBERS else text for name, text in row.items()}
        for row in page.rows
    ]
    return [
        {name: number(row[name], "n/a") if name in NUMBERS else row[name] for name in COLUMNS}
        for row in plain
    ]


PARSERS = {"json": from_json, "csv": from_csv, "latex": from_latex}
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
def hostile(draw: st.DrawFn) -> list[RunRecord]:
    records = [
        make_record(
            arm=draw(names | st.sampled_from(CONTESTANTS)),
            pair=draw(names),
            seed=seed,
            rungs=make_rungs(
                dict.fromkeys([10, 1000], draw(totals)).__getitem__, [10, 1000], 0.1, 32
            ),
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
    return records


def cells(built: Sequence[Board]) -> Rows:
    return [{name: getattr(row, name) for name in COLUMNS} for board in built for row in board.rows]


def for_readers(rows: Rows) -> Rows:
    """``rows`` with every number as a reader meets it: with three significant digits."""
    return [
        {
            name: float(number_text(value)) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in rows
    ]


@given(records=hostile())
def test_formats_hold_the_same_numbers_names_and_ranks(records: list[RunRecord]) -> None:
    built = build_boards(records)
    for name, parse in PARSERS.items():
        shown = for_readers(cells(built)) if name == "latex" else cells(built)
        assert parse(FORMATS[name](built)) == shown, name


@settings(max_examples=25)  # a page takes some ten milliseconds
@given(records=hostile())
def test_pages_hold_the_same_numbers_names_and_ranks(records: list[RunRecord]) -> None:
    publication, shown = make_publication(records), for_readers(cells(build_boards(records)))
    assert from_html(to_html(publication)) == shown
    assert from_markdown(to_markdown_page(publication)) == shown


@given(records=hostile())
def test_settings_are_the_same_too(records: list[RunRecord]) -> None:
    built = build_boards(records)
    in_json = [
        board["setting"] for board in json.loads(FORMATS["json"](built)) for _ in board["rows"]
    ]
    in_csv = [
        {name: read_back.from_csv(row[name]) for name in SETTING}
        for row in csv.DictReader(io.StringIO(FORMATS["csv"](built), newline=""))
    ]
    assert [{name: str(value) for name, value in setting.items()} for setting in in_json] == in_csv


@given(text=st.text())
def test_no_cell_of_a_sheet_is_a_formula(text: str) -> None:
    cell = csv_text(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert read_back.from_csv(cell) == printable(text)


@given(text=st.text())
def test_markdown_cell_stays_one_cell_of_literal_text(text: str) -> None:
    cell = markdown_text(text)
    assert "\n" not in cell
    assert not re.search(r"(?<!\\)(?:\\\\)*[|<>\[\]`*]", cell)
    assert read_back.from_markdown(cell) == printable(text).strip()


@given(text=st.text())
def test_printable_text_has_no_control_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_formats_are_those_of_the_contract() -> None:
    assert set(ALL_FORMATS) == {"md", "csv", "json", "html", "latex"} > set(FORMATS)
    assert tuple(check_format(name) for name in ALL_FORMATS) == ALL_FORMATS
    with pytest.raises(UsageError, match="unknown format"):
        check_format("xml")


def test_where_rows_come_from_stands_behind_the_numbers_of_a_sheet() -> None:
    header = FORMATS["csv"](build_boards([make_record()])).splitlines()[0].split(",")
    assert header[: len(SETTING) + 1 + len(COLUMNS)] == [*SETTING, "unit", *COLUMNS]
    assert header[-9:] == [
        "beside",
        "unfinished",
        "run_ids",
        "commands",
        "commits",
        "first",
        "last",
        "device",
        "packages",
    ]


COMMAND = "equivbench run toy/pair --seeds 0,1 | tee `x`"
FAILED = "out of memory & <b>more</b>"


@pytest.mark.parametrize(
    ("name", "escape"),
    [("md", markdown_text), ("latex", latex_text), ("json", str), ("csv", str)],
    ids=["md", "latex", "json", "csv"],
)
def test_every_format_says_which_command_and_commit_a_row_comes_from(
    name: str, escape: Callable[[str], str]
) -> None:
    dirty = {"commit": "abcdef0123456789", "dirty": True}
    good = make_record(command=COMMAND, git=dirty)
    lost = make_record(
        command=COMMAND, git=dirty, seed=1, status="failed", reason=FAILED, final=None
    )
    records = [good, lost]
    text = (
        to_markdown_page(make_publication(records))
        if name == DOCUMENT
        else FORMATS[name](build_boards(records))
    )
    assert escape(COMMAND) in text
    assert re.search(r"abcdef012345(6789)?-dirty", text)
    assert escape(f"seed 1 failed: {FAILED}") in text


def test_rows_of_one_command_share_a_remark() -> None:
    (board,) = build_boards(
        [
            make_record(arm=arm, seed=seed)
            for arm in ("augmented", "equivariant")
            for seed in range(3)
        ]
    )
    (line,) = remarks(board)
    assert line.count("equivbench run toy/pair") == 1
    assert "pair augmented" in line
    assert "pair equivariant" in line


def test_installed_package_has_no_commit() -> None:
    (board,) = build_boards([make_record(git={"commit": None, "dirty": None})])
    assert board.rows[0].provenance.commits == ()
    assert "an installed package" in remarks(board)[0]
