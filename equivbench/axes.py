"""What a sweep varies: its axes, what a value of each changes in a run, and the request of a sweep.
Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

from equivbench.errors import UsageError, unknown_name
from equivbench.request import RunRequest, option
from equivbench.specs import OPTIMIZERS, ArmSpec

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

    pairs: tuple[str, ...] = option(
        (), "The pair, as task/pair.", flag=None, metavar="PAIR", completes="pairs"
    )
    over: str = option(
        MISSING,
        "The axis: size, data, learning-rate, optimizer, augmentation or symmetry-loss.",
        completes=("size", "data", "learning-rate", "optimizer", "augmentation", "symmetry-loss"),
    )
    values: tuple[str, ...] = option(
        MISSING,
        "The points of the axis, such as 0.25,0.5,1. Optimizers may bring a learning rate of their "
        "own: adamw,sgd:0.1.",
        read=lambda text: tuple(text.split(",")),
        write=",".join,
    )
    out: str = option("sweeps", "The folder of the sweep's records.", identity=True, recorded=False)


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


def _with_symmetry_loss(value: str, arm: ArmSpec, preset: str) -> dict[str, Any]:
    if arm.presets[preset].recipe.augmentation == "none":
        return {}
    return {"recipe": {"symmetry_loss": float(value)}}


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
    "symmetry-loss": Axis(
        title="weight of the symmetry loss",
        read=_number("weight of a symmetry loss", "0 or more", lambda value: value >= 0),
        change=_with_symmetry_loss,
        augmenting_only=True,
    ),
}
"""``optimizer`` values may bring a learning rate of their own: ``sgd:0.1``; without, each arm keeps
its recipe's."""
