"""A table for notebooks: as HTML, and as a data frame of pandas (the extra ``notebooks``)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, cast

from equivbench.environment import required
from equivbench.report.render import is_right_aligned, row_texts, to_sheet
from equivbench.report.table import Table
from equivbench.report.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_ROWS = 60
"""Rows of a table that a notebook shows; a data frame has them all."""


def to_html(table: Table) -> str:
    """Title, caption, rows and notes as a fragment of HTML without scripts or styles of its own."""
    shown = table.shown()
    sides = [
        "right" if is_right_aligned(shown, place) else "left" for place in range(len(shown.columns))
    ]
    heads = [
        _cell("th", column.title, side) for column, side in zip(shown.columns, sides, strict=True)
    ]
    rows = [
        [_cell("td", text, side) for text, side in zip(row.values(), sides, strict=True)]
        for row in row_texts(shown)[:MOST_ROWS]
    ]
    notes = [text for text in (table.caption, *table.notes) if text]
    if len(shown.rows) > MOST_ROWS:
        notes.insert(0, f"{len(shown.rows) - MOST_ROWS} further rows: to_dataframe() has them")
    lines = [f"<p><b>{_literal(table.title)}</b></p>"] if table.title else []
    lines += ["<table>", f"<thead><tr>{''.join(heads)}</tr></thead>", "<tbody>"]
    lines += [f"<tr>{''.join(row)}</tr>" for row in rows]
    lines += ["</tbody>", "</table>", *(f"<p>{_literal(note)}</p>" for note in notes)]
    return "\n".join(lines)


def _cell(tag: str, text: str, side: str) -> str:
    return f'<{tag} style="text-align: {side}">{_literal(text)}</{tag}>'


def _literal(text: str) -> str:
    return escape(printable(text))


def to_dataframe(table: Table) -> DataFrame:
    """All columns and rows; raises ``FailedError`` without pandas."""
    pandas = required("pandas", "a data frame is made", "notebooks")
    headings, rows = to_sheet(table)
    return cast("DataFrame", pandas.DataFrame(rows, columns=headings))
