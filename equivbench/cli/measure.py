"""``equivbench measure``: the symmetry decomposition of a model's error."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from equivbench.cli.completion import completer
from equivbench.cli.options import Json
from equivbench.cli.output import message, print_json, print_table, print_text
from equivbench.errors import FailedError, UsageError
from equivbench.specs import By, Group, Prediction

if TYPE_CHECKING:
    from equivbench.execution.loading import FoundModel
    from equivbench.measure.file_door import About
    from equivbench.measure.measurement import Measurement, Part


def measure(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A run's record, id or checkpoint, package.module:attribute (a module, or a "
            "callable that returns one), ase:package.module:Calculator, metatomic:FILE, or a "
            "registered name. None with --export or --import.",
            autocompletion=completer("models"),
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task to measure on (default: the one of the run).",
            autocompletion=completer("tasks"),
        ),
    ] = None,
    rotations: Annotated[
        str,
        typer.Option(
            metavar="N|quadrature:DEGREE",
            help="Number of rotations drawn for each sample; 24 with octahedral is the whole "
            "group, whose averages are exact. quadrature:DEGREE is for single structures (with "
            "--samples), and says whether twice the degree agrees.",
        ),
    ] = "4",
    group: Annotated[
        Group,
        typer.Option(
            help="Group that rotations are drawn from; o3 has reflections too, and says how much "
            "of the error is theirs."
        ),
    ] = "so3",
    by: Annotated[
        By,
        typer.Option(
            help="What the error is split by: the task's strata, the size of the target, the "
            "irreps of the prediction, the irreps of the group (how fast the error varies with "
            "the rotation), or the layers of the model (where the error enters and grows)."
        ),
    ] = "stratum",
    of: Annotated[
        str | None,
        typer.Option(
            "--of",
            metavar="OUTPUT",
            help="Output that is judged, such as stress (default: the prediction of the task, such "
            "as forces).",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set to measure on (default: that of the run, or the first of the task).",
            autocompletion=completer("datasets"),
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to measure on: test, validation or train.")
    ] = "test",
    samples: Annotated[
        int | None,
        typer.Option(help="How many samples, spread over all groups of the split (default: all)."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of rotations and noise.")] = 0,
    device: Annotated[str, typer.Option(help="Device to run on: auto, cpu or cuda.")] = "auto",
    export: Annotated[
        Path | None,
        typer.Option(
            help="Write the rotated inputs to this file (.npz, .xyz) for any other program to "
            "predict from.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="Measure the predictions that another program made of exported inputs.",
        ),
    ] = None,
    prediction: Annotated[
        Prediction | None,
        typer.Option(
            "--as",
            help="What a network of another package predicts: its energy (forces are minus the "
            "gradient), or forces.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how much of a model's error comes from breaking the symmetry.

    The share is given with an interval, and beside the floor, the share that rounding alone would
    show. What is said of the symmetry (the declared one, or else that of the group) says why: the
    model must be deterministic, predict something, and differ by no more than falls like rounding
    from float32 to float64.
    """
    from equivbench.environment import computed_in
    from equivbench.execution.loading import find_model
    from equivbench.execution.plan import resolve_device
    from equivbench.measure.equivariance import (
        dataset_named,
        default_dataset,
        measure_equivariance,
    )
    from equivbench.registry import TASKS
    from equivbench.report.measurements import HOLDS, explained_text, measurement_table, remarks
    from equivbench.symmetry.quadrature import quadrature_degree

    elements = _rotations(rotations)
    if sum(each is not None for each in (model, export, predictions)) != 1:
        raise UsageError("give a MODEL, or --export FILE, or --import FILE: one of them")
    if of is not None and model is None:
        raise UsageError("--of is for a MODEL; files hold what the task predicts and nothing else")
    if export is not None:
        from equivbench.measure import file_door

        wanted = file_door.asked(
            task,
            dataset=dataset,
            split=split,
            group=group,
            rotations=elements,
            seed=seed,
            samples=samples,
        )
        _export(export, wanted)
        return
    if predictions is not None:
        if dataset is not None:
            raise UsageError("--dataset is not for --import: a file says what it was made for")
        _import(predictions, by, as_json)
        return
    assert model is not None
    if task is not None:
        TASKS.get(task)
    where = resolve_device(device)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        found = find_model(model, prediction)
        name = task_of(found, model, task)
        own = found.dataset or default_dataset(name)
        data = (own if dataset is None else dataset_named(dataset, name)).load()
        measured = measure_equivariance(
            found.model,
            name,
            split=split,
            rotations=elements,
            group=group,
            by=by,
            samples=samples,
            symmetry=found.symmetry or "none",
            seed=seed,
            device=where,
            requires=found.requires,
            precision=None if found.precision is None else computed_in(found.precision, where),
            data=data,
            of=of,
        )
    numbers = (measured.objective, measured.total, *measured.errors.values())
    if not all(map(math.isfinite, numbers)):
        raise FailedError(
            f"{model} gives numbers that are not finite on the {split} split, so nothing of it can "
            "be measured"
        )
    if found.untrained:
        message("note", f"{model} has random weights: this measures its symmetry, not its accuracy")
    verdict = measured.verdict
    assert verdict is not None  # measured with the floor
    declared = found.symmetry not in (None, "none")
    if as_json:
        asked = {
            "model": found.name,
            "task": name,
            "dataset": data.card.name,
            "of": of,
            "split": split,
            "quadrature": quadrature_degree(elements),
            "samples": samples,
            "split_by": by,
        }
        said = {
            "symmetry": found.symmetry,
            "symmetry_verified": verdict.holds if declared else None,
            "holds": verdict.holds,
            "reason": verdict.reason,
            "at_floor": measured.at_floor,
        }
        print_json({**asked, **said, **_as_object(measured)})
        return
    subject = f"the declared symmetry {found.symmetry}" if declared else f"symmetry under {group}"
    print_text(f"{subject} {HOLDS[verdict.holds]}: {verdict.reason}")
    print_table(measurement_table(measured))
    print_text(explained_text(measured.explained))
    for sentence in remarks(measured):
        print_text(sentence)


def _rotations(text: str) -> int | str:
    from equivbench.symmetry.quadrature import quadrature_degree

    try:
        number = int(text)
    except ValueError:
        quadrature_degree(text)
        return text
    if number < 2:
        raise UsageError(
            f"--rotations must be at least 2, not {number}: one rotation shows no difference"
        )
    return number


def _export(path: Path, wanted: About) -> None:
    from equivbench.measure.file_door import export_inputs

    def tell(calls: int, size: int) -> None:
        message("note", f"writing {calls} calls, about {size / 2**20:.1f} MiB before compression")

    about = export_inputs(path, wanted, tell)
    print_text(
        f"wrote {path}: {about.calls} calls of task {about.task}, SHA-256 of all inputs "
        f"{about.sha256[:12]}...; predictions of them go to `equivbench measure --import FILE`"
    )


def _import(path: Path, by: By, as_json: bool) -> None:
    from equivbench.measure.file_door import measure_predictions
    from equivbench.report.measurements import explained_text, measurement_table
    from equivbench.symmetry.quadrature import quadrature_degree

    about, measured = measure_predictions(path, by)
    if as_json:
        asked = {"model": None, "predictions": path.name, "task": about.task, "split": about.split}
        degree = quadrature_degree(about.rotations)
        print_json({**asked, "quadrature": degree, "split_by": by, **_as_object(measured)})
        return
    print_table(measurement_table(measured))
    print_text(explained_text(measured.explained))
    print_text(
        "no floor and no verdict: predictions of a file cannot be asked again in another precision"
    )


def task_of(found: FoundModel, model: str, task: str | None) -> str:
    """The task that the user named, or the one that the model was made for; they must agree."""
    if found.task is not None and task in (None, found.task):
        return found.task
    if found.task is not None:
        raise UsageError(f"{model} is for task {found.task}, not {task}")
    if task is None:
        raise UsageError(f"say which task {model} is for, with --task")
    return task


def _as_object(measured: Measurement) -> dict[str, Any]:
    """The measurement as in a run record, with intervals."""
    import msgspec

    from equivbench.measure.layers import LayerPart
    from equivbench.report.measurements import remarks

    test: dict[str, Any] = msgspec.to_builtins(measured.to_record())
    parts: list[tuple[dict[str, Any], Part]] = [(test, measured)]
    parts += [(part, measured.by[name]) for name, part in test["by"].items()]
    for name, side in (("proper", measured.proper), ("parity", measured.parity)):
        if side is not None:
            test[name] = msgspec.to_builtins(side.to_part())
            parts.append((test[name], side))
    test["beside"] = {}
    for name, other in measured.beside.items():
        test["beside"][name] = {**msgspec.to_builtins(other.to_part()), "unit": other.unit}
        parts.append((test["beside"][name], other))
    if measured.doubled is not None:
        test["doubled"] = dataclasses.asdict(measured.doubled)
    test["remarks"] = remarks(measured)
    for part, found in parts:
        interval = found.interval()
        part["interval"] = list(interval) if all(map(math.isfinite, interval)) else None
        known = found.floor is not None and math.isfinite(found.floor)
        part["floor"] = found.floor if known else None
        if isinstance(found, LayerPart):
            part |= {"symmetry": found.symmetry, "declared": found.declared}
    return test
