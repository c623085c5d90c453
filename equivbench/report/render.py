"""A table in each format: plain text, a terminal, Markdown, CSV, JSON, LaTeX and HTML.

Each renderer escapes what a record or a plug-in could put into a cell: control characters
everywhere, and what is active in the format (Markdown, formulas of spreadsheets, LaTeX, HTML).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from equivbench.report.table import Amount, Cell, Column, Missing, Table
from equivbench.report.text import WRITERS, number_text, printable, quantity_text, seconds_text

if TYPE_CHECKING:
    from rich.table import Table as RichTable

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
            return WRITERS["number" if column.kind == "text" else column.kind](cell, column.digits)
        case Amount():
            if cell.unit == "s":
                return seconds_text(cell.value, column.digits)
            return f"{number_text(cell.value, column.digits)} {cell.unit}".strip()
        case quantity:
            kind = "number" if column.kind == "text" else column.kind
            text = quantity_text(quantity, column.digits, kind=kind, interval=column.interval)
            return missing if text == "-" else text


def is_right_aligned(table: Table, place: int) -> bool:
    """Whether the column at ``place`` holds numbers alone, so that they stand below each other."""
    column = table.columns[place]
    numbers = (int, float, type(None))
    if column.kind == "text":
        cells = [row[place] for row in table.rows]
        return bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)
    return not column.interval or all(isinstance(row[place], numbers) for row in table.rows)


def row_labels(table: Table, *named: str) -> list[str]:
    """What tells each row of ``table`` from the others, but for the columns ``named``, which stand
    beside it: ``torch kernels, small, 60s``."""
    shown = table.shown()
    keys = [
        place
        for place, column in enumerate(shown.columns)
        if column.key and column.name not in named
    ]
    labels = []
    for row in shown.rows:
        texts = [
            f"{text} kernels" if shown.columns[key].name == "kernels" else text
            for key in keys
            if (text := cell_text(row[key], shown.columns[key], ""))
        ]
        labels.append(", ".join(texts))
    return labels


def to_plain(table: Table) -> str:
    """The rows as lines with aligned columns, each row one line however long: for pipes and
    files."""
    table = table.shown()
    lines = [[column.title for column in table.columns]]
    lines += [
        [
            printable(cell_text(cell, column))
            for cell, column in zip(row, table.columns, strict=True)
        ]
        for row in table.rows
    ]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    right = [is_right_aligned(table, place) for place in range(len(widths))]
    return "".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        + "\n"
        for line in lines
    )


def to_rich(table: Table) -> RichTable:
    """The rows for a terminal, folded to its width."""
    from rich.table import Table as RichTable
    from rich.text import Text

    table = table.shown()
    drawn = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, column in enumerate(table.columns):
        drawn.add_column(
            Text(column.title),
            justify="right" if is_right_aligned(table, place) else "left",
            overflow="fold",
        )
    for row in table.rows:
        cells = zip(row, table.columns, strict=True)
        drawn.add_row(*(Text(printable(cell_text(cell, column))) for cell, column in cells))
    return drawn


def markdown_text(text: str) -> str:
    """``text`` as literal text in Markdown, safe in a cell of a table."""
    return _MARKDOWN_ACTIVE.sub(r"\\\1", printable(text)).strip()


def to_markdown(table: Table) -> str:
    """A heading, the caption, the rows, and the notes as a list."""
    table = table.shown()
    places = range(len(table.columns))
    parts = [f"### {markdown_text(table.title)}", ""] if table.title else []
    parts += [markdown_text(table.caption), ""] if table.caption else []
    parts.append(_markdown_row(column.title for column in table.columns))
    parts.append(
        _markdown_row("---:" if is_right_aligned(table, place) else "---" for place in places)
    )
    for row in table.rows:
        cells = zip(row, table.columns, strict=True)
        parts.append(_markdown_row(cell_text(cell, column, "n/a") for cell, column in cells))
    parts += ["", *(f"- {markdown_text(note)}" for note in table.notes)] if table.notes else []
    return "\n".join(parts) + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"


def csv_text(text: str) -> str:
    """``text`` so that no spreadsheet reads it as a formula (behind a quote)."""
    clean = printable(text)
    # Spreadsheets skip leading blanks before they look for a formula.
    return f"'{clean}" if clean.lstrip().startswith(_FORMULA_STARTS) else clean


def to_csv(table: Table) -> str:
    """A line a row under the names of the columns; an empty cell was not measured.

    A column that holds quantities becomes four: the value, ``_low``, ``_high`` and ``_censored``.
    """
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    wide = [
        any(_is_quantity(row[place]) for row in table.rows) for place in range(len(table.columns))
    ]
    headings: list[str] = []
    for column, four in zip(table.columns, wide, strict=True):
        ends = ("", "_low", "_high", "_censored") if four else ("",)
        headings += [column.name + end for end in ends]
    writer.writerow(headings)
    for row in table.rows:
        values: list[str] = []
        for cell, four in zip(row, wide, strict=True):
            plain = to_builtin(cell)
            parts = list(plain.values()) if isinstance(plain, dict) else [plain]
            values += [_csv_value(part) for part in parts + [None] * (4 * four - len(parts))]
        writer.writerow(values)
    return sheet.getvalue()


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return csv_text("; ".join(value))
    # In full and bare: rounding is for readers.
    return str(value).removesuffix(".0") if isinstance(value, float) else csv_text(str(value))


def to_json(table: Table) -> list[dict[str, Any]]:
    """An object a row by the names of the columns: plain values in full precision, null for what
    was not measured."""
    return [
        {column.name: to_builtin(cell) for cell, column in zip(row, table.columns, strict=True)}
        for row in table.rows
    ]


def to_builtin(cell: Cell) -> Any:
    """A cell as JSON has it; a quantity is {value, low, high, censored}."""
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
            return {
                "value": quantity.value,
                "low": quantity.low,
                "high": quantity.high,
                "censored": quantity.censored,
            }


def _is_quantity(cell: Cell) -> bool:
    return isinstance(to_builtin(cell), dict)


def latex_text(text: str) -> str:
    """``text`` as literal text; a character that not every LaTeX can set as ``{U+1F600}``."""
    escaped = "".join(_LATEX.get(character, character) for character in printable(text))
    return _LATEX_EXOTIC.sub(
        lambda found: f"{{U+{ord(found[0]):X}}}", _LATEX_LIGATURE.sub(r"\1{}", escaped)
    ).strip()


def latex_cell(cell: Cell, column: Column) -> str:
    """A cell; a number in mathematics, ``$3.4721\\times10^{-14}$``."""
    text = cell_text(cell, column, "n/a")
    if not isinstance(cell, (int, float)) or isinstance(cell, bool):
        return latex_text(text)
    if not _NUMBER.fullmatch(text):  # a percentage, or a time with its unit
        return latex_text(text)
    mantissa, _, exponent = text.partition("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$" if exponent else f"${mantissa}$"


def to_latex_tabular(table: Table) -> str:
    """The rows as a ``tabular`` with the rules of ``booktabs``."""
    table = table.shown()
    sides = "".join(
        "r" if is_right_aligned(table, place) else "l" for place in range(len(table.columns))
    )
    rows = [
        [latex_cell(cell, column) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            _latex_row(latex_text(column.title) for column in table.columns),
            r"\midrule",
            *map(_latex_row, rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


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
