"""``equivbench check``: the CI gate over two result sets, or over two revisions measured in
alternation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from equivbench.cli import exit_codes

if TYPE_CHECKING:
    from equivbench.gate.compare import Judgement
    from equivbench.gate.metrics import Thresholds
    from equivbench.gate.samples import Side

Format = Literal["text", "json", "github"]
FORMATS: tuple[Format, ...] = ("text", "json", "github")
CODES = {
    "dirty": exit_codes.USAGE,
    "incomparable": exit_codes.INCOMPARABLE,
    "failed": exit_codes.FAILED,
    "missing": exit_codes.FAILED,
    "regression": exit_codes.REGRESSION,
    "improvement": exit_codes.DONE,
    "unchanged": exit_codes.DONE,
    "new": exit_codes.DONE,
}
"""The exit code of each verdict but ``inconclusive``, which is a failure with `--strict` only."""


def register(app: typer.Typer) -> None:
    """Add ``check`` to the command line."""
    app.command("check")(check)


def check(
    baseline: Annotated[
        str,
        typer.Argument(
            help="Records or samples (file or folder); with --interleave a git revision."
        ),
    ],
    candidate: Annotated[str, typer.Argument(help="The same of what is to be judged.")],
    interleave: Annotated[
        bool,
        typer.Option(
            "--interleave",
            help="Measure two revisions of this repository here, in alternation, and compare.",
        ),
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC:PERCENT", help="Threshold of a metric (default 5); may be repeated."
        ),
    ] = None,
    output: Annotated[str, typer.Option("--format", help="text, json or github.")] = "text",
    strict: Annotated[
        bool, typer.Option("--strict", help="An inconclusive benchmark fails the check (exit 5).")
    ] = False,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Accept uncommitted changes.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="With --interleave: fresh processes a side.")] = 10,
    seconds: Annotated[
        float, typer.Option(help="With --interleave: seconds a benchmark in each process.")
    ] = 0.4,
    only: Annotated[
        list[str] | None,
        typer.Option(help="With --interleave: benchmarks that match this pattern (*, ?)."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --interleave: keep baseline.jsonl and candidate.jsonl here."),
    ] = None,
) -> None:
    """Compare run records or kernel samples, or with --interleave two revisions.

    Exits 0: unchanged or improved; 1: a regression; 2: uncommitted changes; 3: missing, failed or
    empty; 4: incomparable; 5 (with --strict): inconclusive. A change counts where it exceeds 5% and
    three noise floors and the 99% bound agrees.
    """
    from equivbench.errors import UsageError, unknown_name
    from equivbench.gate.metrics import GATED, Thresholds

    if output not in FORMATS:
        raise unknown_name("format", output, FORMATS)
    thresholds = Thresholds.parse(fail_on or [], GATED)
    if not interleave and (only or out is not None):
        raise UsageError(
            "--only and --out belong to --interleave; stored samples are compared as they are"
        )
    if interleave:
        sides = _measure(baseline, candidate, rounds, seconds, only or [], out, allow_dirty)
    else:
        sides = _read(baseline, candidate, thresholds)
    raise typer.Exit(
        _report(sides, thresholds, output, strict, allow_dirty, f"{baseline} against {candidate}")
    )


def _read(baseline: str, candidate: str, thresholds: Thresholds) -> tuple[Side, Side]:
    from equivbench.gate.reading import read_side

    return read_side(Path(baseline), thresholds.named), read_side(Path(candidate), thresholds.named)


def _measure(
    baseline: str,
    candidate: str,
    rounds: int,
    seconds: float,
    only: list[str],
    out: Path | None,
    allow_dirty: bool,
) -> tuple[Side, Side]:
    from equivbench.gate.interleave import InterleaveRequest, interleave

    request = InterleaveRequest(
        baseline,
        candidate,
        rounds=rounds,
        seconds=seconds,
        only=tuple(only),
        allow_dirty=allow_dirty,
    )
    return interleave(request, progress=lambda line: typer.echo(line, err=True), out=out)


def _report(
    sides: tuple[Side, Side],
    thresholds: Thresholds,
    output: str,
    strict: bool,
    allow_dirty: bool,
    title: str,
) -> int:
    """Print the comparison and return the exit code."""
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.gate.compare import compare
    from equivbench.gate.noise import committed_floors
    from equivbench.report.gate import (
        gate_table,
        subject,
        summary_line,
        workflow_commands,
        worst_first,
    )
    from equivbench.report.render import to_markdown

    judgements = compare(
        *sides, thresholds=thresholds, floors=committed_floors(), allow_dirty=allow_dirty
    )
    code = exit_code(judgements, strict)
    if code:
        worst = worst_first(judgements)[0]
        message("error", f"{summary_line(judgements)}; first {subject(worst)}: {worst.reason}")
    if output == "json":
        print_json({"exit_code": code, "benchmarks": list(map(_plain, worst_first(judgements)))})
        return code
    print_table(gate_table(judgements))
    sys.stdout.write(summary_line(judgements) + "\n")
    if output == "github":
        sys.stdout.write("".join(f"{line}\n" for line in workflow_commands(judgements, strict)))
        page = os.environ.get("GITHUB_STEP_SUMMARY")
        if page:
            with open(page, "a", encoding="utf-8") as file:
                file.write(to_markdown(gate_table(judgements, f"equivbench check: {title}")))
    return code


def exit_code(judgements: Sequence[Judgement], strict: bool) -> int:
    """The code that the verdicts add up to, by the contract's precedence."""
    undecided = exit_codes.INCONCLUSIVE if strict else exit_codes.DONE
    return exit_codes.overall(
        undecided if each.verdict == "inconclusive" else CODES[each.verdict] for each in judgements
    )


def _plain(judgement: Judgement) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(judgement)
