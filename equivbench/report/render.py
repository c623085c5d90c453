"""A table in each format: plain text, Markdown, CSV, JSON and LaTeX; on a terminal it is
:mod:`equivbench.report.terminal`'s.

Each renderer escapes what a record or a plug-in could put into a cell: control characters
everywhere, and what is active in the format (Markdown, formulas of spreadsheets, LaTeX, HTML).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from equivbench.report.table import Amount, Cell, Column, Missing, Table
from equivbench.report.text import WRITERS, number_text, printable, quantity_text, seconds_text

_MARKDOWN_ACTIVE = re.compile(r"([\\`*_\[\]<>|~&$#!])")
_FORMULA_STARTS = ("=", "+", "-", "@", "'")
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    '"': r"\char34{}",
    # A bracket would be read as an option of what stands before it.
    "[": "{[}",
    "]": "{]}",
}
_NUMBER = re.compile(r"-?[0-9.]+(e[-+]?[0-9]+)?")
_LATEX_LIGATURE = re.compile(r"([-,])(?=\1)")
"""Two of them would make a dash or a quotation mark."""
_LATEX_EXOTIC = re.compile(
    "[^ -~\u00c0-\u00cf\u00d1-\u00d6\u00d9-\u00dd\u00df-\u00ef\u00f1-\u00f6\u00f9-\u00fd\u00ff]"
)
"""All but ASCII and the letters that every LaTeX since 2018 sets whatever the font encoding."""


def cell_text(cell: Cell, column: Column, missing: str = "-") -> str:
    """Write a cell for a reader, without escaping; ``missing`` stands for what was not measured."""
    match cell:
        case None:
            return missing
        case Missing():
            return cell.reason or missing
        case str():
            return cell
        case tuple():
            return "; ".join(cell)
        case bool():
            return "yes" if cell else "no"
        case int():
            return str(cell)
        case float():
            return WRITERS.get(column.kind, number_text)(cell, column.digits)
        case Amount():
            if cell.unit == "s":
                return seconds_text(cell.value, column.digits)
            unit = cell.unit if cell.unit != "1" else ""
            return f"{number_text(cell.value, column.digits)} {unit}".strip()
        case quantity:
            text = quantity_text(
                quantity, column.digits, kind=column.kind, interval=column.interval
            )
            return missing if text == "-" else text


def is_right_aligned(table: Table, place: int) -> bool:
    """Whether the column at ``place`` holds numbers alone, so that they stand below each other."""
    column = table.columns[place]
    numbers = (int, float, type(None))
    if column.kind == "text":
        cells = [row[place] for row in table.rows]
        return bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
    return not column.interval or all(isinstance(row[place], numbers) for row in table.rows)


def row_texts(table: Table, missing: str = "-") -> list[dict[str, str]]:
    """Each row as texts by the names of the columns."""
    return [
        {
            column.name: cell_text(cell, column, missing)
            for cell, column in zip(row, table.columns, strict=True)
        }
        for row in table.rows
    ]


def row_labels(table: Table, *named: str) -> list[str]:
    """What tells each row of ``table`` from the others, but for the columns ``named``, which stand
    beside it: ``torch kernels, small, 60s``."""
    shown = table.shown()
    keys = [column.name for column in shown.columns if column.key and column.name not in named]
    return [
        ", ".join(
            f"{row[key]} kernels" if key == "kernels" else row[key] for key in keys if row[key]
        )
        for row in row_texts(shown, "")
    ]


def to_plain(table: Table) -> str:
    """The rows as lines with aligned columns, each row one line however long: for pipes and
    files."""
    table = table.shown()
    lines = [[column.title for column in table.columns]]
    lines += [list(map(printable, row.values())) for row in row_texts(table)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    sides = [">" if is_right_aligned(table, place) else "<" for place in range(len(widths))]
    return "".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def markdown_text(text: str) -> str:
    """``text`` as literal text in Markdown, safe in a cell of a table."""
    return _MARKDOWN_ACTIVE.sub(r"\\\1", printable(text)).strip()


def to_markdown(table: Table) -> str:
    """A heading, the caption, the rows, and the notes as a list."""
    table = table.shown()
    places = range(len(table.columns))
    rows = [
        [column.title for column in table.columns],
        *(row.values() for row in row_texts(table, "n/a")),
    ]
    lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in rows]
    sides = ["---:" if is_right_aligned(table, place) else "---" for place in places]
    lines.insert(1, f"| {' | '.join(sides)} |")
    head = [f"### {markdown_text(table.title)}", ""] if table.title else []
    head += [markdown_text(table.caption), ""] if table.caption else []
    notes = ["", *(f"- {markdown_text(note)}" for note in table.notes)] if table.notes else []
    return "\n".join([*head, *lines, *notes]) + "\n"


def csv_text(text: str) -> str:
    """``text`` so that no spreadsheet reads it as a formula (behind a quote)."""
    clean = printable(text)
    # Spreadsheets skip leading blanks before they look for a formula.
    return f"'{clean}" if clean.lstrip().startswith(_FORMULA_STARTS) else clean


def to_csv(table: Table) -> str:
    """A line a row under the names of the columns; an empty cell was not measured.

    A column that holds quantities becomes four: the value, ``_low``, ``_high`` and ``_censored``.
    """
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    headings, rows = to_sheet(table)
    writer.writerow(headings)
    writer.writerows(map(_csv_value, row) for row in rows)
    return page.getvalue()


def to_sheet(table: Table) -> tuple[list[str], list[list[Any]]]:
    """The headings and the rows of a flat sheet of plain values, every column included; one that
    holds quantities becomes four, as in :func:`to_csv`."""
    objects = to_json(table)
    ends = ("value", "low", "high", "censored")
    wide = {name for row in objects for name, value in row.items() if isinstance(value, dict)}
    headings = [
        heading
        for column in table.columns
        for heading in (
            column.name,
            *(f"{column.name}_{end}" for end in ends[1:] if column.name in wide),
        )
    ]
    rows = []
    for row in objects:
        values: list[Any] = []
        for name, value in row.items():
            if name not in wide:
                values.append(value)
            else:
                parts = value if isinstance(value, dict) else {"value": value}
                values += [parts.get(end) for end in ends]
        rows.append(values)
    return headings, rows


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return csv_text("; ".join(value))
    # In full and bare: rounding is for readers.
    return str(value).removesuffix(".0") if isinstance(value, float) else csv_text(str(value))


def to_json(table: Table) -> list[dict[str, Any]]:
    """An object a row by the names of the columns: plain values in full precision, null for what
    was not measured; a quantity is {value, low, high, censored}."""
    return [
        {column.name: _builtin(cell) for cell, column in zip(row, table.columns, strict=True)}
        for row in table.rows
    ]


def _builtin(cell: Cell) -> Any:
    match cell:
        case Missing():
            return None
        case Amount():
            return cell.value
        case tuple():
            return list(cell)
        case None | str() | bool() | int() | float():
            return cell
        case quantity:
            return asdict(quantity)


def latex_text(text: str) -> str:
    """``text`` as literal text; a character that not every LaTeX can set as ``{U+1F600}``."""
    escaped = "".join(_LATEX.get(character, character) for character in printable(text))
    return _LATEX_EXOTIC.sub(
        lambda found: f"{{U+{ord(found[0]):X}}}", _LATEX_LIGATURE.sub(r"\1{}", escaped)
    ).strip()


def latex_cell(cell: Cell, column: Column) -> str:
    """A cell; a number in mathematics, ``$3.4721\\times10^{-14}$``."""
    text = cell_text(cell, column, "n/a")
    plain = isinstance(cell, (int, float)) and not isinstance(cell, bool)
    if not plain or not _NUMBER.fullmatch(text):  # a percentage, or a time with its unit
        return latex_text(text)
    mantissa, _, exponent = text.partition("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"


def to_latex_tabular(table: Table) -> str:
    """The rows as a ``tabular`` with the rules of ``booktabs``."""
    table = table.shown()
    places = range(len(table.columns))
    sides = "".join("r" if is_right_aligned(table, place) else "l" for place in places)
    rows = [map(latex_cell, row, table.columns) for row in table.rows]
    heading = (latex_text(column.title) for column in table.columns)
    lines = [" & ".join(row) + r" \\" for row in (heading, *rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def to_latex(table: Table, parts: Sequence[Sequence[str]] = ()) -> str:
    """A ``table`` with title and caption above the rows and the notes below.

    ``parts`` names the columns of each ``tabular`` where one for all of them would be too wide.
    """
    tables = [table.select(names) for names in parts] or [table]
    lines = [
        r"\begin{table}",
        rf"\caption{{{latex_text(f'{table.title}. {table.caption}'.strip())}}}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
    ]
    for part in tables:
        lines += [to_latex_tabular(part), r"\par\smallskip"]
    # Commands are long words: ragged, and with an empty line in front of each.
    lines += [r"\raggedright", *(rf"\par {latex_text(note)}" for note in table.notes)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"
