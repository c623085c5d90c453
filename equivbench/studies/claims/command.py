"""``equivbench reproduce``: gathers the evidence for the paper's claims and says of each whether it
held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.cli.options import Device, PresetOption, Quiet, SeedCount, Threads, parse_seeds
from equivbench.errors import FailedError, InterruptedRunError, UsageError

if TYPE_CHECKING:
    from equivbench.studies.claims.reproduction import GatherResult, PlannedPart, Reproduction

DEFAULT_SEEDS, FULL_SEEDS = 3, 6


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("reproduce")(reproduce)


def reproduce(
    preset: PresetOption = "small",
    full: Annotated[
        bool, typer.Option("--full", help="All pairs, 6 seeds, wider sweeps, every landscape.")
    ] = False,
    claims: Annotated[str | None, typer.Option(help="Only what these need, e.g. C1,C5.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Per arm, for every pair: 60s, 5min, 2000steps (default: the pair's)."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds (default 0,1,2; with --full 0,1,2,3,4,5).")
    ] = None,
    n_seeds: SeedCount = None,
    device: Device = "auto",
    threads: Threads = None,
    out: Annotated[str, typer.Option(help="Results folder.")] = "results",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what each part will take and stop.")
    ] = False,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Judge what is in the results folder; train nothing."),
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write the claims as a Markdown page into this file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print parts and findings as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Claim by claim: what the paper says, what was measured, whether it held.

    Trains and analyses what the claims need, first saying what each part will take (3 seeds, with
    --full 6). What is finished is not repeated: after Ctrl-C, or with more seeds, the same command
    goes on.
    """
    from equivbench.studies.claims.parts import read_claims

    chosen = read_claims(claims)
    if report_only and dry_run:
        raise UsageError("--report-only and --dry-run exclude each other; give one of them")
    if page is not None:
        _check_page(page)
    if report_only:
        _report(out, chosen, page, json, {})
        return
    from equivbench.studies.claims.reproduction import ReproduceRequest, make_reproduction

    none_given = seeds is None and n_seeds is None
    count = (FULL_SEEDS if full else DEFAULT_SEEDS) if none_given else n_seeds
    request = ReproduceRequest(
        preset=preset,
        full=full,
        claims=chosen,
        budget=budget,
        seeds=parse_seeds(seeds, count),
        device=device,
        threads=threads,
        out=out,
    )
    reproduction = make_reproduction(request)
    if dry_run:
        _print_parts(reproduction, json)
        return
    if not quiet:
        _print_parts(reproduction, json=False, to_stderr=json)
    outcome = _gather(reproduction, quiet)
    if outcome.interrupted:
        raise InterruptedRunError(
            f"interrupted; what is finished is kept, go on with: {request.command}"
        )
    _report(
        out,
        chosen,
        page,
        json,
        {"parts": _parts(make_reproduction(request)), "failures": outcome.failures},
    )
    _raise_failures(outcome, request.command)


def _check_page(page: Path) -> None:
    """Before hours of training, not after them."""
    from equivbench.execution.machine import check_writable

    if page.is_dir():
        raise UsageError(f"--page {page} is a folder; name a file, such as {page / 'claims.md'}")
    check_writable(str(page.parent), "folder of the page", "--page")


def _gather(reproduction: Reproduction, quiet: bool) -> GatherResult:
    from equivbench.cli.output import message
    from equivbench.cli.progress import progress_display
    from equivbench.studies.claims.reproduction import gather

    return gather(
        reproduction, progress_display(quiet), lambda text: None if quiet else message("part", text)
    )


def _report(
    out: str, claims: Sequence[str], page: Path | None, json: bool, gathered: dict[str, Any]
) -> None:
    """Judge ``claims`` (none named: all) on the files below ``out``, say so, and write the page."""
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.records.files import write_atomically
    from equivbench.studies.claims.evidence import load_evidence
    from equivbench.studies.claims.headline import COLUMNS as HEADLINE_COLUMNS
    from equivbench.studies.claims.headline import headline_rows
    from equivbench.studies.claims.page import COLUMNS, claims_rows, render_claims
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
        print_table(COLUMNS, claims_rows(findings))
        if headlines:
            typer.echo()
            print_table(HEADLINE_COLUMNS, headline_rows(headlines))


def _print_parts(reproduction: Reproduction, json: bool, to_stderr: bool = False) -> None:
    """What each part is for and will take; with ``to_stderr`` stdout is left to the JSON that comes
    at the end."""
    from equivbench.cli.output import message, print_json, print_table

    request = reproduction.request
    if json:
        about = {"device": reproduction.device, "threads": reproduction.threads, "out": request.out}
        seconds = None if reproduction.open_ended else reproduction.seconds
        print_json(
            {
                "parts": _parts(reproduction),
                **about,
                "estimated_seconds": seconds,
                "command": request.command,
            }
        )
        return
    total = _total(reproduction)
    where = (
        f"on {reproduction.device} with {reproduction.threads} threads; records go to {request.out}"
    )
    if to_stderr:
        message("note", f"{total} {where}")
        return
    rows = [
        [piece.part.title, ", ".join(piece.part.claims), *_state(piece)]
        for piece in reproduction.pieces
    ]
    print_table(["part", "claims", "runs", "finished", "minutes"], rows)
    typer.echo(f"{total} {where}")


def _total(reproduction: Reproduction) -> str:
    if not any(piece.todo for piece in reproduction.pieces):
        return "nothing is left to do"
    minutes = f"{reproduction.seconds / 60:.0f} min"
    if not reproduction.open_ended:
        return f"about {minutes}"
    return (
        f"at least {minutes}" if reproduction.seconds else "nothing here says how long this takes,"
    )


def _state(piece: PlannedPart) -> tuple[str, str, str]:
    minutes = "not known" if piece.seconds is None else f"{piece.seconds / 60:.0f}"
    return str(len(piece.jobs)), str(len(piece.jobs) - len(piece.todo)), minutes


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


def _raise_failures(outcome: GatherResult, again: str) -> None:
    from equivbench.cli.output import message

    for text in outcome.failures[:-1]:
        message("error", text)
    if outcome.failures:
        raise FailedError(f"{outcome.failures[-1]}; try what is missing again with: {again}")
