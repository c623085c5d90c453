"""A table on a terminal: columns where they fit, if need be without the spare ones, else a block a
row; and no name is ever broken.

What a reader may want to copy (a pair, a run, a machine key) stays on one line whatever the width;
only columns of sentences (``wraps``) are broken, between words.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from equivbench.report.render import is_right_aligned, row_texts
from equivbench.report.table import Table
from equivbench.report.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

GAP = 2
"""Blanks between two columns."""
NARROWEST = 30
"""Characters of a column of sentences below which it is no pleasure to read."""


def fitted(table: Table, width: int) -> Table:
    """``table`` as a reader sees it, without as many of its spare columns as it takes for the
    others to fit into ``width`` characters, and with a note that names those; with all of them
    where none is too many or leaving them out does not help."""
    whole = fitting = table.shown()
    left_out: list[str] = []
    while _widths(fitting, _texts(fitting), width) is None:
        spare = [column for column in fitting.columns if column.spare]
        if not spare:
            return whole
        left_out.insert(0, spare[-1].title)
        fitting = fitting.select(
            [column.name for column in fitting.columns if column is not spare[-1]]
        )
    if not left_out:
        return whole
    note = f"not shown for want of width: {', '.join(left_out)}"
    return replace(fitting, notes=[note, *fitting.notes])


def to_terminal(table: Table, width: int) -> RenderableType:
    """The rows for a terminal ``width`` characters wide.

    Print it with ``soft_wrap``: a name that is longer than the terminal is wide is then left to
    the terminal, which copies it whole.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    table = table.shown()
    rows = _texts(table)
    widths = _widths(table, rows, width)
    if widths is None:
        blocks = [_block(table, row, width) for row in rows]
        apart = [block if place == 0 else [Text(), *block] for place, block in enumerate(blocks)]
        return Text("\n").join(line for block in apart for line in block)
    drawn = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for place, column in enumerate(table.columns):
        side: Literal["left", "right"] = "right" if is_right_aligned(table, place) else "left"
        drawn.add_column(Text(column.title), justify=side, width=widths[place])
    for row in rows:
        cells = zip(row, widths, table.columns, strict=True)
        drawn.add_row(
            *(Text(_wrapped(cell, room) if each.wraps else cell) for cell, room, each in cells)
        )
    return drawn


def _texts(table: Table) -> list[list[str]]:
    return [list(map(printable, row.values())) for row in row_texts(table)]


def _widths(table: Table, rows: list[list[str]], width: int) -> list[int] | None:
    """The width of each column, those of sentences narrowed until all fit; None if they never
    do."""
    wanted = [
        max(map(len, cells))
        for cells in zip([column.title for column in table.columns], *rows, strict=True)
    ]
    over = sum(wanted) + GAP * (len(wanted) - 1) - width
    for place, column in enumerate(table.columns):
        if over > 0 and column.wraps:
            words = " ".join([column.title, *(row[place] for row in rows)]).split()
            least = max(NARROWEST, *map(len, words)) if words else NARROWEST
            narrowed = max(least, wanted[place] - over)
            if narrowed < wanted[place]:
                over -= wanted[place] - narrowed
                wanted[place] = narrowed
    return wanted if over <= 0 or not rows else None


def _block(table: Table, row: list[str], width: int) -> list[Text]:
    """A row as lines of a heading and its cell each, without those that are empty."""
    from rich.text import Text

    titles = [column.title for column in table.columns]
    indent = max(map(len, titles)) + GAP
    lines = []
    for title, cell, column in zip(titles, row, table.columns, strict=True):
        room = max(NARROWEST, width - indent)
        parts = _wrapped(cell, room).split("\n") if column.wraps else [cell]
        for heading, part in zip([title, *[""] * len(parts)], parts, strict=False):
            if cell:
                style = "bold" if column.key else ""
                lines.append(Text.assemble((f"{heading:{indent}}", "dim"), (part, style)))
    return lines


def _wrapped(text: str, width: int) -> str:
    """``text`` in lines of ``width``, broken between words alone."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
