"""``equivbench reproduce``: gathers the evidence for the paper's claims and says of each whether it
held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.counted import counted
from equivbench.errors import FailedError, InterruptedRunError, UsageError
from equivbench.report.table import Column, Table
from equivbench.studies.claims.parts import ReproduceRequest

if TYPE_CHECKING:
    from equivbench.studies.claims.reproduction import Reproduction


@takes(ReproduceRequest)
def reproduce(request: ReproduceRequest, json: Json = False, quiet: Quiet = False) -> None:
    """Say claim by claim what the paper says, what was measured, and whether it held.

    Trains and analyses what the claims need, and first says what each part will take (3 seeds, with
    --full 6). What is finished is not repeated: after Ctrl-C, or with more seeds, the same command
    goes on.
    """
    page = None if request.page is None else Path(request.page)
    if request.report_only and request.dry_run:
        raise UsageError("--report-only and --dry-run exclude each other; give one of them")
    if page is not None:
        _check_page(page)
    if request.report_only:
        _report(request.out, request.claims, page, json, {})
        return
    from equivbench.cli.progress import progress_display
    from equivbench.studies.claims.reproduction import gather, make_reproduction

    reproduction = make_reproduction(request)
    if request.dry_run or not quiet:
        _print_parts(reproduction, json and request.dry_run, to_stderr=json)
    if request.dry_run:
        return
    result = gather(
        reproduction, progress_display(quiet), lambda text: None if quiet else message("part", text)
    )
    if result.interrupted:
        raise InterruptedRunError(
            f"interrupted; what is finished is kept, go on with: {request.command()}"
        )
    gathered = {"parts": _parts(make_reproduction(request)), "failures": result.failures}
    _report(request.out, request.claims, page, json, gathered)
    for text in result.failures[:-1]:
        message("error", text)
    if result.failures:
        raise FailedError(
            f"{result.failures[-1]}; try what is missing again with: {request.command()}"
        )


def _check_page(page: Path) -> None:
    """Before hours of training, not after them."""
    from equivbench.execution.plan import check_writable

    if page.is_dir():
        raise UsageError(f"--page {page} is a folder; name a file, such as {page / 'claims.md'}")
    check_writable(str(page.parent), "folder of the page", "--page")


def _report(
    out: str, claims: Sequence[str], page: Path | None, json: bool, gathered: dict[str, Any]
) -> None:
    """Judge ``claims`` (none named: all) on the files below ``out``, say so, and write the page."""
    from equivbench.records.files import write_atomically
    from equivbench.studies.claims.evidence import load_evidence
    from equivbench.studies.claims.headline import headline_table
    from equivbench.studies.claims.page import claims_table, render_claims
    from equivbench.studies.claims.verdicts import judge

    evidence = load_evidence(Path(out))
    findings = [finding for finding in judge(evidence) if not claims or finding.claim in claims]
    for text in evidence.warnings:
        message("warning", text)
    headlines = [
        each
        for machine in evidence.machines
        for each in machine.headlines
        if not claims or "C5" in claims
    ]
    if page is not None:
        write_atomically(page, render_claims(findings, headlines, evidence.warnings).encode())
        message("note", f"wrote {page}")
    if json:
        print_json({**gathered, "findings": findings, "warnings": evidence.warnings})
    else:
        print_table(claims_table(findings))
        if headlines:
            typer.echo()
            print_table(headline_table(headlines))


def _print_parts(reproduction: Reproduction, json: bool, to_stderr: bool = False) -> None:
    """What each part is for and will take; with ``to_stderr`` stdout is left to the JSON that comes
    at the end."""
    request = reproduction.request
    if json:
        asked = replace(request, dry_run=False)
        print_json(
            {
                "parts": _parts(reproduction),
                "device": reproduction.device,
                "threads": reproduction.threads,
                "out": request.out,
                "estimated_seconds": None if reproduction.open_ended else reproduction.seconds,
                "command": asked.command(),
            }
        )
        return
    where = f"on {reproduction.device} with {counted(reproduction.threads, 'thread')}"
    total = f"{_total(reproduction)} {where}; records go to {request.out}"
    if to_stderr:
        message("note", total)
        return
    columns = (
        Column("part", key=True),
        Column("claims"),
        Column("runs"),
        Column("finished"),
        Column("minutes"),
    )
    rows = []
    for part in _parts(reproduction):
        seconds = part["estimated_seconds"]
        minutes = "not known" if seconds is None else f"{seconds / 60:.0f}"
        claims = ", ".join(part["claims"])
        rows.append((part["part"], claims, part["runs"], part["finished"], minutes))
    print_table(Table("", columns, rows, [total]))


def _total(reproduction: Reproduction) -> str:
    if not any(piece.todo for piece in reproduction.pieces):
        return "nothing is left to do"
    minutes = f"{reproduction.seconds / 60:.0f} min"
    if not reproduction.open_ended:
        return f"about {minutes}"
    if reproduction.seconds:
        return f"at least {minutes}"
    return "nothing here says how long this takes,"


def _parts(reproduction: Reproduction) -> list[dict[str, Any]]:
    return [
        {
            "part": piece.part.title,
            "claims": piece.part.claims,
            "runs": len(piece.jobs),
            "finished": len(piece.jobs) - len(piece.todo),
            "estimated_seconds": piece.seconds,
        }
        for piece in reproduction.pieces
    ]
