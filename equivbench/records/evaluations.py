"""Rules on the evaluations of a run record: each decomposes into its parts and groups, and those
that are compared are of the same samples and set against the same baselines."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence

from equivbench.records.outline import RecordOutline
from equivbench.records.rules import SUM_TOLERANCE, Rule, close, out_of_range
from equivbench.records.schema import RunRecord, Test, TestPart

ROUNDING = 1e-15
"""Relative to a loss: below it a part of it is rounding."""
FINALS = ("final", "final_on_part", "final_raw", "final_ema")
"""The evaluations that a completed run ends with."""
OF_A_PART = ("total", "twirled", "equivariance", "share")
OF_A_TEST = ("objective", "floor", "explained", "over_best_untrained")
"""Metrics of a part of an evaluation, and those that only the whole has."""


def evaluations(record: RunRecord) -> Iterator[tuple[str, Test]]:
    """(where, evaluation) of every evaluation in ``record``, those of the trace first."""
    yield from of_test_set(record)
    yield from record.out_of_distribution.items()


def of_test_set(record: RunRecord) -> Iterator[tuple[str, Test]]:
    """(where, evaluation) of those on the test set or the part of it that is read on the way."""
    for point in record.trace:
        yield f"trace at step {point.step}", point.test
        yield f"trace at step {point.step}, ema", point.ema
    # The last rung is ``final``.
    yield from ((f"rung of {rung.budget:g}", rung.test) for rung in record.rungs[:-1])
    for name in FINALS:
        test = getattr(record, name)
        if test is not None:
            yield name, test


def judged_under(record: RunRecord) -> str | None:
    """The group of rotations that ``record`` was evaluated under; None for a run that ended before
    its first evaluation."""
    if isinstance(record, RecordOutline):
        return record.judged_under
    return next((test.group for _, test in evaluations(record)), None)


def implied_baseline(test: Test) -> float | None:
    """The loss of the baseline that ``explained = 1 - total / baseline`` implies, or None."""
    if test.total is None or test.explained is None or test.explained >= 1:
        return None
    return test.total / (1 - test.explained)


def implied_baselines(record: RunRecord) -> dict[int, list[float]]:
    """The baselines that the evaluations imply, by the number of test samples: on the same samples
    there is only one."""
    implied: dict[int, list[float]] = {}
    for _, test in of_test_set(record):
        baseline = implied_baseline(test)
        if baseline is not None:
            implied.setdefault(test.samples, []).append(baseline)
    return implied


def _samples(record: RunRecord) -> Iterator[str]:
    """Evaluations that are compared are made of the same samples."""
    for where, test in evaluations(record):
        for name in ("samples", "rotations"):
            if getattr(test, name) <= 0:
                yield f"{where}: {name} is {getattr(test, name)}"
    tests = dict(of_test_set(record))
    size = record.dataset.sizes.get("test")
    most = max((test.samples for test in tests.values()), default=0)
    if size is not None and most > size:
        yield f"{most} test samples were evaluated, the test split has {size}"
    whole = [test for name, test in tests.items() if name in FINALS and name != "final_on_part"]
    part = [test for name, test in tests.items() if name not in FINALS or name == "final_on_part"]
    for what, several in (("final results", whole), ("rungs and trace", part)):
        if len({(test.samples, test.rotations) for test in several}) > 1:
            yield f"the {what} differ in samples or rotations, so that they cannot be compared"
        if len({(*test.by,) for test in several}) > 1:
            yield f"the {what} have other parts (by) on the same samples"
        if len({(*test.errors,) for test in several}) > 1:
            yield f"the {what} have errors of other outputs"
        weights = {tuple(test.groups.weights) for test in several if test.groups is not None}
        if len(weights) > 1:
            yield f"the {what} have other groups.weights on the same samples"
    if len({test.group for test in tests.values()}) > 1:
        yield "the evaluations are under rotations of different groups"


def _strata(record: RunRecord) -> Iterator[str]:
    """A whole lies between its parts, and on the same samples a part is always set against the same
    untrained predictor."""
    best: dict[tuple[int, str], list[float]] = {}
    for where, test in of_test_set(record):
        for name, part in test.by.items():
            if part.total and part.over_best_untrained:
                implied = part.total / part.over_best_untrained
                best.setdefault((test.samples, name), []).append(implied)
        for name in ("total", "twirled", "equivariance"):
            parts = [getattr(part, name) for part in test.by.values()]
            whole, known = getattr(test, name), [each for each in parts if each is not None]
            if whole is None or not known:
                continue
            slack = SUM_TOLERANCE * max(map(abs, known))
            if not min(known) - slack <= whole <= max(known) + slack:
                yield f"{where}: {name} {whole:.9g} is outside that of all its parts (by)"
    for (samples, name), several in best.items():
        if not close(min(several), max(several)):
            yield (
                f"{name}: total and over_best_untrained imply untrained predictors from "
                f"{min(several):.9g} to {max(several):.9g} on {samples} samples"
            )


def _baselines(record: RunRecord) -> Iterator[str]:
    """On the same samples every evaluation is set against the same baselines."""
    for implied in implied_baselines(record).values():
        if not close(min(implied), max(implied)):
            yield (
                f"explained and total imply baselines from {min(implied):.9g} to "
                f"{max(implied):.9g}; there is only one"
            )
    best: dict[int, list[float]] = {}
    for _, test in of_test_set(record):
        if test.total and test.over_best_untrained:
            best.setdefault(test.samples, []).append(test.total / test.over_best_untrained)
    if record.final is not None and record.final.over_best_untrained and record.baselines:
        best.setdefault(record.final.samples, []).append(min(record.baselines.values()))
    for implied in best.values():
        if not close(min(implied), max(implied)):
            yield (
                f"total and over_best_untrained imply best untrained predictors from "
                f"{min(implied):.9g} to {max(implied):.9g}; there is only one"
            )


def _groups(record: RunRecord) -> Iterator[str]:
    """The errors by group average to those of their evaluation."""
    for where, test in evaluations(record):
        groups = test.groups
        if groups is None:
            continue
        if not groups.weights or min(groups.weights) <= 0:
            yield f"{where}: groups.weights must be positive, one for each group"
            continue
        for name in ("total", "equivariance"):
            row, whole = getattr(groups, name), getattr(test, name)
            if len(row) != len(groups.weights):
                yield f"{where}: groups.{name} is not one value a group"
                continue
            mean = _weighted_mean(row, groups.weights)
            scale = _weighted_mean(list(map(abs, row)), groups.weights)
            if whole is not None and abs(mean - whole) > SUM_TOLERANCE * max(scale, abs(whole)):
                yield (f"{where}: groups.{name} average to {mean:.9g}, the test says {whole:.9g}")


def _evaluations(record: RunRecord) -> Iterator[str]:
    """Every evaluation decomposes into its parts."""
    for where, test in evaluations(record):
        whole = {name: getattr(test, name) for name in OF_A_TEST}
        for problem in (*out_of_range(whole), *_decomposition(test)):
            yield f"{where}: {problem}"
        for name, value in test.errors.items():
            if value is not None and value < 0:
                yield f"{where}: the error of {name} is {value:g}; it is a mean of squares"
        for name, part in test.by.items():
            for problem in _decomposition(part):
                yield f"{where}: {name}: {problem}"


def _decomposition(part: Test | TestPart) -> Iterator[str]:
    """total = twirled + equivariance, and share = equivariance / total."""
    total, twirled, equivariance, share = part.total, part.twirled, part.equivariance, part.share
    values = (total, twirled, equivariance, share)
    yield from out_of_range(dict(zip(OF_A_PART, values, strict=True)))
    if total is None or twirled is None or equivariance is None:
        return
    slack = SUM_TOLERANCE * max(abs(total), abs(twirled), abs(equivariance))
    if abs(total - twirled - equivariance) > slack:
        yield f"total {total:.9g} is not twirled {twirled:.9g} + equivariance {equivariance:.9g}"
    # A quotient of the same two sums: a share of 1e-12 is as exact as one of a half.
    apart = 0.0 if share is None else abs(share * total - equivariance)
    if share is not None and apart > SUM_TOLERANCE * abs(equivariance) + ROUNDING * abs(total):
        quotient = equivariance / total if total else math.nan
        yield f"share {share:.9g} is not equivariance / total, {quotient:.9g}"


def _weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    weighted: float = sum(map(operator.mul, values, weights))
    return weighted / sum(weights)


EVALUATED: tuple[Rule[RunRecord], ...] = (
    _samples,
    _strata,
    _baselines,
    _groups,
    _evaluations,
)
