"""Verification of a declared symmetry: the share that a model shows is held against the floor, the
share that rounding, or a grid, would cause in a model without any symmetry error."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.measure.measurement import Measurement
from equivbench.measure.rotated_set import (
    Caller,
    Chunk,
    EvaluationPrecision,
    evaluating,
    rows_of,
    strata_of,
)
from equivbench.specs import Group, Symmetry
from equivbench.symmetry.decomposition import Decomposition, decompose

FLOOR_SAMPLES = 64
"""Samples of the test set on which the floor is measured."""
FLOOR_ROTATIONS = 4
_EPS: Mapping[EvaluationPrecision, float] = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "tf32": 2.0**-10,
    "bf16": 2.0**-7,
}
"""Distance from 1 to the next number of each precision."""


_ROUNDING_FACTOR = 25.0
_INTERPOLATION_FACTOR = 4.0


@dataclass(frozen=True)
class Floor:
    """What a model without any symmetry error would show."""

    share: float
    by: Mapping[str, float]
    allowed: float
    """The share up to which a declared symmetry holds."""


def interpolation_floor(
    reference: Decomposition, errors: Decomposition, strata: Mapping[str, Tensor]
) -> Floor:
    """The floor under rotations that act on a grid by interpolation.

    ``reference`` is what the task's linear baseline shows on the same samples, draws and path: it
    commutes with rotations in the continuum, so its equivariance error is the grid's. Its ratio to
    the total error of the model (``errors``) is the share that the grid would cause in that model.
    Up to 4 times that, twice the amplitude, a symmetry counts as held: a sharper prediction than
    the reference's interpolates worse.
    """

    def share(rows: Tensor | slice) -> float:
        total = float(errors.total[rows].sum())
        return float(reference.equivariance[rows].sum()) / total if total else math.nan

    whole = share(slice(None))
    return Floor(
        whole, {name: share(rows) for name, rows in strata.items()}, _INTERPOLATION_FACTOR * whole
    )


def rounding_floor(caller: Caller, chunks: Iterable[Chunk], group: Group) -> Floor:
    """The share that rounding alone would cause in ``caller``'s model, on ``chunks``.

    ``so3``: the chunks hold inputs after the round trip R^-1 cast(R x) under Haar rotations; they
    differ by rounding alone, and so do the predictions. (Identity rotations would give exactly 0:
    they round nothing.) ``octahedral``: rotations of the cube are exact in floating point, so the
    model in its precision is compared with the same model in float64 (one in float64 with the same
    in float32, scaled to float64's eps).

    What rounding must cause is the larger of that and of what rounding the predictions once would
    show. A network rounds after each of its operations as well: shares of 1 to 3 times the floor
    were measured for the networks here and for wide perceptrons. A symmetry counts as held up to 25
    times, five times the amplitude. One broken by a relative 1e-3 has a share near 1e-7, in float32
    some five orders above the bound; bfloat16 cannot tell it from rounding.
    """
    parts, strata, power = [], [], 0.0
    other = _in_other_precision(caller) if group == "octahedral" else None
    scale = (_EPS[caller.precision] / max(_EPS[caller.precision], _EPS["float32"])) ** 2
    for chunk in chunks:
        predictions = caller.predictions(chunk)
        errors = decompose(predictions, chunk.target, weights=chunk.weights, groups=chunk.groups)
        zero = torch.zeros_like(chunk.target)
        power += float(decompose(predictions, zero, weights=chunk.weights).total.sum())
        if other is not None:
            with evaluating(other.model):
                exact = other.predictions(chunk)
            rounding = scale * decompose(predictions - exact, zero, weights=chunk.weights).total
            errors = Decomposition(errors.total, errors.total - rounding, rounding, errors.groups)
        parts.append(errors)
        strata.append(chunk.strata)
    errors = rows_of(parts)
    total = float(errors.total.sum())
    once = _EPS[caller.precision] ** 2 * power / total if total else math.nan
    by = {name: errors.rows(rows).share for name, rows in strata_of(strata)}
    return Floor(errors.share, by, _ROUNDING_FACTOR * max(errors.share, once))


def _in_other_precision(caller: Caller) -> Caller:
    model = copy.deepcopy(caller.model)
    if caller.precision == "float64":
        return Caller(caller.task, model.float(), "float32", caller.device)
    return Caller(caller.task, model.double(), "float64", caller.device)


def is_verified(measurement: Measurement) -> bool:
    """Whether a declared symmetry holds: the share is at most what rounding, or the grid, explains.

    Without a measured floor nothing is verified: False.
    """
    if measurement.allowed is None:
        return False
    # No error at all, so none of symmetry.
    return measurement.equivariance == 0 or measurement.share <= measurement.allowed


def covers(symmetry: Symmetry, group: Group) -> bool:
    """Whether a model declared ``symmetry`` promises anything about rotations drawn from
    ``group``."""
    return symmetry in ("so3", "o3") or (symmetry == "octahedral" and group == "octahedral")
