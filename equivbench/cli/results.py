"""``equivbench results``: check records, measure their weights again, pack a submission, print the
JSON Schema and the rules."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.output import message, overall, print_json, print_table, print_text
from equivbench.counted import counted
from equivbench.errors import FailedError
from equivbench.report.table import Column, Table
from equivbench.report.text import printable
from equivbench.report.words import HOME

if TYPE_CHECKING:
    from equivbench.execution.audit import Audit
    from equivbench.records.copies import Report

Paths = Annotated[
    list[Path], typer.Argument(metavar="PATH ...", help="Folders or files of results.")
]
app = typer.Typer(
    help="Check, audit and submit records; print their schema and rules.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def validate(
    paths: Paths,
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
        message("error", f"not valid: {invalid} of {counted(len(reports), 'file')}")
    raise typer.Exit(code)


def _count(reports: list[Report]) -> str:
    """``70 records and 2 other files``."""
    records = sum(report.path.endswith(".json") for report in reports)
    others = len(reports) - records
    text = counted(records, "record")
    return f"{text} and {counted(others, 'other file')}" if others else text


@app.command()
def audit(
    paths: Paths,
    rerun: Annotated[
        bool,
        typer.Option(
            "--rerun",
            help="Also train each arm and seed again, as many steps as it made, and compare.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or cuda:N.")] = (
        "auto"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """Load the weights of each record and measure them again.

    The weights lie beside the record (`run --keep-weights`) or in the cache of the machine that
    trained them; they are loaded into the network that the record's pair declares, which may be
    a plug-in's. Loss, share, parameters and further test sets are compared. The exit code is 3 if
    a record is invalid, differs from its weights or has none here.
    """
    from equivbench.cli.progress import progress_display
    from equivbench.execution.audit import Audit
    from equivbench.execution.audit import audit as measure_again
    from equivbench.execution.audit import rerun as train_again
    from equivbench.records.store import read_record, record_files
    from equivbench.records.submission import review
    from equivbench.records.weight_files import CLAIMED

    audits = []
    files = record_files(paths, endings=(".json", ".jsonl"))
    # Someone's network may print what it likes.
    with contextlib.redirect_stdout(sys.stderr):
        for file, report in zip(files, review(paths), strict=True):
            if file.suffix != ".json":
                continue
            if not report.valid:
                audits.append(Audit(report.path, "not audited", report.problems))
                continue
            record = read_record(file, follow=False)
            found = measure_again(record, file, device)
            if rerun and record.final is not None:
                train_again(record, found, progress_display(json), device)
            audits.append(found)
    if json:
        print_json([vars(each) for each in audits])
    else:
        for each in audits:
            for text in (*each.differences, *each.rerun):
                typer.echo(f"{printable(each.path)}: {printable(text)}")
        print_table(_audit_table(audits))
        print_text(CLAIMED)
    wrong = sum(each.verdict != "agrees" for each in audits)
    if wrong or not audits:
        raise FailedError(f"{wrong} of {counted(len(audits), 'record')} did not pass the audit")


def _audit_table(audits: Sequence[Audit]) -> Table:
    columns = (
        Column("record", key=True),
        Column("loss", kind="number"),
        Column("measured", kind="number"),
        Column("share", kind="percent"),
        Column("parameters"),
        Column("weights"),
        Column("verdict"),
    )
    rows = [
        (
            "/".join(Path(each.path).parts[-4:]),
            *(each.recorded, each.measured, each.share, each.parameters),
            *(each.weights, each.verdict),
        )
        for each in audits
    ]
    return Table("", columns, rows)


@app.command()
def submit(
    paths: Paths,
    out: Annotated[Path, typer.Option("--out", help="The zip file to write.")] = Path(
        "submission.zip"
    ),
    without_weights: Annotated[
        bool,
        typer.Option(
            "--without-weights", help="Pack records without their weights: nobody can audit them."
        ),
    ] = False,
) -> None:
    """Pack records, their weights and the logs of their tuning into one file for reviewers.

    Everything is validated first; the exit code is 3 if anything is invalid or has no weights here.
    """
    from equivbench.records.packing import pack
    from equivbench.records.weight_files import CLAIMED

    packed = pack(paths, out, without_weights=without_weights)
    for note in packed.notes:
        message("note", note)
    typer.echo(
        f"wrote {out}: {counted(packed.records, 'record')}, "
        f"{counted(packed.weights, 'file of weights', 'files of weights')}, "
        f"{counted(packed.logs, 'log of tuning', 'logs of tuning')}"
    )
    print_text(CLAIMED)
    print_text(f"Where to send it, and what is looked at: {HOME}/blob/main/docs/submitting.md")


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
