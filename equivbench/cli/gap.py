"""``equivbench gap``: the efficiency gap of every pair that both arms have records of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from equivbench.gap.efficiency import PairGap
    from equivbench.records.schema import RunRecord


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("gap")(gap)


def gap(
    results: Annotated[Path, typer.Argument(help="A results folder or a record file.")] = Path(
        "results"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """The efficiency gap of each pair: who is behind at equal budget, and how much faster it would
    have to be to tie."""
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import FailedError, IncomparableError
    from equivbench.gap.efficiency import efficiency_gap
    from equivbench.gap.pairing import ARMS, pair_up
    from equivbench.records.submission import admitted
    from equivbench.report.gaps import gap_table

    records = admitted(results, invalid="warn")
    problems = pair_up(records).problems
    gaps = efficiency_gap(records)
    if not gaps:
        if not problems:
            raise FailedError(
                f"{results} has no record of an {' or '.join(ARMS)} arm; "
                "`equivbench run` writes both"
            )
        raise next(
            (problem for problem in problems if isinstance(problem, IncomparableError)), problems[0]
        )
    if as_json:
        print_json([each.to_json() for each in gaps])
    else:
        print_table(gap_table(gaps))
        _print_paragraphs(gaps)
    for problem in problems:
        message("left out", str(problem))
    lost = [each for each in gaps if max(each.diverged.values()) == each.n_seeds]
    if lost:
        names = ", ".join(f"{each.task}/{each.pair}" for each in lost)
        raise FailedError(
            f"every seed of an arm diverged in {names}; its recipe needs another learning rate "
            "(`equivbench tune`)"
        )


def print_summary(records: Sequence[RunRecord], gaps: Sequence[PairGap]) -> None:
    """Print what ``run`` ends with: a table of the arms of each pair, and a paragraph on each
    gap."""
    from equivbench.cli.output import print_table
    from equivbench.report.summary import summary_tables

    for table in summary_tables(records):
        print_table(table)
    _print_paragraphs(gaps)


def _print_paragraphs(gaps: Sequence[PairGap]) -> None:
    from equivbench.report.gaps import paragraphs
    from equivbench.report.text import printable

    for line in paragraphs(gaps):
        typer.echo(printable(line))
