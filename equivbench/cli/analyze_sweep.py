"""``equivbench analyze sweep``: a pair at several points of one axis, as resumable runs and as
curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.execution.sweep import SweepRequest

if TYPE_CHECKING:
    from equivbench.execution.executors import RunResult
    from equivbench.execution.plan import RunPlan
    from equivbench.records.schema import RunRecord
    from equivbench.report.sweeps import Sweep

_NOT_OFFERED = ("kernels", "extend", "snapshots", "resume")
"""Options of a run that a sweep does not have: it always goes on with what is there."""


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("sweep")(sweep)


@takes(SweepRequest, leave_out=_NOT_OFFERED)
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
    from equivbench.execution.sweep import make_sweep

    executor = find_executor(request.executor)
    plan = executor.resolve(make_sweep(request))
    if plot is not None:
        from equivbench.report.figures import require_drawable

        require_drawable(plot)
    if request.dry_run:
        _print_points(plan, json)
        return
    result = executor.run(plan, progress_display(quiet))
    again = f"go on with: {request.command()}"
    found = _gather([kept.record for kept in result.kept])
    _print_curves(found, result, json)
    if plot is not None and found:
        _plot(found[0], plot)
    if result.interrupted:
        raise InterruptedRunError(f"interrupted; finished points are kept, {again}")
    _raise_failures(result, found, again)


def _gather(records: Sequence[RunRecord]) -> list[Sweep]:
    from equivbench.registry import TASKS
    from equivbench.report.sweeps import gather_sweeps

    return gather_sweeps(
        records, {name: entry.value.board_unit for name, entry in TASKS.entries().items()}
    )


def _print_points(plan: RunPlan, json: bool) -> None:
    from equivbench.execution.estimates import estimated_seconds
    from equivbench.execution.state import finished_record
    from equivbench.report.table import Column, Table

    points = [
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
    seconds, machine = estimated_seconds(plan), plan.machine
    if json:
        print_json(
            {
                "points": points,
                "out": plan.request.out,
                "device": None if machine is None else machine.device,
                "estimated_seconds": seconds,
            }
        )
        return
    names = ("axis", "value", "arm", "seed", "budget")
    rows = [
        (
            job.labels["sweep"],
            job.labels["value"],
            job.arm,
            job.seed,
            job.budget,
            "finished" if point["finished"] else "to do",
        )
        for job, point in zip(plan.jobs, points, strict=True)
    ]
    about = "" if seconds is None else f", about {seconds / 60:.0f} min if none were finished"
    where = "" if machine is None else f" on {machine.device} with {machine.threads} threads"
    note = f"{len(rows)} runs{where}{about}; records go to {plan.request.out}"
    columns = [*(Column(name, key=True) for name in names), Column("state")]
    print_table(Table("", columns, rows, notes=[note]))


def _print_curves(found: Sequence[Sweep], result: RunResult, json: bool) -> None:
    from equivbench.report.sweeps import sweep_table

    if json:
        paths = [{"path": str(kept.path), "reused": kept.reused} for kept in result.kept]
        failures = [*result.failures, *result.diverged]
        print_json(
            {
                "sweeps": found,
                "records": paths,
                "failures": failures,
                "interrupted": result.interrupted,
            }
        )
        return
    for each in found:
        print_table(sweep_table(each))


def _plot(found: Sweep, path: Path) -> None:
    from equivbench.execution.sweep import AXES
    from equivbench.report.figures import draw_sweep, save_figure

    if any(point.finished for point in found.points):
        figure = draw_sweep(found, title=AXES[found.axis].title)
        message("note", f"drew {save_figure(figure, path)}")


def _raise_failures(result: RunResult, found: Sequence[Sweep], again: str) -> None:
    """A run that failed is an error; one that diverged is a finding, unless an arm did so at every
    point."""
    for text in result.diverged:
        message("note", text)
    lost = [
        arm
        for each in found
        for arm in each.arms
        if all(point.diverged == point.seeds for point in each.of(arm))
    ]
    errors = [f"{text}; {again}" for text in result.failures]
    errors += [f"the {arm} arm diverged at every point; lower its learning rate" for arm in lost]
    for text in errors[:-1]:
        message("error", text)
    if errors:
        raise FailedError(errors[-1])
