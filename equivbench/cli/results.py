"""``equivbench results``: check records, print their JSON Schema and the rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from equivbench.cli import exit_codes
from equivbench.cli.output import message, print_json
from equivbench.errors import FailedError


def register(app: typer.Typer) -> None:
    """Add ``results`` to the command line."""
    group = typer.Typer(help="Check records; print their schema and rules.", no_args_is_help=True, rich_markup_mode=None)
    group.command("validate")(validate)
    group.command("schema")(schema)
    group.command("rules")(rules)
    app.add_typer(group, name="results")


def validate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH ...", help="Results folders or record files.")],
    json: Annotated[bool, typer.Option("--json", help="Print a list of {path, valid, problems, remarks}.")] = False,
) -> None:
    """Check records against the schema and for plausibility.

    Exits 3 if a record is missing, invalid or implausible, 4 if one follows another version of the rules.
    """
    from equivbench.records.store import record_files

    reports = [check(file) for file in record_files(paths)]
    if json:
        print_json([report for report, _ in reports])
    else:
        for report, _ in reports:
            for kind in ("problems", "remarks"):
                for text in report[kind]:
                    sys.stdout.write(f"{report['path']}: {'' if kind == 'problems' else 'remark: '}{text}\n")
        invalid = sum(not report["valid"] for report, _ in reports)
        sys.stdout.write(f"{len(reports)} {'record' if len(reports) == 1 else 'records'}, {invalid} invalid\n")
    code = exit_codes.overall(code for _, code in reports)
    if code:
        message("error", f"{sum(not report['valid'] for report, _ in reports)} of {len(reports)} records are not valid")
    raise typer.Exit(code)


def check(file: Path) -> tuple[dict[str, Any], int]:
    """The report on one record file and the exit code that it asks for."""
    from equivbench.records.store import read_record
    from equivbench.records.validate import incomparable, problems, remarks

    try:
        record = read_record(file)
    except FailedError as error:
        return {"path": str(file), "valid": False, "problems": [str(error)], "remarks": []}, exit_codes.FAILED
    found, other_rules = problems(record), incomparable(record)
    codes = [exit_codes.FAILED] * bool(found) + [exit_codes.INCOMPARABLE] * bool(other_rules)
    found += [other_rules] if other_rules else []
    return {"path": str(file), "valid": not found, "problems": found, "remarks": remarks(record)}, exit_codes.overall(codes)


def schema() -> None:
    """Print the JSON Schema of run records."""
    from equivbench.records.json_schema import shipped_text

    sys.stdout.write(shipped_text())


def rules() -> None:
    """Print the rules: what is on the clock, what may be tuned, when a pair is fair, what is comparable."""
    from equivbench.records.rules import rules_text

    sys.stdout.write(rules_text())
