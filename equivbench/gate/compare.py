"""Two sides compared: what belongs together, what is missing or incomparable, and the verdict on
each benchmark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from equivbench.counted import counted
from equivbench.gate.metrics import DEFAULT
from equivbench.gate.samples import Samples, Side
from equivbench.gate.verdict import GateVerdict, judge, level_of, shown, useless

CONTROL_THRESHOLD = 0.025
"""Half of the default threshold: a machine that moves code that cannot change by this much moves
all else too."""


@dataclass(frozen=True)
class Judgement:
    """One line of the report. What is not known is None; nothing is infinite or NaN."""

    benchmark: str
    metric: str
    verdict: GateVerdict
    reason: str
    unit: str = ""
    baseline: float | None = None
    """Median over rounds, geometric mean over seeds (plain mean where the metric's noise rules)."""
    candidate: float | None = None
    change: float | None = None
    """Candidate over baseline less 1, in the metric's own sense: +0.1 is a value 10% larger."""
    low: float | None = None
    high: float | None = None
    """Bounds of ``change``, each by itself at ``level``; None with a single seed."""
    level: float | None = None
    threshold: float | None = None
    power: float | None = None
    """The smallest relative change for the worse that 95 of 100 such comparisons find; None with a
    single seed."""
    repeats: str = ""
    """Such as ``8 rounds`` or ``3 seeds``."""
    control: bool = False
    context: dict[str, str] = field(default_factory=dict)
    """What else was compared like with like: the machine, kernels, budget, data, ..."""


def compare(
    baseline: Side,
    candidate: Side,
    *,
    thresholds: Mapping[str, float],
    allow_dirty: bool = False,
) -> list[Judgement]:
    """Every benchmark of either side with its verdict, worst first within each kind as read.

    Fails closed: what one side lacks, cannot be read or was measured elsewhere has a verdict of its
    own, and so has a comparison that holds nothing at all.
    """
    judgements = [
        Judgement(benchmark=each.source, metric="", verdict="failed", reason=each.reason)
        for side in (baseline, candidate)
        for each in side.unreadable
    ]
    pairs = list(_match(baseline.measurements, candidate.measurements))
    timed = sum(
        one is not None and other is not None and one.unit == "round" and not one.control
        for one, other in pairs
    )
    judged = [_judge(*pair, thresholds, timed, allow_dirty) for pair in pairs]
    judgements += _distrust_if_control_moved(judged, pairs)
    if not baseline.measurements and not baseline.unreadable:
        judgements.append(
            Judgement(
                benchmark="all",
                metric="",
                verdict="failed",
                reason="the baseline holds nothing to compare with",
            )
        )
    return judgements


MatchedSamples = tuple[Samples | None, Samples | None]


def _match(baseline: Sequence[Samples], candidate: Sequence[Samples]) -> Iterator[MatchedSamples]:
    """Baseline and candidate of the same name and metric: those of one context first, what is left
    against what is left."""
    sides: list[dict[tuple[str, str], list[Samples]]] = [defaultdict(list), defaultdict(list)]
    for side, measurements in zip(sides, (baseline, candidate), strict=True):
        for each in measurements:
            side[each.key].append(each)
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        ours, theirs = sides[0].get(key, []), list(sides[1].get(key, []))
        alone: list[Samples] = []
        for one in ours:
            partner = next((other for other in theirs if other.context == one.context), None)
            if partner is None:
                alone.append(one)
            else:
                theirs.remove(partner)
                yield one, partner
        for place, one in enumerate(alone):
            yield one, (theirs[min(place, len(theirs) - 1)] if theirs else None)
        if not alone:
            yield from ((None, other) for other in theirs)


def _judge(
    baseline: Samples | None,
    candidate: Samples | None,
    thresholds: Mapping[str, float],
    timed: int,
    allow_dirty: bool,
) -> Judgement:
    one = baseline or candidate
    assert one is not None
    obstacle = _obstacle(baseline, candidate, allow_dirty)
    if obstacle is None:
        assert baseline is not None
        assert candidate is not None
        return _figures(baseline, candidate, thresholds, timed)
    return _line(one, *obstacle)


def _obstacle(
    baseline: Samples | None, candidate: Samples | None, allow_dirty: bool
) -> tuple[GateVerdict, str] | None:
    """The verdict where there are no two sides to compare like with like, and why."""
    if candidate is None:
        return "missing", "in the baseline and not in the candidate"
    sides = {"candidate": candidate}
    if baseline is not None:
        sides = {"baseline": baseline, **sides}
    # What a side said comes before what it lacks, which may be the other's doing.
    for name, side in sorted(sides.items(), key=lambda each: each[1].problem is None):
        if (defect := side.defect() or useless(side)) is not None:
            return "failed", f"in the {name}, {defect}"
    if baseline is None:
        return "new", "not in the baseline"
    unlike = [
        f"{name} {baseline.context.get(name)} against {candidate.context.get(name)}"
        for name in dict.fromkeys([*baseline.context, *candidate.context])
        if baseline.context.get(name) != candidate.context.get(name)
    ]
    if unlike:
        return "incomparable", "; ".join(unlike)
    vanished = sorted(set(baseline.values) - set(candidate.values))
    if baseline.unit == "seed" and vanished:
        seeds = ", ".join(map(str, vanished))
        return "missing", f"seeds {seeds} of the baseline are not in the candidate"
    dirty = " and the ".join(name for name, side in sides.items() if side.dirty)
    if dirty and not allow_dirty:
        return "dirty", f"the {dirty} had uncommitted changes; commit them or use --allow-dirty"
    return None


def _figures(
    baseline: Samples, candidate: Samples, thresholds: Mapping[str, float], timed: int
) -> Judgement:
    threshold = thresholds.get(baseline.metric.name, DEFAULT)
    if baseline.control:
        threshold = CONTROL_THRESHOLD
    level = level_of(baseline.unit, timed)
    verdict, reason, found = judge(baseline, candidate, threshold, level)
    disturbed = baseline.disturbed or candidate.disturbed
    if disturbed is not None:
        verdict, reason = "inconclusive", disturbed
    others = [
        f"{name} {baseline.beside[name]} against {candidate.beside.get(name, 'an unknown one')}"
        for name in baseline.beside
        if baseline.beside[name] != candidate.beside.get(name)
    ]
    if others:
        reason = f"{reason}; with {' and '.join(others)}"
    higher = baseline.metric.direction == "higher"
    change, *bounds = (
        None if ratio is None else (1 / ratio if higher else ratio) - 1
        for ratio in (found.ratio, found.low, found.high)
    )
    low, high = reversed(bounds) if higher else bounds
    return replace(
        _line(baseline, verdict, reason),
        baseline=shown(baseline),
        candidate=shown(candidate),
        change=change,
        low=low,
        high=high,
        level=level,
        threshold=threshold,
        power=found.power(threshold),
        repeats=counted(found.repeats, baseline.unit),
    )


def _line(measurement: Samples, verdict: GateVerdict, reason: str) -> Judgement:
    return Judgement(
        benchmark=measurement.name,
        metric=measurement.metric.name,
        unit=measurement.metric.unit,
        verdict=verdict,
        reason=reason,
        control=measurement.control,
        context=dict(measurement.context),
    )


def _distrust_if_control_moved(
    judged: Sequence[Judgement], pairs: Sequence[MatchedSamples]
) -> list[Judgement]:
    """Where the control moved, nothing that was timed beside it says anything: those verdicts
    become inconclusive."""
    moved = [
        each.change
        for each in judged
        if each.control and each.change is not None and abs(each.change) > CONTROL_THRESHOLD
    ]
    if not moved:
        return list(judged)
    why = f"the control, which cannot change, moved by {moved[0]:+.1%}: the machine did"
    told = ("regression", "improvement", "unchanged", "inconclusive")
    return [
        replace(each, verdict="inconclusive", reason=why)
        if baseline is not None and baseline.session is not None and each.verdict in told
        else each
        for each, (baseline, _) in zip(judged, pairs, strict=True)
    ]
