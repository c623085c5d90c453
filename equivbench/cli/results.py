"""``equivbench results``: check records, print their JSON Schema and the rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.cli import exit_codes
from equivbench.cli.output import message, print_json

if TYPE_CHECKING:
    from equivbench.records.submission import Report


def register(app: typer.Typer) -> None:
    """Add ``results`` to the command line."""
    group = typer.Typer(
        help="Check records; print their schema and rules.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("validate")(validate)
    group.command("schema")(schema)
    group.command("rules")(rules)
    app.add_typer(group, name="results")


def validate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH ...", help="Results folders or files.")
    ],
    json: Annotated[
        bool, typer.Option("--json", help="Print a list of {path, valid, problems, remarks}.")
    ] = False,
) -> None:
    """Check a folder of results: schema, plausibility, hostile content; kernel samples and analyses
    too (docs/submitting.md).

    Exits 3 if a file is missing, invalid or implausible, 4 if a record follows another version of
    the rules.
    """
    from equivbench.records.submission import review

    reports = review(paths)
    if json:
        print_json([_plain(report) for report in reports])
    else:
        for report in reports:
            for text in report.problems:
                sys.stdout.write(f"{report.path}: {text}\n")
            for text in report.remarks:
                sys.stdout.write(f"{report.path}: remark: {text}\n")
        sys.stdout.write(
            f"{_count(reports)}, {sum(not report.valid for report in reports)} invalid\n"
        )
    code = exit_codes.overall(code for report in reports for code in report.exit_codes)
    if code:
        message(
            "error",
            f"{sum(not report.valid for report in reports)} of {len(reports)} files are not valid",
        )
    raise typer.Exit(code)


def _plain(report: Report) -> dict[str, Any]:
    return {
        "path": report.path,
        "valid": report.valid,
        "problems": report.problems,
        "remarks": report.remarks,
    }


def _count(reports: list[Report]) -> str:
    records = sum(report.path.endswith(".json") for report in reports)
    others = len(reports) - records
    counts = [f"{records} {'record' if records == 1 else 'records'}"]
    return " and ".join(
        [*counts, *([f"{others} other {'file' if others == 1 else 'files'}"] if others else [])]
    )


def schema() -> None:
    """Print the JSON Schema of run records."""
    from equivbench.records.json_schema import shipped_text

    sys.stdout.write(shipped_text())


def rules() -> None:
    """Print the rules: what is on the clock, what may be tuned, when a pair is fair, what is
    comparable."""
    from equivbench.records.rules import rules_text

    sys.stdout.write(rules_text())
