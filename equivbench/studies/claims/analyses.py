"""C3 and C6, from analyses of trained runs: that the equivariance error has the better conditioned
landscape, and that the share follows the gradients' ratio and the weights' deviation
beyond what two falling curves have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from equivbench.counted import counted
from equivbench.gap.campaigns import telling_campaign
from equivbench.gap.intervals import UNKNOWN, Quantity, over_seeds
from equivbench.gap.pairing import Setting
from equivbench.records.curves import ResultWeights
from equivbench.records.schema import RunRecord
from equivbench.report.text import quantity_text
from equivbench.specs import AUGMENTED
from equivbench.studies.claims.evidence import MachineEvidence
from equivbench.studies.claims.findings import (
    ClaimFigure,
    ClaimPart,
    ClaimVerdict,
    above,
    decide,
    figure,
    make_part,
    within,
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
_NOTES_OVER_SEEDS = _NOTES | dict.fromkeys(("in_plane_condition", "roughness"), "not judged")
_RATIOS = ("effective_condition", "in_plane_condition")
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


@dataclass(frozen=True)
class _SeedSlice:
    """The first slice of its kind around the weights of ``run``, and the later ones of the same."""

    run: RunRecord
    landscape: Landscape
    later: list[Landscape]

    @property
    def curvatures(self) -> tuple[Curvature, Curvature]:
        """Of the equivariance error and of the rest, the twirled error."""
        return self.landscape.parts["equivariance"], self.landscape.parts["twirled"]

    @property
    def correlation(self) -> float | None:
        """The lower one of both parts with another draw; None where one was not repeated."""
        repeated = [part.repeated for part in self.curvatures]
        known = [each for each in repeated if each is not None]
        return min(known) if len(known) == len(repeated) else None

    @property
    def ratio(self) -> float | None:
        """Of the effective condition numbers: below 1 the equivariance error is the better
        conditioned."""
        first, second = (part.effective_condition.value for part in self.curvatures)
        return first / second if first is not None and second else None


def easier(machine: MachineEvidence, weights: ResultWeights) -> list[ClaimPart]:
    """C3: a part for each kind of slice around an augmented arm's weights (setting, place in the
    run, layers, direction), over the seeds of one campaign."""
    slices = _in_order(
        _of(machine, machine.landscapes, weights),
        lambda each: (each.task, each.pair, each.run_id, each.step, each.layers, each.along),
    )
    alike: dict[tuple[object, ...], list[_SeedSlice]] = defaultdict(list)
    for each, later in slices:
        run = machine.record_of(each)
        # Runs of one budget end at steps of their own.
        place = "end" if each.step == run.steps else each.step
        kind = (Setting.of(run), run.model.kernels, place, each.layers, each.along)
        alike[kind].append(_SeedSlice(run, each, later))
    return [_slices_part(own) for own in alike.values()]


def _slices_part(found: Sequence[_SeedSlice]) -> ClaimPart:
    campaign = {run.run_id for run in telling_campaign([each.run for each in found])}
    own = [each for each in found if each.run.run_id in campaign]
    first: dict[int, _SeedSlice] = {}
    for each in sorted(own, key=lambda each: (each.run.created, each.run.run_id)):
        first.setdefault(each.run.seed, each)
    slices = [first[seed] for seed in sorted(first)]
    again = [each.landscape for each in own if each not in slices]
    again += [landscape for each in own for landscape in each.later]
    counting = [each for each in slices if (each.correlation or 0.0) >= LANDSCAPE]
    judged = counting or slices
    ratio = _ratio(counting)
    detail = [f"ratio {quantity_text(ratio)}"] if len(counting) >= FEWEST_SEEDS else []
    known = [each.correlation for each in judged if each.correlation is not None]
    if known:
        detail.append(f"correlation {min(known):.2f}")
    smooth = [_mean([each.landscape.parts[part].fresh_r2 for each in judged]) for part, _ in _SHOWN]
    published: ClaimVerdict = decide(
        (smooth[0] is None or smooth[1] is None, "not measured", None),
        ((smooth[0] or 0.0) > (smooth[1] or 0.0), "held", None),
        (True, "did not hold", None),
    )[0]
    figures = [figure("seeds", Quantity(float(len(counting))), note=_lacking(slices, counting))]
    if len(counting) >= FEWEST_SEEDS:
        ratios = [each.ratio for each in counting]
        each_seed = ", ".join("-" if own is None else f"{own:.3g}" for own in ratios)
        what = "effective condition of the equivariance error over that of the twirled error"
        figures.append(figure(what, ratio, note=f"seed by seed: {each_seed}"))
    run = slices[0].run
    return make_part(
        (run.task, run.pair),
        "",
        _slices_text(slices, len(found) - len(own)),
        _conditioned(slices, counting, ratio),
        published,
        ", ".join(detail),
        [
            *figures,
            *(_property(judged, part, name) for part, _ in _SHOWN for name in _FIGURES),
            *(
                figure(
                    f"{title}: effective condition of a later analysis, not counted",
                    each.parts[part].effective_condition.quantity,
                )
                for each in again
                for part, title in _SHOWN
            ),
        ],
        [source for each in slices for source in (each.run, each.landscape)],
    )


def _slices_text(slices: Sequence[_SeedSlice], left_out: int) -> str:
    """What the slices are of, and what was left out."""
    first, steps = slices[0], [each.landscape.step for each in slices]
    setting, layers = Setting.of(first.run), first.landscape.layers
    texts = [
        setting.dataset,
        f"{setting.budget_limit:g} {setting.budget_kind}",
        f"seed{'s' * (len(slices) > 1)} {', '.join(str(each.run.seed) for each in slices)}",
        f"step {steps[0]}" if len({*steps}) == 1 else f"steps {min(steps)} to {max(steps)}",
        "all parameters" if layers == "*" else f"layers {layers}",
        f"along the {first.landscape.along} error",
    ]
    if left_out:
        texts.append(f"left out {counted(left_out, 'landscape')} of another code or day")
    return "".join(f", {text}" for text in texts)


def _lacking(slices: Sequence[_SeedSlice], counting: Sequence[_SeedSlice]) -> str:
    """Which seeds do not count, and why."""
    others = [str(each.run.seed) for each in slices if each not in counting]
    return f"not counted, for their slices do not repeat: {', '.join(others)}" if others else ""


def _conditioned(
    slices: Sequence[_SeedSlice], counting: Sequence[_SeedSlice], ratio: Quantity
) -> tuple[ClaimVerdict, str]:
    several, whose = len(counting) >= FEWEST_SEEDS, f"over {counted(len(counting), 'seed')}"
    unknown = any(each.correlation is None for each in slices)
    if several:
        better, worse = within(ratio, 1.0), above(ratio, 1.0)
        unsure = "the interval of the ratio of the condition numbers holds 1"
    else:
        whose = "in one seed"
        better, worse = (
            any(_better(*pair) for pair in pairs)
            for pairs in (
                [each.curvatures for each in counting],
                [each.curvatures[::-1] for each in counting],
            )
        )
        unsure = "the intervals of the condition numbers meet"
    return decide(
        (
            not counting and unknown,
            "not measured",
            "without a repeat nobody knows what of the slice is noise",
        ),
        (not counting, "not measured", "the slice does not repeat: it is mostly the draw"),
        (better, "held", f"the equivariance error is better conditioned, {whose}"),
        (worse, "did not hold", f"the equivariance error is worse conditioned, {whose}"),
        (
            several and ratio == UNKNOWN,
            "undecided",
            f"not every seed has both condition numbers, {whose}",
        ),
        (True, "undecided", f"{unsure}, {whose}"),
    )


def _ratio(slices: Sequence[_SeedSlice]) -> Quantity:
    """The geometric mean over seeds; unknown where a seed has none."""
    known = [each.ratio for each in slices if each.ratio is not None]
    return over_seeds(known, geometric=True) if len(known) == len(slices) else UNKNOWN


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _property(slices: Sequence[_SeedSlice], part: str, name: str) -> ClaimFigure:
    """One seed's, with its own interval; of several their mean with its interval over seeds."""
    found = [getattr(each.landscape.parts[part], name) for each in slices]
    estimates = [each.quantity if isinstance(each, Estimate) else Quantity(each) for each in found]
    reasons = [each.landscape.reasons.get(f"parts.{part}.{name}", "") for each in slices]
    quantity, notes = estimates[0], _NOTES
    if len(slices) > 1:
        known = [each.value for each in estimates if each.value is not None]
        whole = len(known) == len(estimates)
        quantity = over_seeds(known, geometric=name in _RATIOS) if whole else UNKNOWN
        notes = _NOTES_OVER_SEEDS
    note = next(filter(None, reasons), "") or notes.get(name, "")
    return figure(f"{dict(_SHOWN)[part]}: {_FIGURES[name]}", quantity, note=note)


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
