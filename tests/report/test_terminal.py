"""A table on a terminal of any width: no name is broken, no word lost, every line fits that can."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from equivbench.gap.intervals import Quantity
from equivbench.report.render import row_texts, to_plain
from equivbench.report.table import Column, Table
from equivbench.report.terminal import NARROWEST, fitted, to_terminal

NAMES = st.text("abcdefgh/-_.0123456789", min_size=1, max_size=60)
SENTENCES = st.lists(st.text("abcdefgh", min_size=1, max_size=12), max_size=30).map(" ".join)
COLUMNS = (
    Column("pair", key=True),
    Column("machine", key=True),
    Column("loss", "number", unit="eV"),
    Column("why", wraps=True),
)


def printed(table: Table, width: int) -> list[str]:
    page = io.StringIO()
    console = Console(file=page, width=width, highlight=False)
    console.print(to_terminal(table, console.width), soft_wrap=True)
    return page.getvalue().splitlines()


@given(
    rows=st.lists(
        st.tuples(NAMES, NAMES, st.floats(1e-6, 1e6), SENTENCES),
        min_size=1,
        max_size=3,
        unique_by=lambda row: row[:2],
    ),
    width=st.integers(20, 240),
)
def test_no_name_is_broken_and_no_word_lost_at_any_width(
    rows: list[tuple[str, str, float, str]], width: int
) -> None:
    table = Table("", COLUMNS, rows)
    lines = printed(table, width)
    together = " ".join(lines).split()
    for texts in row_texts(table.shown()):
        for name in ("pair", "machine", "loss"):
            assert any(texts[name] in line for line in lines)
        for word in texts["why"].split():
            assert word in together
    # A line is longer than the terminal only for a word that is.
    longest = max(len(word) for word in [*together, "x" * NARROWEST]) + 2 + len("loss [eV]")
    assert all(len(line.rstrip()) <= max(width, longest) for line in lines)


def test_what_fits_stands_in_columns_and_what_does_not_in_a_block_a_row() -> None:
    rows = [("task/one", "cpu-2t", 0.5, ""), ("task/two", "cpu-2t", 1.5, "")]
    table = Table("", COLUMNS[:3], [row[:3] for row in rows])
    assert [line.rstrip() for line in printed(table, 80)] == to_plain(table).splitlines()
    assert [line.rstrip() for line in printed(table, 20)] == [
        "pair       task/one",
        "machine    cpu-2t",
        "loss [eV]  0.500",
        "",
        "pair       task/two",
        "machine    cpu-2t",
        "loss [eV]  1.50",
    ]


SPARE = (
    Column("pair", key=True),
    Column("loss", "number"),
    Column("first", spare=True),
    Column("second", spare=True),
)


@given(width=st.integers(1, 60))
def test_spare_columns_are_left_out_from_the_right_until_the_others_fit(width: int) -> None:
    table = Table("", SPARE, [("task/one", 0.5, "a", "bb")], notes=["below"])
    found = fitted(table, width)
    names = [column.name for column in found.columns]
    widths = {"pair": 8, "loss": 7, "first": 7, "second": 8}  # with the blanks before them
    best = next(
        (n for n in (4, 3, 2) if sum(list(widths.values())[:n]) <= width),
        4,  # too narrow for any: a block a row, with all of them
    )
    assert names == list(widths)[:best]
    left_out = list(widths)[best:]
    said = [f"not shown for want of width: {', '.join(left_out)}"] if left_out else []
    assert found.notes == [*said, "below"]


def test_sentences_are_wrapped_before_columns_are_given_up() -> None:
    why = "one word after another until the line is longer than this terminal is wide"
    lines = printed(Table("", COLUMNS, [("task/one", "cpu-2t", 0.5, why)]), 66)
    assert lines[0].split() == ["pair", "machine", "loss", "[eV]", "why"]
    assert len(lines) == 4
    assert max(len(line.rstrip()) for line in lines) <= 66


def test_a_quantity_keeps_its_interval_beside_it() -> None:
    table = Table("", (Column("s*", "number"),), [(Quantity(0.5, 0.4, 0.6),)])
    assert printed(table, 10) == ["s*  0.500 (0.400 to 0.600)"]


def test_an_empty_table_is_its_heading() -> None:
    assert [line.rstrip() for line in printed(Table("", COLUMNS[:2], []), 40)] == ["pair  machine"]
