"""Verification of a declared symmetry, and the floor: the share that rounding, or a grid, would
cause in a model without any symmetry error.

A few samples (probes) are predicted under two elements of the group, in the working precision and
in float64. What is rounding falls with the square of the unit roundoff; what breaks a symmetry
stays where it is. Noise and constants, which would pass for either, are looked for first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from equivbench.errors import FailedError
from equivbench.measure.caller import Caller
from equivbench.measure.measurement import Verdict
from equivbench.measure.precision import EPS, EvaluationPrecision
from equivbench.measure.rotated_set import Chunk, strata_of
from equivbench.records.reasons import plain_reason
from equivbench.specs import Group, Symmetry
from equivbench.symmetry.decomposition import Decomposition, broadcast_weights, decompose

_ROUNDING_FACTOR = 25.0
_INTERPOLATION_FACTOR = 4.0
_NEGLIGIBLE = 1e-6
"""Variance of a prediction over that of the target below which there is nothing to verify: a
thousandth of the amplitude."""
_SLACK = 1e3
"""How much less than with the square of the unit roundoff an error of rounding may fall."""
CONDITIONING = 1e6
"""How many squares of the unit roundoff may be rounding, whatever the other precision shows. A
position out less the position in, a thousandth of its size, takes all of them."""
CONSTANTS = 4.0
"""The same for constants that were rounded to float32 once, in squares of its unit roundoff."""
_LONGEST_FAILURE = 120
"""Most characters of somebody's exception in a reason."""
_SIZES = ("none", "octahedral", "so3", "o3")
"""Symmetries, each within the next."""


def covers(symmetry: Symmetry, group: Group) -> bool:
    """Whether a model declared ``symmetry`` promises anything about elements drawn from
    ``group``."""
    return _SIZES.index(group) <= _SIZES.index(symmetry)


@dataclass(frozen=True)
class Floor:
    """What a model without any symmetry error would show."""

    share: float
    by: Mapping[str, float]
    allowed: float
    """The share that is explained by it."""


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
    share, by = _shares(reference.equivariance, errors, strata)
    return Floor(share, by, _INTERPOLATION_FACTOR * share)


@dataclass(frozen=True)
class Passes:
    """What passes over the probes in one precision show."""

    precision: EvaluationPrecision
    errors: Decomposition
    """Row by row, in the task's unit."""
    power: float
    """Sum over rows of the squared prediction, in the task's unit."""
    noise: float
    """Squared difference of two predictions of the same input, over the squared prediction."""
    broken: float
    """Equivariance error over the squared prediction."""
    variance: float
    """Of the prediction as it leaves the model, about its mean over rows and draws; summed like the
    power."""
    target_power: float
    target_variance: float


@dataclass(frozen=True)
class Probes:
    """Passes in the working precision, and what there is to hold them against."""

    working: Passes
    other: Passes | None
    """In float64 (in float32 for a model in float64)."""
    failure: str
    """Why there are none in the other precision."""
    rounding: Tensor
    """[rows] error that rounding makes in the working precision, in the task's unit."""
    has_constants: bool
    """Whether the model, in float32 or less, holds floating-point buffers: constants that were
    rounded once and stay so in float64."""
    strata: Mapping[str, Tensor]

    @property
    def deterministic(self) -> bool:
        """Whether the same input twice gives the same bits; or the same up to rounding, where a
        device adds up in an order of its own."""
        if self.working.noise == 0 or self.other is None:
            return self.working.noise == 0
        return self._falls(self.working.noise, self.other.noise)

    @property
    def equivariant(self) -> bool:
        """Whether the equivariance error falls like rounding; False without other precision."""
        return self.other is not None and self._falls(self.working.broken, self.other.broken)

    def _falls(self, working: float, other: float) -> bool:
        """Whether what the passes found falls like rounding from the lower precision to the
        higher."""
        assert self.other is not None
        return falls_like_rounding(self.working.precision, working, self.other.precision, other)

    def floor(self) -> Floor:
        """The share that rounding causes. It explains up to 25 times that, five times the
        amplitude, and as much of what rounding the predictions once would show."""
        share, by = _shares(self.rounding, self.working.errors, self.strata)
        total = float(self.working.errors.total.sum())
        once = EPS[self.working.precision] ** 2 * self.working.power / total if total else math.nan
        return Floor(share, by, _ROUNDING_FACTOR * max(share, once))


def falls_like_rounding(
    precision: EvaluationPrecision, found: float, other_precision: EvaluationPrecision, other: float
) -> bool:
    """Whether an error over the squared prediction, ``found`` in one precision and ``other`` in
    another, falls with the square of the unit roundoff from the lower of both to the higher."""
    low, high = (found, EPS[precision]), (other, EPS[other_precision])
    if low[1] < high[1]:
        low, high = high, low
    fall = (high[1] / low[1]) ** 2
    return high[0] <= max(_SLACK * fall * low[0], CONDITIONING * high[1] ** 2)


def probe(
    caller: Caller,
    probes: Chunk,
    in_other: Callable[[], Chunk] | None,
    round_trip: Callable[[], Chunk],
) -> Probes:
    """Passes of ``caller``'s model over the probes.

    Parameters
    ----------
    probes
        Samples under two elements of the group.
    in_other
        Makes the same for the other precision; None: that is not asked for.
    round_trip
        Makes the same samples after a round trip R^-1 cast(R x), which differ by rounding alone:
        needed only where the model does not run in the other precision. It tells less: a position
        that moved by a whole number of last digits is rounded alike.
    """
    working, predictions = _passes(caller, probes, repeat=True)
    other, failure = None, "it was not asked to"
    rounding = torch.zeros_like(probes.row_weights)
    if in_other is not None:
        try:
            other, exact = _in_other_precision(caller, in_other(), repeat=working.noise > 0)
            rounding = _squares(predictions - exact, probes)
        except Exception as error:  # noqa: BLE001  someone's model may not survive a copy, or run
            failure = plain_reason(str(error) or type(error).__name__, _LONGEST_FAILURE)
            rounding = _passes(caller, round_trip())[0].errors.equivariance
    if other is not None and other.precision == "float32":
        # The difference is float32's; float64's is smaller by the square of the unit roundoff.
        rounding = rounding * (EPS["float64"] / EPS["float32"]) ** 2
    has_constants = any(buffer.is_floating_point() for buffer in caller.model.buffers())
    return Probes(
        working,
        other,
        failure,
        rounding,
        has_constants and caller.precision != "float64",
        dict(strata_of([probes.strata])),
    )


def _in_other_precision(caller: Caller, probes: Chunk, repeat: bool) -> tuple[Passes, Tensor]:
    """Passes of a copy of ``caller``'s model in float64, or in float32 if it is in float64 already,
    and its predictions [draws, rows, ...].

    Raises whatever a model does that cannot be copied or run so; ``FailedError`` where it computes
    in float32 all the same.
    """
    model = copy.deepcopy(caller.model)
    if caller.precision == "float64":
        return _passes(replace(caller, model=model.float(), precision="float32"), probes, repeat)
    double = replace(caller, model=model.double(), precision="float64")
    passes, predictions = _passes(double, probes, repeat)
    low, high = (CONDITIONING * EPS[each] ** 2 for each in ("float64", "float32"))
    if low < passes.broken < high and _is_single(double, probes):
        raise FailedError("it computes in float32 inside")
    return passes, predictions


def _passes(caller: Caller, probes: Chunk, repeat: bool = False) -> tuple[Passes, Tensor]:
    """What ``caller``'s model shows on the probes, and its predictions [draws, rows, ...] float64,
    taken back; ``repeat``: the first draw is predicted twice."""
    name = caller.task.prediction
    outputs, targets, taken_back = [], [], []
    for draw, _, found in caller.runs(probes):
        taken_back.append(caller.taken_back(found, draw.inverse, probes))
        if caller.precision == "float64" and found[name].dtype != torch.float64:
            raise FailedError(f"its output is {found[name].dtype}")
        outputs.append(found[name].double())
        targets.append(draw.targets[name].double())
    predictions = torch.stack(taken_back)
    power = float(_squares(predictions, probes).sum())
    noise = 0.0
    if repeat:
        first = replace(probes, draws=tuple(islice(probes.draws, 1)))
        difference = caller.predictions(first) - predictions[:1]
        noise = float(_squares(difference, probes).sum())
    errors = decompose(predictions, probes.target, weights=probes.weights, groups=probes.groups)
    broken = float(errors.equivariance.sum())
    return Passes(
        caller.precision,
        errors,
        power,
        noise / power if power else noise,
        broken / power if power else broken,
        _variance(outputs, probes),
        float(_squares(probes.target[None], probes).sum()),
        _variance(targets, probes),
    ), predictions


def _variance(values: Sequence[Tensor], chunk: Chunk) -> float:
    """Of ``values`` [rows, ...] of each draw about their mean over rows and draws: the weighted sum
    of squares, averaged over the draws."""
    weight = torch.ones_like(chunk.target, dtype=torch.float64)
    if chunk.weights is not None:
        weight = broadcast_weights(chunk.weights, chunk.target.shape)
    stacked = torch.stack(list(values)).masked_fill(weight == 0, 0)
    # Components that no row has are 0 / 1.
    rows = len(values) * weight.sum(0)
    mean = (weight * stacked).sum((0, 1)) / rows.where(rows > 0, 1.0)
    return float((weight * (stacked - mean).square()).sum() / len(values))


# --- verdicts


def nothing_to_verify(probes: Probes) -> Verdict | None:
    """The verdict on a model whose predictions are not finite, not repeatable or say nothing; None
    for any other."""
    found = probes.working
    if not math.isfinite(found.power):
        return Verdict(None, "its predictions are not finite numbers")
    if not probes.deterministic:
        return Verdict(
            None,
            "it is not deterministic: two predictions of the same input differ by "
            f"{found.noise:.1e} of their square, so nothing is verified",
        )
    if found.variance > _NEGLIGIBLE * found.target_variance:
        return None
    if found.power > _NEGLIGIBLE * found.target_power and found.broken > _NEGLIGIBLE:
        return Verdict(
            False,
            "it predicts the same whatever the input, and what it predicts does not turn with the "
            f"sample: equivariance error {found.broken:.1e} of the squared prediction",
        )
    of_target = found.variance / found.target_variance if found.target_variance else 0.0
    return Verdict(
        None,
        "there is nothing to verify: from sample to sample its predictions vary by "
        f"{of_target:.1e} of the target's variance",
    )


def by_precision(probes: Probes, share: float | None, group: str) -> Verdict:
    """The verdict from how the equivariance error changes with the precision.

    ``share``: the largest of those measured that are of the declared ``group``, for a model that
    does not run in the other precision and so is judged by its floor alone; None where none is.
    """
    found, other = probes.working, probes.other
    if other is None:
        return _by_floor(probes, share, group)
    measured = ", ".join(f"{passes.broken:.1e} in {passes.precision}" for passes in (found, other))
    said = f"equivariance error under {group} over the squared prediction: {measured}"
    if probes.equivariant:
        return Verdict(True, f"{said}; it falls like rounding")
    if probes.has_constants and other.broken <= CONSTANTS * EPS["float32"] ** 2:
        return Verdict(True, f"{said}; no more than constants kept in float32 leave")
    return Verdict(False, f"{said}; it does not fall like rounding")


def _by_floor(probes: Probes, share: float | None, group: str) -> Verdict:
    found = probes.working
    own = found.errors.share
    share = own if share is None or own > share else share
    allowed = probes.floor().allowed
    said = (
        f"judged by its floor alone, for it does not run in float64 ({probes.failure}): share "
        f"{share:.1e} under {group}, rounding explains {allowed:.1e}"
    )
    # No error at all, so none of symmetry.
    if share <= allowed or (found.power and found.broken == 0):
        return Verdict(True, said)
    # Differences of large numbers round more than any floor shows; what breaks a symmetry for good
    # is larger still.
    most = min(CONDITIONING * EPS[found.precision] ** 2, _NEGLIGIBLE)
    return Verdict(None if found.broken <= most else False, said)


def by_interpolation(share: float, floor: Floor | None, group: str) -> Verdict:
    """The verdict on a grid, whose ``floor`` is what interpolation causes."""
    if floor is None:
        return Verdict(None, "there is no linear predictor whose interpolation error would tell")
    said = (
        f"share {share:.1e} under {group}, interpolation on the grid explains {floor.allowed:.1e}"
    )
    return Verdict(share <= floor.allowed, said)


def _is_single(caller: Caller, chunk: Chunk) -> bool:
    """Whether the model computes in float32 inside: inputs moved by a relative 2^-40 leave most of
    its float64 output as it was, bit for bit."""
    draw, name = next(iter(chunk.draws)), caller.task.prediction
    before, after = (caller.outputs(inputs)[name] for inputs in (draw.inputs, nudged(draw.inputs)))
    return bool((before == after)[before != 0].double().mean() > 0.5)


def nudged(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """``inputs`` with every floating-point tensor moved by a relative 2^-40, up and down in turn,
    so that a model of ratios or directions moves too."""
    moved = dict(inputs)
    for name, each in inputs.items():
        if isinstance(each, Tensor) and each.is_floating_point():
            steps = 1 - 2 * (torch.arange(each.numel(), device=each.device) % 2)
            moved[name] = each + each * steps.reshape(each.shape) * 2.0**-40
    return moved


def _squares(values: Tensor, chunk: Chunk) -> Tensor:
    """[rows] weighted squares of ``values`` [draws, rows, ...], averaged over the draws."""
    zero = torch.zeros_like(chunk.target)
    return decompose(values, zero, weights=chunk.weights, exhaustive=True).total


def _shares(
    part: Tensor, errors: Decomposition, strata: Mapping[str, Tensor]
) -> tuple[float, dict[str, float]]:
    """Sum of ``part`` [rows] over the total of ``errors``, of all rows and by stratum."""

    def share(rows: Tensor | slice) -> float:
        total = float(errors.total[rows].sum())
        return float(part[rows].sum()) / total if total else math.nan

    return share(slice(None)), {name: share(rows) for name, rows in strata.items()}
