"""``equivbench measure``: the symmetry decomposition of a model's error."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from equivbench.execution.models import FoundModel
    from equivbench.measure.measurement import Measurement, Part


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("measure")(measure)


def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's record, id or checkpoint, package.module:attribute (a module, or a callable that returns one), "
            "or a registered name.",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="The task; a run knows its own.")] = None,
    rotations: Annotated[
        int, typer.Option(help="Draws per sample; 24 with octahedral is the whole group, exactly.")
    ] = 4,
    group: Annotated[str, typer.Option(help="so3 or octahedral.")] = "so3",
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    seed: Annotated[int, typer.Option(help="Seed of rotations and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How much of a model's error comes from breaking the symmetry, with an interval and the
    numerical floor."""
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import UsageError
    from equivbench.execution.machine import resolve_device
    from equivbench.execution.models import find_model
    from equivbench.measure.equivariance import measure_equivariance
    from equivbench.registry import TASKS, resolve

    if group not in ("so3", "octahedral"):
        raise UsageError(f"--group {group!r} is not one of so3, octahedral")
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
            group="octahedral" if group == "octahedral" else "so3",
            seed=seed,
            device=where,
            requires=found.requires,
            precision=found.precision,
            data=None if found.dataset is None else found.dataset.load(),
        )
    if found.untrained:
        message("note", f"{model} has random weights: this measures its symmetry, not its accuracy")
    if as_json:
        print_json(_as_object(found, name, split, rotations, measured))
        return
    unit = resolve(TASKS.get(name).factory)().board_unit
    print_table(
        ["rows", f"total {unit}", "twirled", "equivariance", "share", "95% interval", "floor"],
        [_row(label, part) for label, part in {"all": measured, **measured.by}.items()],
    )
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


def _as_object(
    found: FoundModel, task: str, split: str, rotations: int, measured: Measurement
) -> dict[str, Any]:
    """The measurement as in a run record, with intervals and the verdict."""
    import msgspec

    test = msgspec.to_builtins(measured.to_record())
    for label, part in measured.by.items():
        test["by"][label] |= _extra(part)
    return {
        "model": found.name,
        "task": task,
        "split": split,
        "rotations": rotations,
        "symmetry": found.symmetry,
        "symmetry_verified": _verified(found, measured),
        "at_floor": _at_floor(measured),
        **test,
        **_extra(measured),
    }


def _extra(part: Part) -> dict[str, Any]:
    interval = part.interval()
    floor = part.floor if part.floor is not None and math.isfinite(part.floor) else None
    return {
        "interval": list(interval) if all(map(math.isfinite, interval)) else None,
        "floor": floor,
    }


def _row(label: str, part: Part) -> list[str]:
    low, high = part.interval()
    interval = f"{low:.3g} to {high:.3g}" if math.isfinite(low) and math.isfinite(high) else "-"
    numbers = (part.total, part.twirled, part.equivariance, part.share)
    floor = "-" if part.floor is None else f"{part.floor:.1e}"
    return [label, *(f"{number:.4g}" for number in numbers), interval, floor]


def _at_floor(measured: Measurement) -> bool:
    from equivbench.measure.verification import is_verified

    return is_verified(measured)


def _verified(found: FoundModel, measured: Measurement) -> bool | None:
    """Whether the declared symmetry holds; None where none is declared, or the group measured is
    larger than it."""
    from equivbench.measure.verification import covers

    if found.symmetry is None or not covers(found.symmetry, measured.group):
        return None
    return _at_floor(measured)


def _verdict(found: FoundModel, measured: Measurement) -> str:
    verified = _verified(found, measured)
    if verified is None:
        return f"the share is {'at' if _at_floor(measured) else 'above'} its numerical floor for {measured.group}"
    return f"the declared symmetry {found.symmetry} {'holds' if verified else 'DOES NOT HOLD'} under {measured.group}"
