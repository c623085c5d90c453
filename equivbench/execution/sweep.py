"""A sweep: one pair at several points of one axis. Each point is an ordinary run that says which
point it is."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from equivbench.errors import UsageError, unknown_name
from equivbench.execution.plan import Contest, Plan, RunRequest, make_plan, unique
from equivbench.execution.state import identify
from equivbench.registry import PAIRS
from equivbench.specs import OPTIMIZERS, ArmSpec
from equivbench.training.job import Job

FOLDER = "sweeps"
"""Where a sweep's records go unless another folder is named."""
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


@dataclass(frozen=True)
class SweepRequest:
    """What ``equivbench analyze sweep`` was asked for; ``run`` holds what it shares with
    ``equivbench run`` (one pair)."""

    run: RunRequest
    axis: str
    values: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line that asks for the same, and goes on with it after an interruption."""
        where = [] if self.run.out == FOLDER else ["--out", self.run.out]
        return shlex.join([*shlex.split(self.recorded), *where])

    @property
    def recorded(self) -> str:
        """The command line as records keep it: without the folder."""
        shared = shlex.split(self.run.recorded)[3:]  # after "equivbench run PAIR"
        swept = ["--over", self.axis, "--values", ",".join(self.values)]
        return shlex.join(["equivbench", "analyze", "sweep", *self.run.pairs, *swept, *shared])


def make_sweep(request: SweepRequest, now: datetime | None = None) -> Plan:
    """The contests of every seed at every point; a point whose runs are finished is not repeated
    when it is held.

    Raises :class:`UsageError` for an axis or a value that makes no sense, and for whatever an
    ordinary run refuses.
    """
    if request.axis not in AXES:
        raise unknown_name("axis", request.axis, AXES)
    if len(request.run.pairs) != 1:
        raise UsageError("a sweep is over one pair; name it, such as forcefield/vector")
    axis = AXES[request.axis]
    values = unique(axis.read(value.strip()) for value in request.values if value.strip())
    if not 1 <= len(values) <= _MAX_VALUES:
        raise UsageError(
            f"a sweep takes 1 to {_MAX_VALUES} values, not {len(values)}; write them as --values 0.25,0.5,1"
        )
    request = replace(request, values=tuple(values))
    # Each point takes up its own earlier run, never that of the pair as declared.
    plan = make_plan(replace(request.run, resume=False), now)
    contests = [_at(contest, axis, value, request) for contest in plan.contests for value in values]
    if axis.augmenting_only and not any(
        _augments(job) for contest in plan.contests for job in contest.jobs
    ):
        raise UsageError(
            f"no arm of {request.run.pairs[0]} that takes part augments, so there is no fraction to sweep over"
        )
    return replace(
        plan,
        request=replace(plan.request, resume=True),
        contests=tuple(each for each in contests if each.jobs),
    )


def _at(contest: Contest, axis: Axis, value: str, request: SweepRequest) -> Contest:
    """``contest`` at ``value``."""
    first = value == request.values[0]
    jobs = [
        _job(job, axis, value, request)
        for job in contest.jobs
        if first or not axis.augmenting_only or _augments(job)
    ]
    return replace(contest, jobs=tuple(jobs))


def _job(job: Job, axis: Axis, value: str, request: SweepRequest) -> Job:
    head, _, time = job.run_id.rpartition("-")
    moved = msgspec.structs.replace(
        job,
        run_id=f"{head}-{request.axis}-{value.replace(':', '-')}-{time}",
        command=request.recorded,
        labels={"sweep": request.axis, "value": value},
        resume=True,
        **axis.change(value, PAIRS.get(job.pair).arm(job.arm), job.preset),
    )
    # The name of that run's folder is a digest of all that it is; the rest is how this one departs
    # from it.
    return identify(moved, {"departs_from": Path(job.state_dir).name})


def _augments(job: Job) -> bool:
    return PAIRS.get(job.pair).arm(job.arm).presets[job.preset].recipe.augmentation != "none"


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
