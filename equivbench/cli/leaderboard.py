"""``equivbench leaderboard export``: the board made from records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def register(app: typer.Typer) -> None:
    """Add ``leaderboard`` to the command line."""
    group = typer.Typer(
        help="The board made from records.", no_args_is_help=True, rich_markup_mode=None
    )
    group.callback()(_group)
    group.command("export")(export)
    app.add_typer(group, name="leaderboard")


def _group() -> None:
    """The board made from records."""


def export(
    format: Annotated[str, typer.Option("--format", help="md, csv, json, html or latex.")] = "md",
    results: Annotated[
        Path, typer.Option("--results", help="Results folder, or one record.")
    ] = Path("results"),
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; stdout if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave invalid records out, with a warning each.")
    ] = False,
) -> None:
    """Rank the arms of each setting: same task, data, preset, hardware, budget and rules."""
    from equivbench.records.files import write_atomically
    from equivbench.registry import TASKS
    from equivbench.report.formats import check_format

    name = check_format("json" if json else format)
    units = {name: entry.value.board_unit for name, entry in TASKS.entries().items()}
    text = _text(name, results, units, "warn" if skip_invalid else "raise")
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text.encode())


def _text(
    name: str, results: Path, units: dict[str, str], invalid: Literal["raise", "warn"]
) -> str:
    from equivbench.records.submission import admitted
    from equivbench.report.board import build_boards
    from equivbench.report.formats import FORMATS, PAGE

    if name != PAGE:
        return FORMATS[name](build_boards(admitted(results, invalid=invalid), units))
    from equivbench.report.html.page import to_html
    from equivbench.report.publication import publish

    return to_html(publish(results, units=units, invalid=invalid))
