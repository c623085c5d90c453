"""``equivbench analyze handedness``: a model's loss on mirror images against that on the samples as
they are."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import MISSING, asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from equivbench.cli.options import Json, takes
from equivbench.cli.output import message, print_json, print_table
from equivbench.errors import UsageError
from equivbench.gap.intervals import Quantity
from equivbench.report.table import Column, Table
from equivbench.request import Request, option

if TYPE_CHECKING:
    from equivbench.studies.handedness.measuring import Handedness, MirrorComparison


@dataclass(frozen=True, kw_only=True)
class HandednessRequest(Request):
    """What ``equivbench analyze handedness`` is asked for."""

    program: ClassVar[tuple[str, ...]] = ("analyze", "handedness")

    model: str = option(
        MISSING,
        "The record, id or checkpoint of a run, or a model as `measure` takes it.",
        flag=None,
        metavar="MODEL",
        completes="models",
    )
    task: str | None = option(None, "The task of the model. A run knows its own.")
    split: str = option("test", "The split that samples are taken from: test, validation or train.")
    rotations: int = option(2, "Number of random rotations of each sample, the same on both sides.")
    samples: int | None = option(
        None, "Number of samples, spread over all groups. The default is all of them."
    )
    seed: int = option(0, "The seed of rotations and noise.")
    device: str = option("auto", "Where to compute: auto, cpu, cuda or cuda:N.", recorded=False)


@takes(HandednessRequest)
def handedness(request: HandednessRequest, json: Json = False) -> None:
    """Compare the loss of MODEL on samples with that on their mirror images, under the same noise
    and rotations.

    A network of O(3) has the same loss on both; one that has learned the hand of its data has a
    higher loss on mirror images.
    """
    from equivbench.registry import TASKS

    if request.rotations < 2:
        raise UsageError(f"--rotations must be at least 2, not {request.rotations}")
    if request.task is not None:
        TASKS.get(request.task)
    # Someone's model may print as it is built or called; stdout is for the result.
    with contextlib.redirect_stdout(sys.stderr):
        name, task, untrained, result = _compared(request)
    if untrained:
        message("note", f"{request.model} has random weights: it has learned no hand")
    if json:
        asked = {key: value for key, value in asdict(request).items() if key != "device"}
        found = {
            "model": name,
            "task": task,
            **_as_object(result),
            "told_apart": list(result.told_apart()),
            "by": {label: _as_object(part) for label, part in result.by.items()},
        }
        print_json(asked | found)
        return
    print_table(handedness_table(result, TASKS.get(task).board_unit))


def handedness_table(result: Handedness, unit: str) -> Table:
    """The loss on both hands, over all samples and by stratum; the note is the verdict."""
    columns = (
        Column("rows", key=True),
        Column("native", kind="number", unit=unit, digits=4),
        Column("mirrored", kind="number", digits=4),
        Column("difference", kind="number", digits=4),
        Column("ratio", kind="number", digits=4, heading="mirrored / native (95% interval)"),
    )
    rows = [
        (label, part.native.total, part.mirrored.total, part.difference, _ratio(part))
        for label, part in {"all": result, **result.by}.items()
    ]
    return Table("", columns, rows, [_verdict(result)])


def _compared(request: HandednessRequest) -> tuple[str, str, bool, Handedness]:
    """The model's name, its task, whether its weights are random, and what was measured."""
    from equivbench.cli.measure import task_of
    from equivbench.execution.loading import find_model
    from equivbench.execution.plan import resolve_device
    from equivbench.measure.equivariance import default_dataset
    from equivbench.registry import TASKS, resolve
    from equivbench.studies.handedness.measuring import handedness as compare

    device = resolve_device(request.device)
    found = find_model(request.model)
    task = task_of(found, request.model, request.task)
    dataset = default_dataset(task) if found.dataset is None else found.dataset
    requires = found.requires
    if requires is None:
        requires = getattr(found.model, "requires", {})
    result = compare(
        found.model.to(device),
        resolve(TASKS.get(task).factory)(),
        dataset.load().split(request.split),
        requires=requires,
        seed=request.seed,
        device=device,
        samples=request.samples,
        rotations=request.rotations,
        precision=found.precision or "float32",
    )
    return found.name, task, found.untrained, result


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _ratio(part: MirrorComparison) -> Quantity:
    low, high = map(_known, part.interval())
    decided = low is not None and high is not None
    return Quantity(_known(part.ratio), low if decided else None, high if decided else None)


def _as_object(part: MirrorComparison) -> dict[str, Any]:
    ratio = _ratio(part)
    return {
        "native": _known(part.native.total),
        "mirrored": _known(part.mirrored.total),
        "difference": _known(part.difference),
        "ratio": ratio.value,
        "interval": None if ratio.low is None else [ratio.low, ratio.high],
    }


def _verdict(result: Handedness) -> str:
    told = result.told_apart()
    if not told:
        return (
            "the losses on both hands do not differ beyond their intervals (95% for all rows "
            "together)"
        )
    higher = "higher" if all(part.ratio > 1 for part in told.values()) else "NOT HIGHER"
    return (
        f"the loss on mirror images is {higher} in {', '.join(told)} "
        "(95% for all rows together): the model tells the hands apart"
    )
