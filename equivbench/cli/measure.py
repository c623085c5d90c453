"""``equivbench measure``: the symmetry decomposition of a model's error."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from equivbench.execution.loading import FoundModel
    from equivbench.measure.measurement import Measurement, Part
    from equivbench.report.table import Table

MeasuredGroup = Literal["so3", "octahedral"]


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("measure")(measure)


def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's record, id or checkpoint, package.module:attribute (a module, or a "
            "callable that returns one), or a registered name.",
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Task to measure on (default: the one of the run).")
    ] = None,
    rotations: Annotated[
        int,
        typer.Option(
            help="Number of rotations drawn for each sample; 24 with octahedral is the whole "
            "group, whose averages are exact."
        ),
    ] = 4,
    group: Annotated[
        MeasuredGroup, typer.Option(help="Group that rotations are drawn from.")
    ] = "so3",
    split: Annotated[
        str, typer.Option(help="Split to measure on: test, validation or train.")
    ] = "test",
    seed: Annotated[int, typer.Option(help="Seed of rotations and noise.")] = 0,
    device: Annotated[str, typer.Option(help="Device to run on: auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure how much of a model's error comes from breaking the symmetry.

    The share is given with an interval, and beside the floor, the share that rounding alone would
    show.
    """
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import UsageError
    from equivbench.execution.loading import find_model
    from equivbench.execution.plan import resolve_device
    from equivbench.measure.equivariance import measure_equivariance
    from equivbench.registry import TASKS, resolve

    if rotations < 2:
        raise UsageError(
            f"--rotations must be at least 2, not {rotations}: one rotation shows no difference"
        )
    if task is not None:
        TASKS.get(task)
    where = resolve_device(device)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(model)
        name = task_of(found, model, task)
        measured = measure_equivariance(
            found.model,
            name,
            split=split,
            rotations=rotations,
            group=group,
            seed=seed,
            device=where,
            requires=found.requires,
            precision=found.precision,
            data=None if found.dataset is None else found.dataset.load(),
        )
    if found.untrained:
        message("note", f"{model} has random weights: this measures its symmetry, not its accuracy")
    if as_json:
        asked = {"model": found.name, "task": name, "split": split, "rotations": rotations}
        print_json({**asked, **_as_object(found, measured)})
        return
    print_table(_table(measured, resolve(TASKS.get(name).factory)().board_unit))
    typer.echo(f"explained {measured.explained:.4f} of the baseline; {_verdict(found, measured)}")


def task_of(found: FoundModel, model: str, task: str | None) -> str:
    """The task that the user named, or the one that the model was made for; they must agree."""
    from equivbench.errors import UsageError

    if found.task is not None and task in (None, found.task):
        return found.task
    if found.task is not None:
        raise UsageError(f"{model} is for task {found.task}, not {task}")
    if task is None:
        raise UsageError(f"say which task {model} is for, with --task")
    return task


def _as_object(found: FoundModel, measured: Measurement) -> dict[str, Any]:
    """The measurement as in a run record, with intervals and the verdict."""
    import msgspec

    from equivbench.measure.verification import is_verified

    test = msgspec.to_builtins(measured.to_record())
    for label, part in measured.by.items():
        test["by"][label] |= _interval_and_floor(part)
    return {
        "symmetry": found.symmetry,
        "symmetry_verified": _verified(found, measured),
        "at_floor": is_verified(measured),
        **test,
        **_interval_and_floor(measured),
    }


def _interval_and_floor(part: Part) -> dict[str, Any]:
    interval = part.interval()
    floor = part.floor if part.floor is not None and math.isfinite(part.floor) else None
    return {
        "interval": list(interval) if all(map(math.isfinite, interval)) else None,
        "floor": floor,
    }


def _table(measured: Measurement, unit: str) -> Table:
    """A row for all samples and one for each part of them."""
    from equivbench.report.table import Column, Table

    columns = [
        Column("rows", key=True),
        Column("total", "number", unit=unit, digits=4),
        Column("twirled", "number", digits=4),
        Column("equivariance", "number", digits=4),
        Column("share", "number", heading="share (95% interval)", digits=4),
        Column("floor", "number", digits=2),
    ]
    parts = {"all": measured, **measured.by}
    return Table("", columns, [(label, *_cells(part)) for label, part in parts.items()])


def _cells(part: Part) -> tuple[Any, ...]:
    from equivbench.gap.intervals import Quantity

    low, high = (end if math.isfinite(end) else None for end in part.interval())
    share = Quantity(part.share, low, high) if math.isfinite(part.share) else None
    return part.total, part.twirled, part.equivariance, share, part.floor


def _verified(found: FoundModel, measured: Measurement) -> bool | None:
    """Whether the declared symmetry holds; None where none is declared, or the group measured is
    larger than it."""
    from equivbench.measure.verification import covers, is_verified

    if found.symmetry is None or not covers(found.symmetry, measured.group):
        return None
    return is_verified(measured)


def _verdict(found: FoundModel, measured: Measurement) -> str:
    from equivbench.measure.verification import is_verified

    verified = _verified(found, measured)
    if verified is None:
        where = "at" if is_verified(measured) else "above"
        return f"the share is {where} its numerical floor for {measured.group}"
    verdict = "holds" if verified else "DOES NOT HOLD"
    return f"the declared symmetry {found.symmetry} {verdict} under {measured.group}"
