"""``equivbench results``: check records, print their JSON Schema and the rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.output import message, overall, print_json

if TYPE_CHECKING:
    from equivbench.records.copies import Report


app = typer.Typer(
    help="Check records; print their schema and rules.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def validate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH ...", help="Folders or files of results.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print a list of {path, valid, problems, remarks}.")
    ] = False,
) -> None:
    """Validate an untrusted results folder.

    Every run record, kernel sample and analysis is checked against its schema, against what its
    pair, data and command say it must be, for plausibility and for hostile content
    (docs/submitting.md). The exit code is 3 if a file is missing, invalid or implausible, and 4 if
    a record follows another version of the rules.
    """
    from equivbench.records.submission import review

    reports = review(paths)
    invalid = sum(not report.valid for report in reports)
    if json:
        names = ("path", "valid", "problems", "remarks")
        print_json([{name: getattr(report, name) for name in names} for report in reports])
    else:
        for report in reports:
            for text in report.problems:
                typer.echo(f"{report.path}: {text}")
            for text in report.remarks:
                typer.echo(f"{report.path}: remark: {text}")
        typer.echo(f"{_count(reports)}, {invalid} invalid")
    code = overall(code for report in reports for code in report.exit_codes)
    if code:
        message("error", f"{invalid} of {len(reports)} files are not valid")
    raise typer.Exit(code)


def _count(reports: list[Report]) -> str:
    """``70 records and 2 other files``."""
    records = sum(report.path.endswith(".json") for report in reports)
    others = len(reports) - records
    text = f"{records} record{'s' * (records != 1)}"
    return f"{text} and {others} other file{'s' * (others != 1)}" if others else text


@app.command()
def schema() -> None:
    """Print the JSON Schema of run records."""
    from equivbench.records.json_schema import shipped_text

    sys.stdout.write(shipped_text())


@app.command()
def rules() -> None:
    """Print the rules: what is on the clock, what may be tuned, when a pair is fair, what is
    comparable."""
    from equivbench.records.json_schema import rules_text

    sys.stdout.write(rules_text())
