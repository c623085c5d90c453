"""The landscape of each part of an error around trained weights: its Hessian's outer spectrum and
trace, and a slice of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from equivbench.errors import FailedError, UsageError
from equivbench.measure.calls import without_gradients
from equivbench.studies.landscape.hessian import (
    Array,
    Hessian,
    Spectrum,
    Varied,
    choose,
    outer_spectrum,
    probed_trace,
)
from equivbench.studies.record import ERROR_PARTS
from equivbench.studies.run import ErrorParts, FixedLoss, still

LEAST_POINTS = 6
"""Along each axis: more than determine the quartic that the roughness compares with."""
_HALVINGS = 40
"""By then a step is lost in the rounding of float32 weights."""
_ROUNDING = 1e-11
"""Of the largest value of the slice: what varies by less is flat, a residual below it is none
(float64, errors summed over thousands of entries)."""
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
class SlicePlane:
    """A grid on the plane that two perpendicular unit vectors span through a point."""

    centre: Array
    """[n] the weights themselves."""
    directions: Array
    """[2, n]."""
    axes: tuple[Array, Array]
    """Distances along each, symmetric about 0."""


def natural_radius(value: float, curvature: float, weights: Array) -> float:
    """Where curvature alone changes an error by half its ``value``: r^2 |curvature| / 2 = value /
    2.

    The same along negative curvature, where a quadratic that fell by all of the value would promise
    the impossible. At most the length of ``weights``: along a direction without curvature nothing
    else sets a scale.
    """
    longest = float(np.linalg.norm(weights)) or 1.0
    return min(float(np.sqrt(abs(value / curvature))), longest) if curvature != 0 else longest


def slice_parts(
    model: nn.Module, loss_at: Callable[[int], FixedLoss], varied: Varied, plane: SlicePlane
) -> dict[str, Array]:
    """[n, m] of each part at the points of ``plane``; ``loss_at(i)`` judges the model as it is at
    the i-th point, row by row.

    The weights are as they were afterwards.
    """
    first, second = plane.axes
    rows = []
    try:
        with without_gradients(model.parameters()):
            for index, (x, y) in enumerate((x, y) for x in first for y in second):
                varied.write(plane.centre + x * plane.directions[0] + y * plane.directions[1])
                parts = _parts(model, loss_at(index))
                rows.append([float(getattr(parts, name).detach()) for name in ERROR_PARTS])
    finally:
        varied.write(plane.centre)
    values = np.asarray(rows).reshape(len(first), len(second), len(ERROR_PARTS))
    return {name: values[..., column] for column, name in enumerate(ERROR_PARTS)}


@dataclass(frozen=True)
class QuadraticFit:
    """The least-squares quadratic c + b x + x A x / 2 of a slice."""

    curvatures: tuple[float, float]
    """Eigenvalues of A, the larger first."""
    r2: float | None
    """Part of the slice's variance that it explains; None where the slice is flat to rounding."""
    roughness: float | None
    """Part of the residual's variance, by degrees of freedom, that a quartic leaves too: about 1
    for white noise, near 0 for a smooth shape that is merely no quadratic, on coarse grids and fine
    ones. None where nothing but rounding is left."""

    @property
    def condition(self) -> float | None:
        """Ratio of the curvatures; None where one is not positive."""
        larger, smaller = self.curvatures
        return larger / smaller if smaller > 0 else None


def fit_quadratic(first: Array, second: Array, values: Array) -> QuadraticFit:
    """Fit the slice ``values`` [n, m] at distances ``first`` [n] and ``second`` [m] along two
    perpendicular unit vectors; at least ``LEAST_POINTS`` along each."""
    # Scaled to unit reach, so that axes of very different length do not spoil the fit's
    # conditioning.
    scale = float(np.abs(first).max()), float(np.abs(second).max())
    x, y = np.meshgrid(first / scale[0], second / scale[1], indexing="ij")
    level = values.mean()
    coefficients, residual = _fitted(x, y, values - level, degree=2)
    xx, xy, yy = 2 * coefficients[2, 0], coefficients[1, 1], 2 * coefficients[0, 2]
    smaller, larger = np.linalg.eigvalsh(np.array([[xx, xy], [xy, yy]]) / np.outer(scale, scale))
    tiny = (_ROUNDING * np.abs(values).max()) ** 2
    spread, left = float((values - level).var()), float(np.square(residual).mean())
    return QuadraticFit(
        curvatures=(float(larger), float(smaller)),
        r2=1 - left / spread if spread > tiny else None,
        roughness=_roughness(x, y, values - level, left) if left > tiny else None,
    )


def _fitted(x: Array, y: Array, values: Array, degree: int) -> tuple[Array, Array]:
    """(coefficients [degree + 1, degree + 1] of x^i y^j with i + j <= degree, what the fit
    leaves)."""
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    columns = np.stack([(x**i * y**j).reshape(-1) for i, j in powers], axis=1)
    found, *_ = np.linalg.lstsq(columns, values.reshape(-1), rcond=None)
    coefficients = np.zeros((degree + 1, degree + 1))
    for (i, j), value in zip(powers, found, strict=True):
        coefficients[i, j] = value
    return coefficients, values - (columns @ found).reshape(values.shape)


def _roughness(x: Array, y: Array, values: Array, left: float) -> float:
    _, residual = _fitted(x, y, values, degree=4)
    # Coefficients of a quadratic and of a quartic in two variables.
    quadratic, quartic = 6, 15
    return float(
        np.square(residual).mean() / left * (values.size - quadratic) / (values.size - quartic)
    )


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
    """Measure the landscape around the weights of ``model``, dropout off; they are as they were
    afterwards.

    ``draw(i)`` gives the i-th set of samples, noise and rotations, in one chunk, always the same
    for the same i: :data:`FIXED`, :data:`REPEAT`, and from :data:`FRESH` on one for each point of
    the fresh grid; without ``repeat`` only the first is asked for. ``layers`` are varied
    (:func:`equivbench.studies.landscape.hessian.choose`). The eigenvectors of the largest and of
    the smallest eigenvalue of the part ``along`` span the slice of ``points`` along each axis;
    without a ``radius`` each axis has that of :func:`natural_radius`, or less, so that the part
    nowhere changes by more than its value. A part below the fraction ``rounding`` of the total is
    the rounding of the model's arithmetic: it has no Hessian to speak of.

    Raises ``UsageError`` for numbers that do not fit, a pattern that matches nothing, and a slice
    along a part that is rounding alone; ``FailedError`` where eigenvalues do not converge or an
    error is not finite.
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
        shapes = _shapes(model, varied, fixed, eigenvalues, seed, rounding)
        plane = _plane(model, varied, fixed, shapes[along], along, points, radius)
        grids = [slice_parts(model, lambda _: fixed, varied, plane)]
        if repeat:
            other = draw(REPEAT)
            _judge_again(model, varied, other, shapes)
            for loss_at in (lambda _: other, lambda index: draw(FRESH + index)):
                grids.append(slice_parts(model, loss_at, varied, plane))
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
        reach = natural_radius(shape.value, float(end), centre) if radius is None else radius
        # Where the curvature is next to nothing, that leads far beyond what curvature describes.
        for _ in range(_HALVINGS if radius is None else 0):
            axes = (np.array([-reach, reach]), np.zeros(1))
            ends = SlicePlane(centre, np.stack([direction, direction]), axes)
            values = slice_parts(model, lambda _: loss, varied, ends)[along]
            if np.abs(values - shape.value).max() <= abs(shape.value):
                break
            reach /= 2
        radii.append(reach)
    first, second = (np.linspace(-each, each, points) for each in radii)
    return SlicePlane(centre, directions, (first, second))


def _parts(model: nn.Module, loss: FixedLoss) -> ErrorParts:
    return loss.parts(model, loss.chunks[0])


def _correlation(first: Array, second: Array) -> float | None:
    """None where one of them does not vary at all."""
    if first.std() == 0 or second.std() == 0:
        return None
    return float(np.clip(np.corrcoef(first.reshape(-1), second.reshape(-1))[0, 1], -1, 1))
