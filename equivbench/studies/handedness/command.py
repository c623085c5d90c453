"""``equivbench analyze handedness``: a model's loss on mirror images against that on the samples as
they are."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from equivbench.studies.handedness.measuring import Handedness, MirrorComparison


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("handedness")(handedness)


def handedness(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A run's record, id or checkpoint, or as `measure` takes it."
        ),
    ],
    task: Annotated[str | None, typer.Option(help="The task; a run knows its own.")] = None,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    rotations: Annotated[int, typer.Option(help="Draws per sample, alike on both sides.")] = 2,
    samples: Annotated[
        int | None, typer.Option(help="How many, spread over all groups (default: all).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of rotations and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge MODEL on samples and on their mirror images, under the same noise and rotations.

    A network of O(3) has the same loss on both; one that has learned the hand of its data has a
    higher loss on mirror images.
    """
    from equivbench.cli.measure import task_of
    from equivbench.cli.output import message, print_json, print_table
    from equivbench.errors import UsageError
    from equivbench.execution.machine import resolve_device
    from equivbench.execution.models import find_model
    from equivbench.measure.equivariance import default_dataset
    from equivbench.registry import TASKS, resolve
    from equivbench.studies.handedness.measuring import handedness as compare

    if rotations < 2:
        raise UsageError(f"--rotations must be at least 2, not {rotations}")
    if task is not None:
        TASKS.get(task)
    where = resolve_device(device)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(model)
        name = task_of(found, model, task)
        judged = resolve(TASKS.get(name).factory)()
        dataset = default_dataset(name) if found.dataset is None else found.dataset
        requires = (
            found.requires if found.requires is not None else getattr(found.model, "requires", {})
        )
        result = compare(
            found.model.to(where),
            judged,
            dataset.load().split(split),
            requires=requires,
            seed=seed,
            device=where,
            samples=samples,
            rotations=rotations,
            precision=found.precision or "float32",
        )
    if found.untrained:
        message("note", f"{model} has random weights: it has learned no hand")
    if as_json:
        settings = {
            "model": found.name,
            "task": name,
            "split": split,
            "samples": samples,
            "rotations": rotations,
            "seed": seed,
        }
        by = {label: _as_object(part) for label, part in result.by.items()}
        verdict = {
            "objective_ratio": result.objective_ratio,
            "told_apart": list(result.told_apart()),
        }
        print_json({**settings, **_as_object(result), **verdict, "by": by})
        return
    unit = judged.board_unit
    print_table(
        ["rows", f"native {unit}", "mirrored", "difference", "mirrored / native", "95% interval"],
        [_row(label, part) for label, part in {"all": result, **result.by}.items()],
    )
    typer.echo(_verdict(result))


def _row(label: str, part: MirrorComparison) -> list[str]:
    low, high = part.interval()
    interval = f"{low:.4g} to {high:.4g}" if math.isfinite(low) and math.isfinite(high) else "-"
    numbers = (part.native.total, part.mirrored.total, part.difference, part.ratio)
    return [label, *(f"{number:.4g}" for number in numbers), interval]


def _as_object(part: MirrorComparison) -> dict[str, Any]:
    low, high = part.interval()
    numbers = {
        "native": part.native.total,
        "mirrored": part.mirrored.total,
        "difference": part.difference,
        "ratio": part.ratio,
    }
    known = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
    return {
        **known,
        "interval": [low, high] if math.isfinite(low) and math.isfinite(high) else None,
    }


def _verdict(result: Handedness) -> str:
    objective = f"training objective mirrored / native {result.objective_ratio:.4g}"
    told = result.told_apart()
    if not told:
        return f"{objective}; the losses on both hands do not differ beyond their intervals (95% for all rows together)"
    higher = all(part.ratio > 1 for part in told.values())
    return (
        f"{objective}; the loss on mirror images is {'higher' if higher else 'NOT HIGHER'} in {', '.join(told)} "
        "(95% for all rows together): the model tells the hands apart"
    )
