"""``equivbench analyze sweep``: a pair at several points of one axis, as resumable runs and as
curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.axes import AXES, SweepRequest
from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.cli.run import estimate, raise_last
from equivbench.counted import counted
from equivbench.errors import InterruptedRunError
from equivbench.execution.sweep import make_sweep
from equivbench.registry import board_units
from equivbench.report.table import Column, Table

if TYPE_CHECKING:
    from equivbench.execution.executors import RunResult
    from equivbench.execution.plan import RunPlan
    from equivbench.report.arms import Sweep

_NOT_OFFERED = ("kernels", "extend", "snapshots", "resume")
"""Options of a run that a sweep does not have: it always goes on with what is there."""


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
    raise_last([*(f"{text}; {again}" for text in result.failures), *diverged])


def _print_points(plan: RunPlan, json: bool) -> None:
    from equivbench.execution.state import finished_record

    seconds, device, _, where = estimate(plan)
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
    note = f"{counted(len(rows), 'run')}{where}{about}; records go to {out}"
    print_table(Table("", columns, rows, notes=[note]))


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
