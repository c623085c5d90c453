"""C3 and C6, from analyses of trained runs: that the equivariance error has the better conditioned
landscape, and that the share follows the gradients' ratio and the weights' deviation
beyond what two falling curves have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from equivbench.gap.intervals import Quantity
from equivbench.gap.pairing import AUGMENTED
from equivbench.records.curves import ResultWeights
from equivbench.records.schema import RunRecord
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
from equivbench.studies.claims.statements import LANDSCAPE, TRACKS
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
_NOTES = {
    "fresh_r2": "the criterion as published",
    "in_plane_condition": "without an interval, not judged",
    "roughness": "without an interval, not judged",
}
_TITLES = {"ratio": "gradient-norm ratio", "deviation": "deviation of the weights"}


def _in_order(
    analyses: Sequence[A], key: Callable[[A], tuple[object, ...]]
) -> list[tuple[A, list[A]]]:
    """The analyses of an augmented arm's weights, no point of a sweep: for each ``key`` the first
    that was made, which counts, and the later ones, which replace nothing."""
    alike: dict[object, list[A]] = defaultdict(list)
    for each in sorted(analyses, key=lambda analysis: analysis.created):
        if each.arm == AUGMENTED and "sweep" not in each.variant:
            alike[key(each)].append(each)
    return [(own[0], own[1:]) for own in alike.values()]


def _repetitions(count: int) -> list[ClaimFigure]:
    """What is said of ``count`` analyses that do not count; nothing where there are none."""
    if not count:
        return []
    what = "later analyses of the same, which replace nothing: the first counts"
    return [figure(what, Quantity(float(count)))]


def weights_of(analysis: Gradients | Landscape, run: RunRecord) -> ResultWeights:
    """Which weights of ``run`` were analysed. Snapshots lie on its trunk, which is never
    annealed."""
    if analysis.weights == "ema":
        return "ema"
    ended = isinstance(analysis, Landscape) and analysis.step == run.steps
    return "annealed" if ended else "raw"


def _of(machine: MachineEvidence, analyses: Sequence[A], weights: ResultWeights) -> list[A]:
    return [each for each in analyses if weights_of(each, machine.record_of(each)) == weights]


def easier(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C3: a part for each slice around an augmented arm's weights, the first of each run, step,
    layers and directions."""
    slices = _in_order(
        _of(machine, machine.landscapes, weights),
        lambda each: (each.task, each.pair, each.run_id, each.step, each.layers, each.along),
    )
    return [_slice_part(machine, each, later) for each, later in slices]


def _slice_part(
    machine: MachineEvidence, landscape: Landscape, later: Sequence[Landscape]
) -> ClaimPart:
    equivariance, twirled = (landscape.parts[part] for part, _ in _SHOWN)
    where = "all parameters" if landscape.layers == "*" else f"layers {landscape.layers}"
    repeats = [part.repeated for part in (equivariance, twirled)]
    known = [each for each in repeats if each is not None]
    unknown, noise = len(known) < len(repeats), min(known, default=0.0) < LANDSCAPE
    decided = decide(
        (unknown, "not measured", "without a repeat nobody knows what of the slice is noise"),
        (noise, "not measured", "the slice does not repeat: it is mostly the draw"),
        (_better(equivariance, twirled), "held", "the equivariance error is better conditioned"),
        (
            _better(twirled, equivariance),
            "did not hold",
            "the equivariance error is worse conditioned",
        ),
        (True, "undecided", "the intervals of the condition numbers meet"),
    )
    detail = ""
    if known:
        detail = f"correlation {min(known):.2f}"
    smooth = [part.fresh_r2 for part in (equivariance, twirled)]
    published: ClaimVerdict = (
        "not measured"
        if smooth[0] is None or smooth[1] is None
        else "held"
        if smooth[0] > smooth[1]
        else "did not hold"
    )
    return make_part(
        (landscape.task, landscape.pair),
        "",
        f", seed {landscape.seed}, step {landscape.step}, {where}, along the {landscape.along} "
        "error",
        decided,
        published,
        detail,
        [
            *(_property(landscape, part, name) for part, _ in _SHOWN for name in _FIGURES),
            *(
                figure(
                    f"{title}: effective condition of a later analysis, not counted",
                    each.parts[part].effective_condition.quantity,
                )
                for each in later
                for part, title in _SHOWN
            ),
        ],
        (machine.record_of(landscape), landscape),
    )


def _property(landscape: Landscape, part: str, name: str) -> ClaimFigure:
    value = getattr(landscape.parts[part], name)
    note = landscape.reasons.get(f"parts.{part}.{name}", "")
    return figure(
        f"{dict(_SHOWN)[part]}: {_FIGURES[name]}",
        value.quantity if isinstance(value, Estimate) else Quantity(value),
        note=note or _NOTES.get(name, ""),
    )


def _better(first: Curvature, second: Curvature) -> bool:
    """By whole intervals: an end that is open overlaps with everything beyond it."""
    high, low = first.effective_condition.high, second.effective_condition.low
    return high is not None and low is not None and high < low


def follows(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C6: a part for each pair and each of the two quantities that was measured on it, over all
    seeds of its augmented arm."""
    pairs: dict[tuple[str, ...], list[Gradients]] = defaultdict(list)
    own = _of(machine, machine.gradients, weights)
    repeated: dict[tuple[str, ...], int] = defaultdict(int)
    for each, later in _in_order(own, lambda each: (*_kind(each), each.run_id)):
        pairs[_kind(each)].append(each)
        repeated[_kind(each)] += len(later)
    return [
        _trend_part(machine, analyses, quantity, repeated[kind])
        for kind, analyses in pairs.items()
        for quantity in QUANTITIES
        if quantity != "deviation"
        or any(point.deviation is not None for each in analyses for point in each.points)
    ]


def _kind(analysis: Gradients) -> tuple[str, ...]:
    variant = repr(sorted(analysis.variant.items()))
    return analysis.task, analysis.pair, analysis.model, variant


def _trend_part(
    machine: MachineEvidence, analyses: Sequence[Gradients], quantity: str, repeated: int
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
        decide(
            (raw.quantity.value is None, "not measured", None),
            ((raw.quantity.value or 0.0) > 0, "held", None),
            (True, "did not hold", None),
        )[0],
        detail,
        (
            figure(what, raw.quantity, note=raw.reason or ""),
            figure(
                f"correlation with the {title}, detrended", partial, note=detrended.reason or ""
            ),
            figure("seeds", Quantity(float(len(analyses)))),
            figure("snapshots", Quantity(float(points))),
            *_repetitions(repeated),
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
            "undecided",
            "one seed is one curve, whatever its points",
        ),
        (above(detrended.quantity, 0.0), "held", "correlated beyond the common trend"),
        (
            high is not None and high < TRACKS,
            "did not hold",
            "not correlated beyond the common trend",
        ),
        (True, "undecided", "the interval does not decide"),
    )
