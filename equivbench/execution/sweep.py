"""A sweep: one pair at several points of one axis. Each point is an ordinary run that says which
point it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from equivbench.errors import UsageError, unknown_name
from equivbench.execution.plan import RunPlan, make_plan, unique
from equivbench.registry import PAIRS
from equivbench.request import RunRequest, option, options_of
from equivbench.specs import OPTIMIZERS, ArmSpec
from equivbench.training.job import Job

_MAX_VALUES = 100
_UNTUNED: Mapping[str, Any] = {"tuned_at": None, "tuning_log_sha256": None}
"""A rate that the sweep sets was not chosen by tuning."""


@dataclass(frozen=True)
class Axis:
    """What a sweep varies: ``read`` takes a value as typed to its canonical text, ``change`` gives
    the job's fields at it."""

    title: str
    """The label of its axis in a figure, with its unit."""
    read: Callable[[str], str]
    change: Callable[[str, ArmSpec, str], dict[str, Any]]
    """(value, arm, preset) to the fields of :class:`equivbench.training.job.Job` that differ from
    the pair's own."""
    augmenting_only: bool = False
    """Whether the arms that do not augment are the same at every point, so that one point is enough
    for them."""


@dataclass(frozen=True, kw_only=True)
class SweepRequest(RunRequest):
    """What ``equivbench analyze sweep`` is asked for: a run of one pair at several values of an
    axis."""

    program: ClassVar[tuple[str, ...]] = ("analyze", "sweep")

    pairs: tuple[str, ...] = option((), "The pair, as task/pair.", flag=None, metavar="PAIR")
    over: str = option(MISSING, "The axis: size, data, learning-rate, optimizer or augmentation.")
    values: tuple[str, ...] = option(
        MISSING,
        "The points of the axis, such as 0.25,0.5,1. Optimizers may bring a learning rate of their "
        "own: adamw,sgd:0.1.",
        read=lambda text: tuple(text.split(",")),
        write=",".join,
    )
    out: str = option("sweeps", "The folder of the sweep's records.", identity=True, recorded=False)


def make_sweep(request: SweepRequest, now: datetime | None = None) -> RunPlan:
    """The contests of every seed at every point; a point whose runs are finished is not repeated
    when it is run.

    Raises ``UsageError`` for an axis or a value that makes no sense, and for whatever an ordinary
    run refuses.
    """
    if request.over not in AXES:
        raise unknown_name("axis", request.over, AXES)
    if len(request.pairs) != 1:
        raise UsageError("a sweep is over one pair; name it, such as forcefield/vector")
    axis = AXES[request.over]
    values = unique(axis.read(value.strip()) for value in request.values if value.strip())
    if not 1 <= len(values) <= _MAX_VALUES:
        raise UsageError(
            f"a sweep takes 1 to {_MAX_VALUES} values, not {len(values)}; "
            "write them as --values 0.25,0.5,1"
        )
    # Each point goes on with its own earlier run. That is no option of a sweep, so its command does
    # not say so.
    request = replace(request, values=tuple(values))
    plan = make_plan(request, now)
    if axis.augmenting_only and not any(map(_augments, plan.jobs)):
        raise UsageError(
            f"no arm of {request.pairs[0]} that takes part augments, "
            "so there is no fraction to sweep over"
        )
    contests = []
    for contest in plan.contests:
        for value in values:
            everybody = value == values[0] or not axis.augmenting_only
            taking_part = [job for job in contest.jobs if everybody or _augments(job)]
            if taking_part:
                jobs = tuple(_job(job, axis, value, request) for job in taking_part)
                contests.append(replace(contest, jobs=jobs))
    return replace(plan, contests=tuple(contests))


def _job(job: Job, axis: Axis, value: str, request: SweepRequest) -> Job:
    head, _, time = job.run_id.rpartition("-")
    arm = PAIRS.get(job.pair).arm(job.arm)
    shared = {name: getattr(request, name) for name in options_of(RunRequest) if name != "resume"}
    return msgspec.structs.replace(
        job,
        request=RunRequest(**shared, resume=True),
        run_id=f"{head}-{request.over}-{value.replace(':', '-')}-{time}",
        labels={"sweep": request.over, "value": value},
        **axis.change(value, arm, request.preset),
    )


def _augments(job: Job) -> bool:
    arm = PAIRS.get(job.pair).arm(job.arm)
    return arm.presets[job.request.preset].recipe.augmentation != "none"


def _number(what: str, allowed: str, is_allowed: Callable[[float], bool]) -> Callable[[str], str]:
    """A reader of numbers; equal numbers have one text, and the text is exactly the number that is
    used."""

    def read(text: str) -> str:
        try:
            value = float(text)
        except ValueError:
            raise UsageError(
                f"cannot read the {what} {text!r}; write a number such as 0.5"
            ) from None
        if not (math.isfinite(value) and is_allowed(value)):
            raise UsageError(f"a {what} must be {allowed}, not {text}")
        return f"{value:.6g}"

    return read


_rate = _number("learning rate", "above 0 and at most 1000", lambda value: 0 < value <= 1000)


def _optimizer(text: str) -> str:
    name, colon, rate = text.partition(":")
    if name not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return f"{name}:{_rate(rate)}" if colon else name


def _with_optimizer(value: str, arm: ArmSpec, preset: str) -> dict[str, Any]:
    name, _, rate = value.partition(":")
    recipe: dict[str, Any] = {"optimizer": name, **_UNTUNED}
    return {"recipe": {**recipe, "learning_rate": float(rate)} if rate else recipe}


AXES: Mapping[str, Axis] = {
    "size": Axis(
        title="factor on every width",
        read=_number("size factor", "above 0 and at most 64", lambda value: 0 < value <= 64),
        change=lambda value, arm, preset: {"config": arm.resized(preset, float(value))},
    ),
    "data": Axis(
        title="fraction of the training groups",
        read=_number("data fraction", "above 0 and at most 1", lambda value: 0 < value <= 1),
        change=lambda value, arm, preset: {"fraction": float(value)},
    ),
    "learning-rate": Axis(
        title="learning rate",
        read=_rate,
        change=lambda value, arm, preset: {"recipe": {"learning_rate": float(value), **_UNTUNED}},
    ),
    "optimizer": Axis(title="optimizer", read=_optimizer, change=_with_optimizer),
    "augmentation": Axis(
        title="fraction of samples rotated",
        read=_number("augmented fraction", "between 0 and 1", lambda value: 0 <= value <= 1),
        change=lambda value, arm, preset: {"recipe": {"augmentation_fraction": float(value)}},
        augmenting_only=True,
    ),
}
"""``optimizer`` values may bring a learning rate of their own: ``sgd:0.1``; without, each arm keeps
its recipe's."""
