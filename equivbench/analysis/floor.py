"""The numerical floor: the share that rounding alone would cause in a model without any symmetry error."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equivbench.analysis.forward import Caller, evaluating
from equivbench.analysis.rotated_set import Chunk, Group, Precision, cast, rows_of, strata_of
from equivbench.symmetry.decomposition import Decomposition, decompose

FLOOR_SAMPLES = 64
"""Samples of the test set on which the floor is measured."""
FLOOR_ROTATIONS = 4
_EPS: Mapping[Precision, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7}
"""Distance from 1 to the next number of each precision."""


@dataclass(frozen=True)
class Floor:
    """What rounding alone would show."""

    share: float
    by: Mapping[str, float]
    resolution: float
    """The share that rounding the predictions once would show."""


def measure_floor(caller: Caller, chunks: Sequence[Chunk], group: Group) -> Floor:
    """The floor of ``caller``'s model on ``chunks``.

    ``so3``: the chunks hold inputs after the round trip R^-1 cast(R x) under Haar rotations; they differ by rounding alone,
    and so do the predictions. (Identity rotations would give exactly 0: they round nothing.) ``octahedral``: rotations of the
    cube are exact in floating point, so the model in its precision is compared with the same model in float64 (one in float64
    with the same in float32, scaled to float64's eps).
    """
    parts, power = [], 0.0
    other = _in_other_precision(caller) if group == "octahedral" else None
    scale = (_EPS[caller.precision] / max(_EPS[caller.precision], _EPS["float32"])) ** 2
    for chunk in chunks:
        predictions = caller.predictions(chunk)
        errors = decompose(predictions, chunk.target, weights=chunk.weights, groups=chunk.groups)
        zero = torch.zeros_like(chunk.target)
        power += float(decompose(predictions, zero, weights=chunk.weights).total.sum())
        if other is not None:
            rounding = scale * decompose(predictions - _predictions(other, chunk), zero, weights=chunk.weights).total
            errors = Decomposition(errors.total, errors.total - rounding, rounding, errors.groups)
        parts.append(errors)
    errors = rows_of(parts)
    total = float(errors.total.sum())
    resolution = _EPS[caller.precision] ** 2 * power / total if total else math.nan
    return Floor(errors.share, {name: errors.rows(rows).share for name, rows in strata_of(chunks)}, resolution)


def _in_other_precision(caller: Caller) -> Caller:
    model = copy.deepcopy(caller.model)
    if caller.precision == "float64":
        return Caller(caller.task, model.float(), "float32", caller.device)
    return Caller(caller.task, model.double(), "float64", caller.device)


def _predictions(other: Caller, chunk: Chunk) -> Tensor:
    """What ``other`` predicts from the inputs of ``chunk`` in its own precision."""
    dtype = torch.float64 if other.precision == "float64" else torch.float32
    inputs = tuple(cast(each, dtype) for each in chunk.inputs)
    with evaluating(other.model):
        return other.predictions(dataclasses.replace(chunk, inputs=inputs))
