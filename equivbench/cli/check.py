"""``equivbench check``: the CI gate over two result sets, or over two revisions measured in
alternation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from equivbench.cli.ending import ending_by_signal
from equivbench.cli.options import ShortJson, chosen_format, takes
from equivbench.cli.output import Exit, message, overall, print_json, print_table
from equivbench.errors import UsageError
from equivbench.gate.worktrees import InterleaveRequest

if TYPE_CHECKING:
    from equivbench.gate.compare import Judgement

CheckFormat = Literal["text", "json", "github"]
CODES = {
    "dirty": Exit.USAGE,
    "incomparable": Exit.INCOMPARABLE,
    "failed": Exit.FAILED,
    "missing": Exit.FAILED,
    "regression": Exit.REGRESSION,
    "improvement": Exit.DONE,
    "unchanged": Exit.DONE,
    "new": Exit.DONE,
}
"""The exit code of each verdict but ``inconclusive``, which is a failure with `--strict` only."""


@takes(InterleaveRequest)
def check(
    request: InterleaveRequest,
    interleave: Annotated[
        bool,
        typer.Option(
            "--interleave",
            help="Measure two revisions of this repository on this machine, in alternation, and "
            "compare them.",
        ),
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC:PERCENT",
            help="Change of a metric, in percent, that counts (default: 5). The option may be "
            "repeated.",
        ),
    ] = None,
    format: Annotated[
        CheckFormat | None,
        typer.Option(
            "--format",
            help="Output format (default: text); github adds annotations and a table on the "
            "summary page of a workflow run.",
        ),
    ] = None,
    json: ShortJson = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Let an inconclusive benchmark fail the check (exit 5)."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --interleave: write the samples to baseline.jsonl and candidate.jsonl in "
            "this folder."
        ),
    ] = None,
) -> None:
    """Compare two sets of run records or kernel samples, or two revisions with --interleave.

    A change counts where it exceeds the threshold and its bound excludes that nothing changed; of
    200 whole suites of unchanged code one is called slower. "would have seen" is the smallest
    slow-down that 95 of 100 such comparisons find.

    The exit code is 0 if nothing got worse, 1 for a regression, 2 for uncommitted changes, 3 for
    what is missing, failed, empty or too little to decide anything, 4 for what cannot be compared,
    and 5 (with --strict) for what is inconclusive.
    """
    from equivbench.gate.compare import compare
    from equivbench.gate.interleave import interleave as measure_both
    from equivbench.gate.metrics import DEFAULT, parse_thresholds
    from equivbench.gate.reading import read_side

    output = chosen_format(format, json, "text")
    thresholds = parse_thresholds(fail_on or [])
    if not interleave and (request.only or out is not None):
        raise UsageError(
            "--only and --out belong to --interleave; stored samples are compared as they are"
        )
    names = (request.baseline, request.candidate)
    if interleave:
        with ending_by_signal():
            sides = measure_both(
                request,
                progress=lambda line: typer.echo(line, err=True),
                out=out,
                threshold=thresholds.get("seconds", DEFAULT),
            )
    else:
        first, second = (read_side(Path(name), thresholds) for name in names)
        sides = first, second
    judgements = compare(*sides, thresholds=thresholds, allow_dirty=request.allow_dirty)
    code = exit_code(judgements, strict)
    _print(judgements, code, output, strict, f"equivbench check: {names[0]} against {names[1]}")
    raise typer.Exit(code)


def exit_code(judgements: Sequence[Judgement], strict: bool) -> int:
    """The code that the verdicts add up to, by the contract's precedence."""
    undecided = Exit.INCONCLUSIVE if strict else Exit.DONE
    return overall(
        undecided if each.verdict == "inconclusive" else CODES[each.verdict] for each in judgements
    )


def _print(
    judgements: Sequence[Judgement], code: int, output: str, strict: bool, title: str
) -> None:
    from equivbench.report.gate import (
        gate_table,
        subject,
        summary_line,
        workflow_commands,
        worst_first,
    )
    from equivbench.report.render import to_markdown

    ordered = worst_first(judgements)
    if code:
        worst = ordered[0]
        message("error", f"{summary_line(judgements)}; first {subject(worst)}: {worst.reason}")
    if output == "json":
        print_json({"exit_code": code, "benchmarks": [asdict(each) for each in ordered]})
        return
    print_table(gate_table(judgements))
    typer.echo(summary_line(judgements))
    if output == "github":
        for line in workflow_commands(judgements, strict):
            sys.stdout.write(f"{line}\n")
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        if page:
            with open(page, "a", encoding="utf-8") as file:
                file.write(to_markdown(gate_table(judgements, title)))
