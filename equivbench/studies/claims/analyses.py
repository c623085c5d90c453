"""C3 and C6, from analyses of trained runs: that the equivariance error has the smoother and better
conditioned landscape, and that the share follows the gradients' ratio and the weights' deviation
beyond what two falling curves have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import AUGMENTED
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    above,
    decide,
    figure,
    make_part,
)
from equivbench.studies.claims.statements import LANDSCAPE, ROUGHER, SMOOTH, TRACKS
from equivbench.studies.gradients.record import Gradients
from equivbench.studies.gradients.statistics import QUANTITIES, ReasonedQuantity, correlations
from equivbench.studies.landscape.record import Curvature, Landscape
from equivbench.studies.record import Estimate

A = TypeVar("A", Gradients, Landscape)
FEWEST_SEEDS = 2
_SHOWN = (("equivariance", "equivariance error"), ("twirled", "twirled error"))
_FIGURES = {
    "effective_condition": "effective condition",
    "in_plane_condition": "in-plane condition",
    "roughness": "roughness",
    "quadratic_r2": "quadratic fit R2, everything fixed",
    "fresh_r2": "quadratic fit R2, drawn anew at every point",
    "repeated": "correlation with another draw",
}
_TITLES = {"ratio": "gradient-norm ratio", "deviation": "deviation of the weights"}


def _newest(analyses: Sequence[A], key: Callable[[A], tuple[object, ...]]) -> dict[object, A]:
    """The newest analysis for each ``key`` of an augmented arm's averaged weights, no point of a
    sweep."""
    return {
        key(each): each
        for each in sorted(analyses, key=lambda analysis: analysis.created)
        if each.arm == AUGMENTED and each.weights == "ema" and "sweep" not in each.variant
    }


def easier(machine: MachineEvidence) -> list[ClaimPart]:
    """C3: a part for each slice around an augmented arm's weights, the newest of each run, step,
    layers and directions."""
    slices = _newest(
        machine.landscapes,
        lambda each: (each.task, each.pair, each.run_id, each.step, each.layers, each.along),
    )
    return [_slice_part(machine, each) for each in slices.values()]


def _slice_part(machine: MachineEvidence, landscape: Landscape) -> ClaimPart:
    equivariance, twirled = (landscape.parts[part] for part, _ in _SHOWN)
    where = "all parameters" if landscape.layers == "*" else f"layers {landscape.layers}"
    against, supporting = (
        " and ".join(name for name, better in _BETTER.items() if better(first, second))
        for first, second in ((twirled, equivariance), (equivariance, twirled))
    )
    repeats = [part.repeated for part in (equivariance, twirled)]
    known = [each for each in repeats if each is not None]
    unknown, noise = len(known) < len(repeats), min(known, default=0.0) < LANDSCAPE
    decided = decide(
        (unknown, "not measured", "without a repeat nobody knows what of the slice is noise"),
        (noise, "not measured", "the slice does not repeat: it is mostly the draw"),
        (against, "did not hold", f"the equivariance error is the worse one in {against}"),
        ("condition" in supporting, "held", "the equivariance error is the worse one in nothing"),
        (True, "not measured", "no condition numbers that could be told apart"),
    )
    detail = f"better in {supporting or 'nothing'}"
    if unknown or noise:
        detail = "" if unknown else f"correlation {min(known):.2f}"
    return make_part(
        (landscape.task, landscape.pair),
        "",
        f", seed {landscape.seed}, step {landscape.step}, {where}, along the {landscape.along} "
        "error",
        decided,
        detail,
        [_property(landscape, part, name) for part, _ in _SHOWN for name in _FIGURES],
        (machine.record_of(landscape), landscape),
    )


def _property(landscape: Landscape, part: str, name: str) -> ClaimFigure:
    value = getattr(landscape.parts[part], name)
    note = landscape.reasons.get(f"parts.{part}.{name}", "")
    return figure(
        f"{dict(_SHOWN)[part]}: {_FIGURES[name]}",
        value.quantity if isinstance(value, Estimate) else Quantity(value),
        note="as published; not judged" if name == "fresh_r2" else note,
    )


def _better_conditioned(first: Curvature, second: Curvature) -> bool:
    """By whole intervals: an end that is open overlaps with everything beyond it."""
    high, low = first.effective_condition.high, second.effective_condition.low
    return high is not None and low is not None and high < low


def _better_bowl(first: Curvature, second: Curvature) -> bool:
    """A bowl is better than a saddle; two saddles have no condition to compare."""
    own, other = first.in_plane_condition, second.in_plane_condition
    if own is None or other is None:
        measured = len(first.in_plane) >= 2 and len(second.in_plane) >= 2
        return own is not None and other is None and measured
    return own < other


def _smoother(first: Curvature, second: Curvature) -> bool:
    own, other = first.roughness, second.roughness
    return own is not None and other is not None and other >= SMOOTH and ROUGHER * own < other


_BETTER: Mapping[str, Callable[[Curvature, Curvature], bool]] = {
    "effective condition": _better_conditioned,
    "in-plane condition": _better_bowl,
    "roughness": _smoother,
}
"""The three comparisons of a slice."""


def follows(machine: MachineEvidence) -> list[ClaimPart]:
    """C6: a part for each pair and each of the two quantities that was measured on it, over all
    seeds of its augmented arm."""
    pairs: dict[tuple[str, ...], list[Gradients]] = defaultdict(list)
    for each in _newest(machine.gradients, lambda each: (*_kind(each), each.run_id)).values():
        pairs[_kind(each)].append(each)
    return [
        _trend_part(machine, analyses, quantity)
        for analyses in pairs.values()
        for quantity in QUANTITIES
        if quantity != "deviation"
        or any(point.deviation is not None for each in analyses for point in each.points)
    ]


def _kind(analysis: Gradients) -> tuple[str, ...]:
    variant = repr(sorted(analysis.variant.items()))
    return analysis.task, analysis.pair, analysis.model, variant


def _trend_part(
    machine: MachineEvidence, analyses: Sequence[Gradients], quantity: str
) -> ClaimPart:
    first, title, found = analyses[0], _TITLES[quantity], correlations(analyses)
    raw, detrended = found[quantity], found[f"{quantity} detrended"]
    switches = "".join(f", {name} {value}" for name, value in sorted(first.variant.items()))
    partial = detrended.quantity
    decided, detail = _tracks(len(analyses), detrended), ""
    if partial.value is not None and partial.low is not None and partial.high is not None:
        detail = f"{partial.value:.2f} ({partial.low:.2f} to {partial.high:.2f}) detrended"
        detail += "" if raw.quantity.value is None else f", {raw.quantity.value:.2f} raw"
    points = sum(len(each.points) for each in analyses)
    what = f"correlation of the share with the {title}, raw"
    return make_part(
        (first.task, first.pair),
        f", {title}",
        f"{switches}, {title}",
        decided,
        detail,
        (
            figure(what, raw.quantity, note=raw.reason or ""),
            figure(
                f"correlation with the {title}, detrended", partial, note=detrended.reason or ""
            ),
            figure("seeds", Quantity(float(len(analyses)))),
            figure("snapshots", Quantity(float(points))),
        ),
        [source for each in analyses for source in (machine.record_of(each), each)],
    )


def _tracks(seeds: int, detrended: ReasonedQuantity) -> tuple[ClaimVerdict, str]:
    low, high = detrended.quantity.low, detrended.quantity.high
    none = detrended.reason or "the detrended correlation has no interval"
    return decide(
        (low is None or high is None, "not measured", none),
        (
            seeds < FEWEST_SEEDS,
            "not measured",
            "one seed is one curve, whatever its points",
        ),
        (above(detrended.quantity, 0.0), "held", "correlated beyond the common trend"),
        (
            high is not None and high < TRACKS,
            "did not hold",
            "not correlated beyond the common trend",
        ),
        (True, "not measured", "the interval does not decide"),
    )
