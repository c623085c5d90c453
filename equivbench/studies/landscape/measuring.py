"""The landscape of each part of an error around trained weights: its Hessian's outer spectrum and
trace, and a slice of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from equivbench.errors import UsageError
from equivbench.studies.fixed_loss import ErrorParts, FixedLoss, still
from equivbench.studies.landscape.hessian import (
    Array,
    Hessian,
    Spectrum,
    Varied,
    choose,
    outer_spectrum,
    probed_trace,
)
from equivbench.studies.landscape.plane import (
    Plane,
    fitting_radius,
    natural_radius,
    plane_of,
    require_finite,
    slice_parts,
)
from equivbench.studies.landscape.quadratic import LEAST_POINTS, Bowl, fit_bowl

PARTS = ("total", "twirled", "equivariance")
MOST_POINTS = 31
"""Along an axis; every point of the grid may need samples of its own."""
PROBES = 8
"""Of the trace: each costs a Hessian-vector product."""
FIXED, REPEAT, FRESH = 0, 1, 2
"""Which set of samples, noise and rotations: the one that everything is measured on, another, and
from there on one a point."""
DRAWS = FRESH + MOST_POINTS**2
"""At most so many are asked for."""


@dataclass(frozen=True)
class Shape:
    """One part of the error at the weights and around them."""

    value: float
    spectrum: Spectrum | None
    """None where the part is rounding alone."""
    again: tuple[Array, Array] | None
    """v^T H v of the same vectors on the other draw: those of the largest eigenvalues, those of the
    smallest."""
    trace: tuple[float, float] | None
    """With its standard error over the probes."""
    products: int
    bowl: Bowl
    fresh_r2: float | None
    repeated: float | None


@dataclass(frozen=True)
class Measured:
    """A slice and the shape of each part."""

    size: int
    """Parameters varied."""
    plane: Plane
    grids: dict[str, Array]
    shapes: dict[str, Shape]


def measure_landscape(
    model: nn.Module,
    draw: Callable[[int], FixedLoss],
    *,
    layers: str = "*",
    along: str = "total",
    points: int = 11,
    radius: float | None = None,
    eigenvalues: int = 1,
    seed: int = 0,
    repeat: bool = True,
    rounding: float = 1e-20,
) -> Measured:
    """Measure the landscape around the weights of ``model``, which are as they were afterwards.

    Parameters
    ----------
    model
        In evaluation mode or not: dropout is off while it is judged.
    draw
        ``draw(i)`` gives the i-th set of samples, noise and rotations, in one chunk, always the
        same for the same i. 0 is what everything is measured on; 1 is the repeat; from 2 on each
        point of the fresh grid takes one.
    layers
        Which parameters are varied (:func:`equivbench.studies.landscape.hessian.choose`).
    along
        The part whose eigenvectors, of the largest and of the smallest eigenvalue, span the slice.
    points
        Along each axis of the slice.
    radius
        Of both axes; None: each as :func:`equivbench.studies.landscape.plane.natural_radius` says
        of the part ``along``, or less (:func:`equivbench.studies.landscape.plane.fitting_radius`).
    eigenvalues
        At each end of each spectrum.
    seed
        Of the first Lanczos vector and the probes.
    repeat
        Whether to measure on other draws too: three slices instead of one.
    rounding
        A part below this fraction of the total is the rounding of the model's arithmetic: it has no
        Hessian to speak of.

    Raises
    ------
    UsageError
        For numbers that do not fit, a pattern that matches nothing, and a slice along a part that
        is rounding alone.
    FailedError
        Where eigenvalues do not converge or an error is not finite.
    """
    if not LEAST_POINTS <= points <= MOST_POINTS:
        raise UsageError(
            f"a slice has {LEAST_POINTS} to {MOST_POINTS} points along each axis, not {points}"
        )
    if radius is not None and not 0 < radius < np.inf:
        raise UsageError(f"the radius of a slice must be a positive number, not {radius}")
    varied = choose(model, layers)
    fixed = draw(FIXED)
    with still(model):
        curved = _curved(model, varied, fixed, eigenvalues, seed, rounding)
        plane = _plane(model, varied, fixed, curved[along], along, points, radius)
        grids = slice_parts(lambda _: _parts(model, fixed), varied, plane)
        again, others, fresh = (
            dict[str, tuple[Array, Array]](),
            dict[str, Array](),
            dict[str, Array](),
        )
        if repeat:
            other = draw(REPEAT)
            again = _again(model, varied, other, curved)
            others = slice_parts(lambda _: _parts(model, other), varied, plane)
            fresh = slice_parts(lambda index: _parts(model, draw(FRESH + index)), varied, plane)
    for slices in (grids, others, fresh):
        require_finite(slices)
    shapes = {}
    for name in PARTS:
        part = curved[name]
        shapes[name] = Shape(
            value=part.value,
            spectrum=part.spectrum,
            again=again.get(name),
            trace=part.trace,
            products=part.products,
            bowl=fit_bowl(*plane.axes, grids[name]),
            fresh_r2=fit_bowl(*plane.axes, fresh[name]).r2
            if repeat and part.spectrum is not None
            else None,
            repeated=_correlation(grids[name], others[name])
            if repeat and part.spectrum is not None
            else None,
        )
    return Measured(varied.size, plane, grids, shapes)


@dataclass(frozen=True)
class _Curved:
    value: float
    spectrum: Spectrum | None
    trace: tuple[float, float] | None
    products: int


def _curved(
    model: nn.Module, varied: Varied, loss: FixedLoss, eigenvalues: int, seed: int, rounding: float
) -> dict[str, _Curved]:
    parts = _parts(model, loss)
    total = abs(float(parts.total.detach()))
    found = {}
    for name in PARTS:
        value = getattr(parts, name)
        if abs(float(value.detach())) <= rounding * total:
            found[name] = _Curved(float(value.detach()), None, None, 0)
            continue
        # One Hessian at a time: each keeps the graph of its gradient.
        hessian = Hessian(value, varied)
        spectrum = outer_spectrum(hessian, eigenvalues, seed=seed)
        trace = probed_trace(hessian, spectrum, PROBES, seed=seed)
        found[name] = _Curved(float(value.detach()), spectrum, trace, hessian.products)
    return found


def _again(
    model: nn.Module, varied: Varied, loss: FixedLoss, curved: dict[str, _Curved]
) -> dict[str, tuple[Array, Array]]:
    parts = _parts(model, loss)
    found = {}
    for name, part in curved.items():
        if part.spectrum is None:
            continue
        hessian = Hessian(getattr(parts, name), varied)
        values = np.array([vector @ hessian.product(vector) for vector in part.spectrum.vectors])
        found[name] = (values[: len(values) // 2], values[len(values) // 2 :])
    return found


def _plane(
    model: nn.Module,
    varied: Varied,
    loss: FixedLoss,
    curved: _Curved,
    along: str,
    points: int,
    radius: float | None,
) -> Plane:
    spectrum = curved.spectrum
    if spectrum is None:
        raise UsageError(
            f"the {along} error of this model is rounding alone and spans no slice; choose another part"
        )
    centre = varied.read()
    # The first of each end: rows 0 and k of 2 k.
    directions = spectrum.vectors[[0, len(spectrum.largest)]]
    radii = []
    for direction, end in zip(directions, (spectrum.largest[0], spectrum.smallest[0]), strict=True):

        def change(distance: float, direction: Array = direction) -> float:
            ends = Plane(
                centre,
                np.stack([direction, direction]),
                (np.array([-distance, distance]), np.zeros(1)),
            )
            values = slice_parts(lambda _: _parts(model, loss), varied, ends)[along]
            return float(np.abs(values - curved.value).max())

        natural = natural_radius(curved.value, float(end), centre)
        radii.append(fitting_radius(change, curved.value, natural) if radius is None else radius)
    return plane_of(centre, directions, (radii[0], radii[1]), points)


def _parts(model: nn.Module, loss: FixedLoss) -> ErrorParts:
    return loss.parts(model, loss.chunks[0])


def _correlation(first: Array, second: Array) -> float | None:
    """None where one of them does not vary at all."""
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.clip(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1], -1, 1))
