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
from equivbench.studies.landscape.slice import (
    LEAST_POINTS,
    QuadraticFit,
    SlicePlane,
    fit_quadratic,
    fitting_radius,
    natural_radius,
    plane_of,
    require_finite,
    slice_parts,
)
from equivbench.studies.record import ERROR_PARTS

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
class PartCurvature:
    """The Hessian of one part of the error at the weights."""

    value: float
    """The part itself."""
    spectrum: Spectrum | None
    """None where the part is rounding alone."""
    trace: tuple[float, float] | None
    """With its standard error over the probes."""
    products: int
    """Hessian-vector products that spectrum and trace took."""


@dataclass(frozen=True)
class PartShape(PartCurvature):
    """One part of the error at the weights and around them."""

    again: tuple[Array, Array] | None
    """v^T H v of the same vectors on the other draw: those of the largest eigenvalues, those of the
    smallest."""
    fit: QuadraticFit
    """Of the slice on the fixed draw."""
    fresh_r2: float | None
    """How much a quadratic explains of the slice that draws anew at every point."""
    repeated: float | None
    """Correlation of the slice with that on the other draw."""


@dataclass(frozen=True)
class MeasuredLandscape:
    """A slice and the shape of each part."""

    size: int
    """Parameters varied."""
    plane: SlicePlane
    grids: dict[str, Array]
    shapes: dict[str, PartShape]


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
) -> MeasuredLandscape:
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
        Of both axes; None: each as :func:`equivbench.studies.landscape.slice.natural_radius` says
        of the part ``along``, or less (:func:`equivbench.studies.landscape.slice.fitting_radius`).
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
    fixed, grids = draw(FIXED), list[dict[str, Array]]()
    with still(model):
        curvatures = _curvatures(model, varied, fixed, eigenvalues, seed, rounding)
        plane = _plane(model, varied, fixed, curvatures[along], along, points, radius)
        grids.append(slice_parts(lambda _: _parts(model, fixed), varied, plane))
        if repeat:
            other = draw(REPEAT)
            again = _again(model, varied, other, curvatures)
            grids.append(slice_parts(lambda _: _parts(model, other), varied, plane))
            fresh = slice_parts(lambda index: _parts(model, draw(FRESH + index)), varied, plane)
            grids.append(fresh)
    for slices in grids:
        require_finite(slices)
    shapes = {}
    for name, curvature in curvatures.items():
        # What is rounding alone neither repeats nor fits anything.
        compared = repeat and curvature.spectrum is not None
        shapes[name] = PartShape(
            **vars(curvature),
            again=again[name] if compared else None,
            fit=fit_quadratic(*plane.axes, grids[0][name]),
            fresh_r2=fit_quadratic(*plane.axes, grids[2][name]).r2 if compared else None,
            repeated=_correlation(grids[0][name], grids[1][name]) if compared else None,
        )
    return MeasuredLandscape(varied.size, plane, grids[0], shapes)


def _curvatures(
    model: nn.Module, varied: Varied, loss: FixedLoss, eigenvalues: int, seed: int, rounding: float
) -> dict[str, PartCurvature]:
    parts = _parts(model, loss)
    total = abs(float(parts.total.detach()))
    found: dict[str, PartCurvature] = {}
    for name in ERROR_PARTS:
        value = getattr(parts, name)
        if abs(float(value.detach())) <= rounding * total:
            found[name] = PartCurvature(float(value.detach()), None, None, 0)
            continue
        # One Hessian at a time: each keeps the graph of its gradient.
        hessian = Hessian(value, varied)
        spectrum = outer_spectrum(hessian, eigenvalues, seed=seed)
        trace = probed_trace(hessian, spectrum, PROBES, seed=seed)
        found[name] = PartCurvature(float(value.detach()), spectrum, trace, hessian.products)
    return found


def _again(
    model: nn.Module, varied: Varied, loss: FixedLoss, curvatures: dict[str, PartCurvature]
) -> dict[str, tuple[Array, Array]]:
    parts = _parts(model, loss)
    found = {}
    for name, part in curvatures.items():
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
    curvature: PartCurvature,
    along: str,
    points: int,
    radius: float | None,
) -> SlicePlane:
    spectrum = curvature.spectrum
    if spectrum is None:
        raise UsageError(
            f"the {along} error of this model is rounding alone and spans no slice; "
            "choose another part"
        )
    centre = varied.read()
    # The first of each end: rows 0 and k of 2 k.
    directions = spectrum.vectors[[0, len(spectrum.largest)]]
    radii = []
    for direction, end in zip(directions, (spectrum.largest[0], spectrum.smallest[0]), strict=True):

        def change(distance: float, direction: Array = direction) -> float:
            ends = SlicePlane(
                centre,
                np.stack([direction, direction]),
                (np.array([-distance, distance]), np.zeros(1)),
            )
            values = slice_parts(lambda _: _parts(model, loss), varied, ends)[along]
            return float(np.abs(values - curvature.value).max())

        natural = natural_radius(curvature.value, float(end), centre)
        radii.append(fitting_radius(change, curvature.value, natural) if radius is None else radius)
    return plane_of(centre, directions, (radii[0], radii[1]), points)


def _parts(model: nn.Module, loss: FixedLoss) -> ErrorParts:
    return loss.parts(model, loss.chunks[0])


def _correlation(first: Array, second: Array) -> float | None:
    """None where one of them does not vary at all."""
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.clip(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1], -1, 1))
