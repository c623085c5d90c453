"""The landscape around the weights of a run, from the run's checkpoint to the record of it; and the
sets of samples, noise and rotations that it is measured on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from scipy import special
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from equivbench.execution.loading import checkpoint_of, find_snapshots
from equivbench.measure.caller import evaluating
from equivbench.studies.landscape.measuring import (
    DRAWS,
    FIXED,
    PROBES,
    MeasuredLandscape,
    PartShape,
    measure_landscape,
)
from equivbench.studies.landscape.record import Curvature, Landscape, LandscapeRequest
from equivbench.studies.record import Estimate
from equivbench.studies.run import FixedLoss, trained_run
from equivbench.training.arm import load_model
from equivbench.training.checkpoint import SNAPSHOTS

ROUNDING: Mapping[str, float] = {"float32": 1e-9, "float64": 1e-20}
"""By precision, the share of the total below which a part is rounding: the square of the
precision's step (1e-14, 1e-32) and room for signals larger than their error and the many operations
of a network."""
WORK = 3e9
"""Floating-point operations of a pass over the set, by default (one sample may take twice that); an
analysis is some 1,200."""
ROTATIONS = 4
"""By default. Few rotations leave some of the equivariance error's curvature in the sampled twirled
error, with either sign; it falls as 1 / rotations."""
POINTS, FEW_POINTS = 11, 9
_COUNTED_ROTATIONS = 2


@dataclass(frozen=True)
class DrawSize:
    """How much is judged."""

    samples: int
    rotations: int
    points: int
    """Along each axis of the slice."""


@dataclass(frozen=True)
class Draws:
    """Sets that follow from a seed and a number alone."""

    make: Callable[..., FixedLoss]
    """Takes samples, rotations and seed."""
    seed: int

    def draw(self, index: int, size: DrawSize) -> FixedLoss:
        """The set number ``index`` (< ``DRAWS``), in one chunk."""
        seed = self.seed * DRAWS + index
        return self.make(samples=size.samples, rotations=size.rotations, seed=seed)

    def affordable(self, model: nn.Module, most: int) -> DrawSize:
        """What a pass of about :data:`WORK` operations can judge, from those counted for one sample
        of ``most``.

        A network whose single sample costs more is judged under fewer rotations and on a coarser
        slice.
        """
        one = self.draw(0, DrawSize(1, _COUNTED_ROTATIONS, POINTS))
        counter = FlopCounterMode(display=False)
        with evaluating(model), counter:
            one.parts(model, one.chunks[0])
        # A network of element-wise operations alone has none that are counted.
        each = max(counter.get_total_flops(), 1) / _COUNTED_ROTATIONS
        rotations = ROTATIONS if ROTATIONS * each <= 2 * WORK else 2
        samples = int(min(max(1, WORK // (rotations * each)), most))
        return DrawSize(
            samples, rotations, POINTS if samples * rotations * each <= 2 * WORK else FEW_POINTS
        )


def analyse_landscape(request: LandscapeRequest) -> Landscape:
    """Measure the landscape of every part of the error around the weights of a run.

    What the error is of (samples, rotations, points of the slice) is by default chosen from what a
    pass costs (:meth:`Draws.affordable`). Sums over predictions are in float64 whatever the
    precision. Raises ``UsageError`` for names that do not exist and numbers that do not fit,
    ``FailedError`` for a run that is not here, files that cannot be read, and eigenvalues that do
    not converge.
    """
    if request.step is None:
        checkpoint = checkpoint_of(request.run)
    else:
        checkpoint = find_snapshots(request.run).at(request.step)
    with trained_run(checkpoint, request) as trained:
        model = load_model(checkpoint, request.weights)[0]
        model = model.to(trained.device, getattr(torch, request.precision))
        make = functools.partial(trained.losses(model), precision=request.precision)
        draws = Draws(make, request.seed)
        chosen = {name: getattr(request, name) for name in ("samples", "rotations", "points")}
        given = {name: value for name, value in chosen.items() if value is not None}
        size = replace(draws.affordable(model, len(trained.split)), **given)
        measured = measure_landscape(
            model,
            lambda index: draws.draw(index, size),
            layers=request.layers,
            along=request.along,
            points=size.points,
            radius=request.radius,
            eigenvalues=request.eigenvalues,
            seed=request.seed,
            repeat=not request.no_repeat,
            rounding=ROUNDING[request.precision],
        )
        samples = draws.draw(FIXED, size).samples
    # The command names the run by its record, from where a snapshot is found by its step.
    step = trained.step if checkpoint.parent.name == SNAPSHOTS else None
    reasons: dict[str, str] = {}
    return Landscape(
        **trained.described(lambda record: replace(request, run=record, step=step)),
        samples=samples,
        rotations=size.rotations,
        reasons=reasons,
        step=trained.step,
        layers=request.layers,
        parameters=measured.size,
        precision=request.precision,
        along=request.along,
        axes=[axis.tolist() for axis in measured.plane.axes],
        grids={name: grid.tolist() for name, grid in measured.grids.items()},
        parts={
            name: _curvature(name, measured, not request.no_repeat, reasons)
            for name in measured.shapes
        },
    )


def _curvature(
    name: str, measured: MeasuredLandscape, repeat: bool, reasons: dict[str, str]
) -> Curvature:
    """The part as it is kept; why it lacks something goes into ``reasons``."""
    shape = measured.shapes[name]
    fit, spectrum = shape.fit, shape.spectrum
    trace = _trace(shape)
    condition = _condition(shape, trace, measured.size)
    absent = (
        ("effective_condition", condition.value, "the trace is not positive"),
        (
            "in_plane_condition",
            fit.condition,
            "a saddle or flat: a curvature in the plane is not positive",
        ),
        ("quadratic_r2", fit.r2, "the slice is flat to rounding"),
        ("roughness", fit.roughness, "the quadratic leaves nothing but rounding"),
    )
    missing = {field: reason for field, value, reason in absent if value is None}
    if not repeat:
        missing |= dict.fromkeys(("fresh_r2", "repeated"), "without a repeat")
    if spectrum is None:
        unmeasured = ("residual", "trace", "effective_condition", "fresh_r2", "repeated")
        nothing = "this part is the rounding of the model's arithmetic"
        missing |= dict.fromkeys(unmeasured, nothing)
    reasons |= {f"parts.{name}.{field}": reason for field, reason in missing.items()}
    largest_again, smallest_again = shape.again or ((), ())
    return Curvature(
        value=shape.value,
        largest=[*map(float, spectrum.largest)] if spectrum else [],
        smallest=[*map(float, spectrum.smallest)] if spectrum else [],
        largest_again=[*map(float, largest_again)],
        smallest_again=[*map(float, smallest_again)],
        residual=spectrum.residual if spectrum else None,
        products=shape.products,
        trace=trace,
        effective_condition=condition,
        in_plane=list(fit.curvatures),
        in_plane_condition=fit.condition,
        quadratic_r2=fit.r2,
        roughness=fit.roughness,
        fresh_r2=shape.fresh_r2,
        repeated=shape.repeated,
    )


def _trace(shape: PartShape) -> Estimate:
    """The trace with the Student interval over its probes."""
    if shape.trace is None:
        return Estimate(value=None)
    value, error = shape.trace
    half = float(special.stdtrit(PROBES - 1, 0.975)) * error
    return Estimate(value=value, low=value - half, high=value + half)


def _condition(shape: PartShape, trace: Estimate, size: int) -> Estimate:
    """Largest eigenvalue over the mean one: at least 1, as a maximum over a mean."""
    if shape.spectrum is None or not trace.value or trace.value < 0:
        return Estimate(value=None)
    assert trace.low is not None
    assert trace.high is not None
    largest = float(shape.spectrum.largest[0])
    least = largest if shape.again is None else min(float(shape.again[0][0]), largest)
    return Estimate(
        value=max(1.0, largest * size / trace.value),
        low=max(1.0, least * size / trace.high),
        high=max(1.0, largest * size / trace.low) if trace.low > 0 else None,
    )
