"""What an error is made of: parts of a measurement by stratum of the task, by the target's
magnitude, by irrep of the prediction, or by irrep of the group."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from equivbench.measure.measurement import Part, SignedPart, part_of
from equivbench.measure.passes import PassErrors
from equivbench.measure.verification import Floor
from equivbench.specs import By
from equivbench.symmetry.decomposition import Decomposition
from equivbench.symmetry.quadrature import quadrature_degree
from equivbench.symmetry.spectrum import PARITY

_QUARTERS = 4
_DRAWN_DEGREE, _HIGHEST_DEGREE = 4, 8
"""Last degree of the irreps that are told apart: the error of an estimate from draws grows with the
square of the degree."""


def highest_degree(rotations: int | str) -> int:
    """The degree of the last irrep that so many draws, or such a quadrature, can tell."""
    degree = quadrature_degree(rotations)
    return _DRAWN_DEGREE if degree is None else min(degree // 2, _HIGHEST_DEGREE)


def makeup_of(
    by: By,
    judged: PassErrors,
    floor: Floor | None,
    untrained: Mapping[str, Tensor],
    best_untrained: Callable[..., Tensor],
) -> dict[str, Part]:
    """The parts by name, in order; rows of weight 0 and parts without a row are left out.

    ``untrained``: [rows] errors of ``zero`` and others, ``best_untrained`` gives their least sum on
    some rows.
    """
    if by == "layer":
        return {}
    if by == "component":
        return {
            name: part_of(errors, judged.weights, None, _unknown)
            for name, errors in judged.components.items()
        }
    if by == "irrep":
        powers = dict(judged.irreps)
        beyond = judged.errors.equivariance - torch.stack(list(powers.values())).sum(0)
        if not judged.all_irreps:
            powers["higher"] = beyond
        return {name: _of_power(judged, power, best_untrained) for name, power in powers.items()}
    rows: Mapping[str, Tensor] = judged.strata
    if by == "magnitude":
        rows = _quarters(untrained["zero"], judged.weights)
    return {
        name: part_of(
            judged.errors.rows(chosen),
            judged.weights[chosen],
            None if floor is None else floor.by.get(name),
            partial(best_untrained, chosen),
        )
        for name, chosen in rows.items()
    }


def sides_of(
    judged: PassErrors, best_untrained: Callable[..., Tensor]
) -> tuple[Part | None, Part | None]:
    """The part of the error over O(3) that rotations cause, averaged over samples and their mirror
    images, and the part that only the step to the mirror image causes; None where the irreps of
    O(3) are not known."""
    if PARITY not in judged.irreps:
        return None, None
    parity = judged.irreps[PARITY]
    return (
        _of_power(judged, judged.errors.equivariance - parity, best_untrained),
        _of_power(judged, parity, best_untrained),
    )


def _of_power(judged: PassErrors, power: Tensor, best_untrained: Callable[..., Tensor]) -> Part:
    """All rows, of whose error only ``power`` [rows] counts as equivariance error: ``twirled`` is
    what would be left if that alone were averaged away."""
    errors = judged.errors
    made = Decomposition(errors.total, errors.total - power, power, errors.groups)
    return SignedPart(**vars(part_of(made, judged.weights, None, best_untrained)))


def _quarters(squares: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """[rows] mask of each quarter of the rows that count, by the size of the target per unit of
    weight; ``squares`` are the weighted squares of the target."""
    counted = weights > 0
    size = (squares / weights.where(counted, 1.0)).clamp(min=0).sqrt()
    if not bool(counted.any()):
        return {}
    levels = torch.linspace(0, 1, _QUARTERS + 1, dtype=size.dtype, device=size.device)
    # By rank: torch.quantile refuses more than 16 million values.
    ordered = size[counted].sort().values
    edges = ordered[(levels * (len(ordered) - 1)).round().long()]
    found: dict[str, Tensor] = {}
    for low, high in itertools.pairwise(edges):
        last = bool(high == edges[-1])
        chosen = counted & (size >= low) & ((size <= high) if last else (size < high))
        name = f"{float(low):.3g} to {float(high):.3g}"
        if bool(chosen.any()) and name not in found:
            found[name] = chosen
    return found


def _unknown() -> Tensor:
    return torch.tensor(math.nan)
