"""``equivbench run`` and ``equivbench analyze sweep``: both arms of a pair under one equal budget,
as the pair declares them or at several values of one axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.cli.stored import print_paragraphs
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.sweep import AXES, SweepRequest, make_sweep
from equivbench.registry import board_units
from equivbench.report.table import Column, Table
from equivbench.request import RunRequest

if TYPE_CHECKING:
    from equivbench.execution.executors import RunResult
    from equivbench.execution.plan import RunPlan
    from equivbench.report.arms import Sweep

_RECORD_FIELDS = ("run_id", "task", "pair", "arm", "seed", "preset", "status", "reason")
_NO_OPTION_OF_A_SWEEP = ("kernels", "extend", "snapshots", "resume")
"""A sweep always goes on with what is there."""


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
    _raise_last([*result.diverged, *(f"{text}; {again}" for text in result.failures)])


@takes(SweepRequest, leave_out=_NO_OPTION_OF_A_SWEEP)
def sweep(
    request: SweepRequest,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves into this file (.png, .pdf or .svg).")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train PAIR at each value of one axis and report loss, share and explained signal of each arm.

    Values: size multiplies every width; data is a fraction of the training groups; learning-rate is
    the rate of every arm; augmentation is the fraction of samples rotated (an arm that does not
    augment is run at one value). Runs that are finished are not repeated: after Ctrl-C, or with
    more values or seeds, the same command goes on.
    """
    from equivbench.cli.progress import progress_display
    from equivbench.execution.executors import find_executor
    from equivbench.report.arms import gather_sweeps
    from equivbench.report.figures import draw_sweep, require_drawable, save_figure

    executor = find_executor(request.executor)
    plan = executor.resolve(make_sweep(request))
    if plot is not None:
        require_drawable(plot)
    if request.dry_run:
        _print_points(plan, json)
        return
    result = executor.run(plan, progress_display(quiet))
    again = f"go on with: {request.command()}"
    found = gather_sweeps([kept.record for kept in result.kept], board_units())
    _print_curves(found, result, json)
    if plot is not None and found and any(point.finished for point in found[0].points):
        figure = draw_sweep(found[0], title=AXES[found[0].axis].title)
        message("note", f"drew {save_figure(figure, plot)}")
    if result.interrupted:
        raise InterruptedRunError(f"interrupted; finished points are kept, {again}")
    # A run that failed is an error; one that diverged is a finding, unless an arm did so at every
    # point.
    for text in result.diverged:
        message("note", text)
    lost = [
        arm
        for each in found
        for arm in each.arms
        if all(point.diverged == point.seeds for point in each.of(arm))
    ]
    diverged = (f"the {arm} arm diverged at every point; lower its learning rate" for arm in lost)
    _raise_last([*(f"{text}; {again}" for text in result.failures), *diverged])


def _print_plan(plan: RunPlan, json: bool) -> None:
    seconds, device, threads, where = _estimate(plan)
    jobs = [(contest.dataset, job) for contest in plan.contests for job in contest.jobs]
    rows: list[dict[str, Any]] = [
        {
            "pair": job.pair,
            "arm": job.arm,
            "seed": job.seed,
            "preset": job.request.preset,
            "budget": job.budget,
            "dataset": dataset,
            "run_id": job.run_id,
            "resumes": job.request.resume,
        }
        for dataset, job in jobs
    ]
    if json:
        about = {"device": device, "threads": threads, "out": plan.request.out}
        print_json({"jobs": rows, **about, "estimated_seconds": seconds})
        return
    names = ("pair", "arm", "seed", "preset", "budget", "dataset")
    columns = [Column(name, heading="data set" * (name == "dataset"), key=True) for name in names]
    columns.append(Column("options", key=True, show="filled"))
    cells = []
    for row, (_, job) in zip(rows, jobs, strict=True):
        options = " ".join(f"{name} {value}" for name, value in job.variant.items())
        cells.append([*(row[name] for name in names), options])
    print_table(Table("", columns, cells))
    about_time = (
        "how long they take depends on the machine"
        if seconds is None
        else f"about {seconds / 60:.0f} min in all"
    )
    typer.echo(f"{len(cells)} runs{where}, {about_time}; records go to {plan.request.out}")


def _print_points(plan: RunPlan, json: bool) -> None:
    from equivbench.execution.state import finished_record

    seconds, device, _, where = _estimate(plan)
    points: list[dict[str, Any]] = [
        {
            "pair": job.pair,
            "arm": job.arm,
            "seed": job.seed,
            "budget": job.budget,
            "axis": job.labels["sweep"],
            "value": job.labels["value"],
            "recipe": job.recipe,
            "config": job.config,
            "fraction": job.fraction,
            "finished": finished_record(job) is not None,
        }
        for job in plan.jobs
    ]
    out = plan.request.out
    if json:
        print_json({"points": points, "out": out, "device": device, "estimated_seconds": seconds})
        return
    names = ("axis", "value", "arm", "seed", "budget")
    columns = [*(Column(name, key=True) for name in names), Column("state")]
    rows = [
        [*(point[name] for name in names), "finished" if point["finished"] else "to do"]
        for point in points
    ]
    about = "" if seconds is None else f", about {seconds / 60:.0f} min if none were finished"
    note = f"{len(rows)} runs{where}{about}; records go to {out}"
    print_table(Table("", columns, rows, notes=[note]))


def _estimate(plan: RunPlan) -> tuple[float | None, str | None, int | None, str]:
    """How many seconds a plan takes, and its device and threads, as values and in words."""
    from equivbench.execution.estimates import estimated_seconds

    machine = plan.machine
    if machine is None:
        return estimated_seconds(plan), None, None, ""
    where = f" on {machine.device} with {machine.threads} threads"
    return estimated_seconds(plan), machine.device, machine.threads, where


def _print_result(result: RunResult, json: bool) -> None:
    from equivbench.gap.efficiency import efficiency_gap
    from equivbench.records.disturbed import disturbance
    from equivbench.report.arms import summary_tables

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
        for table in summary_tables(records):
            print_table(table)
        print_paragraphs(gaps)
        for kept in result.kept:
            typer.echo(f"{'kept' if kept.reused else 'wrote'} {kept.path}")


def _print_curves(found: Sequence[Sweep], result: RunResult, json: bool) -> None:
    from equivbench.report.arms import sweep_table

    if not json:
        for each in found:
            print_table(sweep_table(each))
        return
    print_json(
        {
            "sweeps": found,
            "records": [{"path": str(kept.path), "reused": kept.reused} for kept in result.kept],
            "failures": [*result.failures, *result.diverged],
            "interrupted": result.interrupted,
        }
    )


def _raise_last(errors: Sequence[str]) -> None:
    """Say every failure; the last one ends the command."""
    for text in errors[:-1]:
        message("error", text)
    if errors:
        raise FailedError(errors[-1])
