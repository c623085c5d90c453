"""How commands print: tables that survive a pipe, JSON, and one-line messages on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from equivbench.report.text import printable


def print_json(value: Any) -> None:
    """``value`` (plain objects or msgspec structs) as indented JSON on stdout."""
    import msgspec

    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout, folded to the width of a terminal; in a pipe or file every row stays one
    whole line."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [
            max(len(row[column]) for row in [headers, *cells]) for column in range(len(headers))
        ]
        for row in [headers, *cells]:
            sys.stdout.write(
                "  ".join(
                    cell.ljust(width) for cell, width in zip(row, widths, strict=True)
                ).rstrip()
                + "\n"
            )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def message(kind: str, text: str) -> None:
    """``kind: text`` on stderr, as one line."""
    sys.stderr.write(f"{kind}: {printable(' '.join(text.split()))}\n")
