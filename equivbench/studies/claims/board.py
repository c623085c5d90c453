"""The verdicts on the claims as a table of the board."""

from __future__ import annotations

from pathlib import Path

from equivbench.report.table import Cell, Column, Table
from equivbench.report.words import HOME
from equivbench.studies.claims.evidence import load_evidence
from equivbench.studies.claims.findings import ClaimFinding
from equivbench.studies.claims.page import HEADINGS, by_evidence
from equivbench.studies.claims.statements import PAPER, claim
from equivbench.studies.claims.verdicts import judge

TITLE = "The paper's claims"
PAGE = f"{HOME}/blob/main/docs/claims.md"
COLUMNS = (
    Column("claim", key=True),
    Column("title", heading="says", wraps=True),
    Column("machine", key=True),
    Column("preset", key=True),
    *(Column(weights, heading=f"{heading} weights") for weights, heading in HEADINGS.items()),
    Column("tasks", heading="on"),
)


def claims_on_board(results: Path) -> Table | None:
    """The verdict on each claim for each kind of weights, a row for each machine and preset on
    which something was measured; None where ``results`` is no folder or nothing was."""
    if not results.is_dir():
        return None
    table = claims_board_table(judge(load_evidence(results)))
    return table if table.rows else None


def claims_board_table(findings: list[ClaimFinding]) -> Table:
    """Make the table of ``findings``, with a note on the claims that nothing was measured of."""
    rows: list[list[Cell]] = []
    measured: set[str] = set()
    for own in by_evidence(findings):
        verdicts = [own[weights].verdict for weights in HEADINGS if weights in own]
        if set(verdicts) == {"not measured"}:
            continue
        first = next(iter(own.values()))
        measured.add(first.claim)
        tasks = dict.fromkeys(part.task for found in own.values() for part in found.parts)
        rows.append(
            [
                first.claim,
                claim(first.claim).title,
                first.machine_key,
                first.preset,
                *(own[weights].verdict if weights in own else None for weights in HEADINGS),
                ", ".join(tasks),
            ]
        )
    claims = dict.fromkeys(each.claim for each in findings)
    lacking = [name for name in claims if name not in measured]
    notes = [f"nothing was measured of {', '.join(lacking)}: equivbench reproduce"] * bool(lacking)
    caption = (
        f"Claims of {PAPER}, in our words, judged by rules that the records alone decide. Each "
        f"verdict with its figures, its rule and its commands: {PAGE}, or "
        "equivbench reproduce --report-only."
    )
    return Table(TITLE, COLUMNS, rows, notes, caption)
