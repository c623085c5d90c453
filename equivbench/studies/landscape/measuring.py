"""The landscape of each part of an error around trained weights: its Hessian's outer spectrum and
trace, and a slice of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from equivbench.errors import FailedError, UsageError
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


@dataclass
class PartShape:
    """One part of the error at the weights and around them; what was not measured is None."""

    value: float
    """The part itself."""
    spectrum: Spectrum | None = None
    """Of its Hessian; None where the part is rounding alone."""
    trace: tuple[float, float] | None = None
    """With its standard error over the probes."""
    products: int = 0
    """Hessian-vector products that spectrum and trace took."""
    again: tuple[Array, Array] | None = None
    """v^T H v of the same vectors on the other draw: those of the largest eigenvalues, those of the
    smallest."""
    fit: QuadraticFit = field(init=False)
    """Of the slice on the fixed draw."""
    fresh_r2: float | None = None
    """How much a quadratic explains of the slice that draws anew at every point."""
    repeated: float | None = None
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
    fixed = draw(FIXED)

    def grid(loss_at: Callable[[int], FixedLoss]) -> dict[str, Array]:
        return slice_parts(lambda index: _parts(model, loss_at(index)), varied, plane)

    with still(model):
        shapes = _shapes(model, varied, fixed, eigenvalues, seed, rounding)
        plane = _plane(model, varied, fixed, shapes[along], along, points, radius)
        grids = [grid(lambda _: fixed)]
        if repeat:
            other = draw(REPEAT)
            _judge_again(model, varied, other, shapes)
            grids += [grid(lambda _: other), grid(lambda index: draw(FRESH + index))]
    if not all(np.isfinite(values).all() for slices in grids for values in slices.values()):
        raise FailedError(
            "the error is not finite everywhere on the slice; take a smaller --radius"
        )
    for name, shape in shapes.items():
        shape.fit = fit_quadratic(*plane.axes, grids[0][name])
        # What is rounding alone neither repeats nor fits anything.
        if repeat and shape.spectrum is not None:
            shape.fresh_r2 = fit_quadratic(*plane.axes, grids[2][name]).r2
            shape.repeated = _correlation(grids[0][name], grids[1][name])
    return MeasuredLandscape(varied.size, plane, grids[0], shapes)


def _shapes(
    model: nn.Module, varied: Varied, loss: FixedLoss, eigenvalues: int, seed: int, rounding: float
) -> dict[str, PartShape]:
    """The Hessian of each part."""
    parts = _parts(model, loss)
    total = abs(float(parts.total.detach()))
    found: dict[str, PartShape] = {}
    for name in ERROR_PARTS:
        value = getattr(parts, name)
        shape = found[name] = PartShape(float(value.detach()))
        if abs(shape.value) > rounding * total:
            # One Hessian at a time: each keeps the graph of its gradient.
            hessian = Hessian(value, varied)
            shape.spectrum = outer_spectrum(hessian, eigenvalues, seed=seed)
            shape.trace = probed_trace(hessian, shape.spectrum, PROBES, seed=seed)
            shape.products = hessian.products
    return found


def _judge_again(
    model: nn.Module, varied: Varied, loss: FixedLoss, shapes: dict[str, PartShape]
) -> None:
    parts = _parts(model, loss)
    for name, shape in shapes.items():
        if shape.spectrum is not None:
            hessian = Hessian(getattr(parts, name), varied)
            vectors = shape.spectrum.vectors
            values = np.array([vector @ hessian.product(vector) for vector in vectors])
            shape.again = (values[: len(values) // 2], values[len(values) // 2 :])


def _plane(
    model: nn.Module,
    varied: Varied,
    loss: FixedLoss,
    shape: PartShape,
    along: str,
    points: int,
    radius: float | None,
) -> SlicePlane:
    spectrum = shape.spectrum
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
            axes = (np.array([-distance, distance]), np.zeros(1))
            ends = SlicePlane(centre, np.stack([direction, direction]), axes)
            values = slice_parts(lambda _: _parts(model, loss), varied, ends)[along]
            return float(np.abs(values - shape.value).max())

        natural = natural_radius(shape.value, float(end), centre)
        radii.append(fitting_radius(change, shape.value, natural) if radius is None else radius)
    first, second = (np.linspace(-each, each, points) for each in radii)
    return SlicePlane(centre, directions, (first, second))


def _parts(model: nn.Module, loss: FixedLoss) -> ErrorParts:
    return loss.parts(model, loss.chunks[0])


def _correlation(first: Array, second: Array) -> float | None:
    """None where one of them does not vary at all."""
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.clip(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1], -1, 1))
