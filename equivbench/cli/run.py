"""``equivbench run``: trains both arms of each pair under one equal budget and writes a record per
arm and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import EquivbenchError, FailedError, InterruptedRunError
from equivbench.report.table import Column, Table
from equivbench.request import RunRequest

if TYPE_CHECKING:
    from equivbench.execution.executors import RunResult
    from equivbench.execution.plan import RunPlan

_RECORD_FIELDS = ("run_id", "task", "pair", "arm", "seed", "preset", "status", "reason")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("run")(run)


@takes(RunRequest)
def run(request: RunRequest, json: Json = False, quiet: Quiet = False) -> None:
    """Train both arms of each PAIR under one equal budget, in turn, and record every arm and seed.

    Ctrl-C saves the state; the same command with --resume goes on.
    """
    from equivbench.cli.progress import progress_display
    from equivbench.execution.executors import find_executor
    from equivbench.execution.plan import make_plan

    executor = find_executor(request.executor)
    plan = executor.resolve(make_plan(request))
    if request.dry_run:
        _print_plan(plan, json)
        return
    result = executor.run(plan, progress_display(quiet))
    _print_result(result, json)
    again = f"go on with: {request.resuming().command()}"
    if result.interrupted:
        raise InterruptedRunError(f"interrupted; the state is saved, {again}")
    _raise_failures(result, again)


def _print_plan(plan: RunPlan, json: bool) -> None:
    from equivbench.execution.estimates import estimated_seconds

    seconds = estimated_seconds(plan)
    machine = plan.machine
    out = plan.request.out
    if json:
        rows = [
            {
                "pair": job.pair,
                "arm": job.arm,
                "seed": job.seed,
                "preset": job.request.preset,
                "budget": job.budget,
                "dataset": contest.dataset,
                "run_id": job.run_id,
                "resumes": job.request.resume,
            }
            for contest in plan.contests
            for job in contest.jobs
        ]
        print_json(
            {
                "jobs": rows,
                "device": None if machine is None else machine.device,
                "threads": None if machine is None else machine.threads,
                "out": out,
                "estimated_seconds": seconds,
            }
        )
        return
    names = ("pair", "arm", "seed", "preset", "budget", "data set")
    columns = [Column(name, key=True) for name in names]
    columns.append(Column("options", key=True, show="filled"))
    cells = [
        (
            job.pair,
            job.arm,
            job.seed,
            job.request.preset,
            job.budget,
            contest.dataset,
            " ".join(f"{name} {value}" for name, value in job.variant.items()),
        )
        for contest in plan.contests
        for job in contest.jobs
    ]
    print_table(Table("", columns, cells))
    about = (
        "how long they take depends on the machine"
        if seconds is None
        else f"about {seconds / 60:.0f} min in all"
    )
    where = "" if machine is None else f" on {machine.device} with {machine.threads} threads"
    typer.echo(f"{len(cells)} runs{where}, {about}; records go to {out}")


def _print_result(result: RunResult, json: bool) -> None:
    from equivbench.gap.efficiency import efficiency_gap
    from equivbench.records.disturbed import disturbance

    records = [kept.record for kept in result.kept]
    for record in records:
        found = disturbance(record)
        if found is not None:
            message(
                "warning",
                f"{record.task}/{record.pair} {record.arm} seed {record.seed}: {found}; no "
                "time-based figure of this run will be used, so run it again on a quiet machine",
            )
    # Runs that the user stopped can stand in no gap.
    ended = [record for record in records if record.status in ("completed", "diverged")]
    gaps = efficiency_gap(ended)
    if json:
        rows = [
            {
                "path": str(kept.path),
                "checkpoint": None if kept.checkpoint is None else str(kept.checkpoint),
                "reused": kept.reused,
            }
            | {name: getattr(kept.record, name) for name in _RECORD_FIELDS}
            for kept in result.kept
        ]
        print_json(
            {
                "records": rows,
                "gap": [gap.to_json() for gap in gaps],
                "failures": result.failures,
                "interrupted": result.interrupted,
            }
        )
    elif records:
        from equivbench.cli.gap import print_summary

        print_summary(records, gaps)
        for kept in result.kept:
            typer.echo(f"{'kept' if kept.reused else 'wrote'} {kept.path}")


def _raise_failures(result: RunResult, again: str) -> None:
    """Say every failure; the last one ends the command."""
    errors: list[EquivbenchError] = [FailedError(text) for text in result.diverged]
    errors += [FailedError(f"{text}; {again}") for text in result.failures]
    for error in errors[:-1]:
        message("error", str(error))
    if errors:
        raise errors[-1]
