"""``equivbench run``: trains both arms of each pair under one equal budget and writes a record per
arm and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from equivbench.cli.options import (
    Arms,
    Device,
    Forces,
    Preset,
    Quiet,
    SeedCount,
    Seeds,
    Threads,
    parse_seeds,
)
from equivbench.errors import (
    EquivbenchError,
    FailedError,
    InterruptedRunError,
    UsageError,
    unknown_name,
)

if TYPE_CHECKING:
    from equivbench.execution.contest import Result
    from equivbench.execution.plan import Plan
    from equivbench.records.schema import RunRecord

EXECUTORS = ("local", "ray", "slurm")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("run")(run)


def run(
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PAIR]...", help="task/pair; default the quick-start pair."),
    ] = None,
    arm: Arms = None,
    budget: Annotated[
        str | None, typer.Option(help="Per arm: 60s, 5min, 0.5h, 2000steps, 1e6samples.")
    ] = None,
    seeds: Seeds = None,
    n_seeds: SeedCount = None,
    preset: Preset = "small",
    device: Device = "auto",
    threads: Threads = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Backend of the equivariant operations: a name of `list kernels` (default torch)."
        ),
    ] = None,
    forces: Forces = None,
    extend: Annotated[
        float | None, typer.Option(help="Take the arm that is behind on to K times the budget.")
    ] = None,
    out: Annotated[str, typer.Option(help="Results folder.")] = "results",
    snapshots: Annotated[
        bool,
        typer.Option("--snapshots", help="Keep the weights of every evaluation, for `analyze`."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with unfinished runs of the same request.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and train nothing.")
    ] = False,
    executor: Annotated[str, typer.Option(help="local; ray and slurm are planned.")] = "local",
    json: Annotated[bool, typer.Option("--json", help="Print records and gap as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train both arms of each PAIR under one equal budget, in turn, and record every arm and seed.

    Ctrl-C saves the state; the same command with --resume goes on.
    """
    from equivbench.cli.progress import watcher
    from equivbench.execution.plan import RunRequest, make_plan, resume_command

    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if executor != "local":
        raise UsageError(
            f"--executor {executor} is planned and not built yet; use --executor local"
        )
    request = RunRequest(
        pairs=tuple(pairs or ()),
        arms=tuple(arm or ()),
        budget=budget,
        seeds=parse_seeds(seeds, n_seeds),
        preset=preset,
        device=device,
        threads=threads,
        kernels=kernels,
        forces=forces,
        extend=extend,
        out=out,
        snapshots=snapshots,
        resume=resume,
    )
    plan = make_plan(request)
    if dry_run:
        _print_plan(plan, json)
        return
    from equivbench.execution.local import hold

    result = hold(plan, watcher(quiet))
    _print_result(result, json)
    again = f"go on with: {resume_command(request)}"
    if result.interrupted:
        raise InterruptedRunError(f"interrupted; the state is saved, {again}")
    _raise_failures(result, again)


def _print_plan(plan: Plan, json: bool) -> None:
    from rich.console import Console

    from equivbench.cli.output import print_json, print_table
    from equivbench.execution.estimates import estimated_seconds

    seconds = estimated_seconds(plan)
    if json:
        rows = [
            {
                "pair": job.pair,
                "arm": job.arm,
                "seed": job.seed,
                "preset": job.preset,
                "budget": job.budget,
                "dataset": contest.dataset,
            }
            | {"run_id": job.run_id, "resumes": job.resume}
            for contest in plan.contests
            for job in contest.jobs
        ]
        print_json(
            {
                "jobs": rows,
                "device": plan.device,
                "threads": plan.threads,
                "out": plan.request.out,
                "estimated_seconds": seconds,
            }
        )
        return
    options = [
        " ".join(f"{name} {value}" for name, value in job.variant.items()) for job in plan.jobs
    ]
    datasets = [contest.dataset for contest in plan.contests for _ in contest.jobs]
    cells = [
        [job.pair, job.arm, str(job.seed), job.preset, job.budget, dataset, option]
        for job, dataset, option in zip(plan.jobs, datasets, options, strict=True)
    ]
    print_table(
        ["pair", "arm", "seed", "preset", "budget", "data set", "options" if any(options) else ""],
        cells,
    )
    about = (
        "how long they take depends on the machine"
        if seconds is None
        else f"about {seconds / 60:.0f} min in all"
    )
    where = f"{len(cells)} runs on {plan.device} with {plan.threads} threads, {about}; records go to {plan.request.out}"
    Console(highlight=False, soft_wrap=True).print(where)


def _print_result(result: Result, json: bool) -> None:
    from equivbench.gap.efficiency import efficiency_gap

    records = [kept.record for kept in result.kept]
    gaps = efficiency_gap(_comparable(records))
    if json:
        from equivbench.cli.output import print_json

        rows = [
            {
                "path": str(kept.path),
                "checkpoint": None if kept.checkpoint is None else str(kept.checkpoint),
                "reused": kept.reused,
            }
            | {
                name: getattr(kept.record, name)
                for name in ("run_id", "task", "pair", "arm", "seed", "preset", "status", "reason")
            }
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


def _comparable(records: list[RunRecord]) -> list[RunRecord]:
    """Records that can stand in a gap: ended by their budget or by diverging, not stopped by the
    user."""
    return [record for record in records if record.status in ("completed", "diverged")]


def _raise_failures(result: Result, again: str) -> None:
    from equivbench.cli.output import message

    errors: list[EquivbenchError] = [FailedError(text) for text in result.diverged]
    errors += [FailedError(f"{text}; {again}") for text in result.failures]
    for error in errors[:-1]:
        message("error", str(error))
    if errors:
        raise errors[-1]
