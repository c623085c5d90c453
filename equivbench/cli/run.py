"""``equivbench run``: trains both arms of each pair under one equal budget and writes a record per
arm and seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from equivbench.cli.options import Json, Quiet, takes
from equivbench.cli.output import message, print_json, print_table, print_text
from equivbench.counted import counted
from equivbench.errors import FailedError, InterruptedRunError
from equivbench.report.table import Column, Table
from equivbench.request import RunRequest

if TYPE_CHECKING:
    from equivbench.execution.executors import RunResult
    from equivbench.execution.plan import RunPlan
    from equivbench.training.job import Job

_RECORD_FIELDS = ("run_id", "task", "pair", "arm", "seed", "preset", "status", "reason")


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
    for text in _fewer_rungs(plan):
        message("note", text)
    if request.dry_run:
        script = executor.script(plan)
        _print_plan(plan, json, script)
        return
    if not (quiet or request.resume) and request.executor == "local":
        message("note", _ahead(plan))
    result = executor.run(plan, progress_display(quiet))
    _print_result(result, request, json)
    again = f"go on with: {request.resuming().command()}"
    if result.interrupted:
        # What failed before or would not stop.
        for text in result.failures:
            message("error", text)
        raise InterruptedRunError(f"interrupted; the state is saved, {again}")
    raise_last([*result.diverged, *(f"{text}; {again}" for text in result.failures)])


def _ahead(plan: RunPlan) -> str:
    """What begins, how long it may take by what the pairs declare, and where to look meanwhile."""
    from equivbench.environment import busy_text
    from equivbench.execution.estimates import PastRuns, wall_seconds

    each = PastRuns(plan).of_contests(plan)
    wall = wall_seconds(each, _at_once(plan), plan.request.devices_per_arm)
    about = "" if wall is None else f", about {max(1.0, wall / 60):.0f} min"
    busy = busy_text()
    other = "" if busy is None else f"; {busy}, and a run that has to wait long has no verdict"
    where = f"`equivbench status {plan.request.out}` says how far they are"
    return f"{_held_by(plan)}{about}; {where}{other}"


def _held_by(plan: RunPlan) -> str:
    runs, contests = counted(len(plan.jobs), "run"), counted(len(plan.contests), "contest")
    return f"{runs} in {contests}"


def _at_once(plan: RunPlan) -> int:
    """How many contests of ``plan`` run side by side."""
    return max(1, min(plan.request.workers or len(plan.machines), len(plan.contests)))


def _fewer_rungs(plan: RunPlan) -> list[str]:
    """What to say where a budget has fewer smaller ones than were asked for."""
    asked = plan.request.rungs or 0
    from equivbench.execution.plan import unique

    return unique(
        f"--rungs {asked}: a budget of {each.budget.text} can be halved to whole "
        f"{each.budget.kind} only {counted(len(each.rungs), 'time')}, so {each.pair} has "
        f"{len(each.rungs)}"
        for each in plan.contests
        if len(each.rungs) < asked
    )


def _print_plan(plan: RunPlan, json: bool, script: str = "") -> None:
    from equivbench.execution.estimates import PastRuns, records_in, wall_seconds

    device, threads, where = machine_of(plan)
    past = PastRuns(plan, records_in(plan.request.out))
    each = past.of_contests(plan)
    seconds = wall_seconds(each)
    at_once = _at_once(plan)
    wall = wall_seconds(each, at_once, plan.request.devices_per_arm)
    units = [
        {
            "unit": contest.jobs[0].unit,
            "pair": contest.pair,
            "seed": contest.seed,
            "arms": [job.arm for job in contest.jobs],
            "device_hours": None if one is None else one / 3600,
        }
        for contest, one in zip(plan.contests, each, strict=True)
    ]
    jobs = [(contest, job) for contest in plan.contests for job in contest.jobs]
    rows: list[dict[str, Any]] = [
        {
            "pair": job.pair,
            "arm": job.arm,
            "seed": job.seed,
            "preset": job.request.preset,
            "budget": job.budget,
            "dataset": contest.dataset,
            "run_id": job.run_id,
            "rungs": [rung.text for rung in contest.rungs],
            "extend": job.request.extend,
            "resumes": job.request.resume,
            "evaluation": _evaluation(job, past.declared(job.pair, "step")),
        }
        for contest, job in jobs
    ]
    if json:
        about = {"device": device, "threads": threads, "out": plan.request.out}
        takes = {
            "estimated_seconds": seconds,
            "device_hours": None if seconds is None else seconds / 3600,
            "workers": at_once,
            "wall_seconds": wall,
        }
        print_json({"jobs": rows, "units": units, **about, **takes, "script": script or None})
        return
    names = ("pair", "arm", "seed", "preset", "budget", "dataset")
    columns = [Column(name, heading="data set" * (name == "dataset"), key=True) for name in names]
    columns.append(Column("options", key=True, show="filled"))
    cells = []
    for row, (_, job) in zip(rows, jobs, strict=True):
        options = [f"{name} {value}" for name, value in job.variant.items()]
        if job.request.rungs is not None:
            options.append(f"rungs {' '.join(row['rungs']) or 'none'}")
        if job.request.extend is not None:
            options.append(f"the arm behind goes on to x{job.request.extend:g}")
        cells.append([*(row[name] for name in names), ", ".join(options)])
    print_table(Table("", columns, cells, list(_evaluation_notes(rows))))
    about_time = "how long they take depends on the machine"
    if seconds is not None and wall is not None:
        about_time = f"about {wall / 60:.0f} min"
        about_time += f" with {at_once} contests at once" if at_once > 1 else " in all"
        about_time += f" ({seconds / 3600:.2g} device-hours, evaluations and starts included)"
    print_text(f"{_held_by(plan)}{where}, {about_time}; records go to {plan.request.out}")
    if script:
        typer.echo(f"\n{script}")


def _evaluation(job: Job, step_seconds: float | None) -> dict[str, float | None] | None:
    """What the evaluations of a run take; None where nobody knows how large its test set is."""
    from equivbench.execution.evaluation_cost import known_cost
    from equivbench.registry import PAIRS

    pair, preset = PAIRS.get(job.pair), job.request.preset
    cost = known_cost(pair, job.arm, preset, job.budget, step_seconds, job.request.dataset)
    if cost is None:
        return None
    seconds = None if step_seconds is None else cost.steps * step_seconds
    return {"passes": cost.passes, "steps": cost.steps, "seconds": seconds}


def _evaluation_notes(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The same in words, once for each arm of each pair."""
    for row in {(row["pair"], row["arm"]): row for row in rows}.values():
        found = row["evaluation"]
        takes = "the whole test set, however large that is"
        if found is not None:
            takes = f"as long as about {found['steps']:.0f} training steps"
            if found["seconds"] is not None:
                takes += f", {found['seconds']:.0f} s"
        yield f"evaluations of {row['pair']} {row['arm']}, off the budget: {takes}"


def estimate(plan: RunPlan) -> tuple[float | None, str | None, int | None, str]:
    """How many seconds a plan takes, and its device and threads, as values and in words."""
    from equivbench.execution.estimates import estimated_seconds

    return estimated_seconds(plan), *machine_of(plan)


def machine_of(plan: RunPlan) -> tuple[str | None, int | None, str]:
    """The device and the threads of a plan, as values and in words."""
    machine = plan.machine
    if machine is None:
        return None, None, ""
    devices = [name for each in plan.machines for name in each.names]
    names = ", ".join(devices)
    threads = counted(machine.threads, "thread") + " each" * (len(devices) > 1)
    return machine.device, machine.threads, f" on {names} with {threads}"


def _print_result(result: RunResult, request: RunRequest, json: bool) -> None:
    from equivbench.cli.stored import print_paragraphs
    from equivbench.gap.efficiency import efficiency_gap
    from equivbench.records.disturbed import disturbance
    from equivbench.records.schema import ENDED
    from equivbench.report.arms import summary_tables
    from equivbench.report.gaps import beyond_gaps

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
    ended = [record for record in records if record.status in ENDED]
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
        for line in beyond_gaps(ended, request):
            print_text(line)
        for kept in result.kept:
            typer.echo(f"{'kept' if kept.reused else 'wrote'} {kept.path}")


def raise_last(errors: Sequence[str]) -> None:
    """Say every failure; the last one ends the command."""
    for text in errors[:-1]:
        message("error", text)
    if errors:
        raise FailedError(errors[-1])
