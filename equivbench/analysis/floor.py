"""The numerical floor: the share that rounding alone would cause in a model without any symmetry error."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from equivbench.analysis.forward import Caller, evaluating
from equivbench.analysis.rotated_set import Chunk, Group, Precision, rows_of, strata_of
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
    cube are exact in floating point, so the model in its precision is compared with the same model in float64.
    """
    parts, power = [], 0.0
    exact = _in_float64(caller) if group == "octahedral" else None
    for chunk in chunks:
        predictions = caller.predictions(chunk)
        errors = decompose(predictions, chunk.target, weights=chunk.weights, groups=chunk.groups)
        zero = torch.zeros_like(chunk.target)
        power += float(decompose(predictions, zero, weights=chunk.weights).total.sum())
        if exact is not None:
            rounding = decompose(predictions - _predictions(exact, chunk), zero, weights=chunk.weights).total
            errors = Decomposition(errors.total, errors.total - rounding, rounding, errors.groups)
        parts.append(errors)
    errors = rows_of(parts)
    total = float(errors.total.sum())
    resolution = _EPS[caller.precision] ** 2 * power / total if total else math.nan
    return Floor(errors.share, {name: errors.rows(rows).share for name, rows in strata_of(chunks)}, resolution)


def _in_float64(caller: Caller) -> Caller:
    return Caller(caller.task, copy.deepcopy(caller.model).double(), "float64", caller.device)


def _predictions(exact: Caller, chunk: Chunk) -> torch.Tensor:
    raised = tuple({k: t.double() if t.is_floating_point() else t for k, t in inputs.items()} for inputs in chunk.inputs)
    with evaluating(exact.model):
        return exact.predictions(dataclasses.replace(chunk, inputs=raised))
