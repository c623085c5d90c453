"""The judgement of one benchmark: what rounds can prove, and what they cannot."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_samples import noisy, rounds, seeds

from equivbench.gate.estimate import RatioEstimate, estimate
from equivbench.gate.samples import Samples
from equivbench.gate.verdict import GateVerdict, centre, judge, level_of, percent, useless

THRESHOLD = 0.05
LEVEL = 0.99
positive = st.floats(1e-6, 1e3)


def ratio(baseline: Samples, candidate: Samples) -> RatioEstimate:
    return estimate(baseline, candidate, LEVEL)


@settings(max_examples=25)
@given(st.lists(positive, min_size=1, max_size=12), st.lists(positive, min_size=1, max_size=12))
def test_exchanging_the_sides_inverts_the_ratio_and_its_interval(
    first: list[float], second: list[float]
) -> None:
    there = ratio(rounds(first, session="a"), rounds(second, session="b"))
    back = ratio(rounds(second, session="b"), rounds(first, session="a"))
    assert there.ratio == pytest.approx(
        1 / back.ratio, rel=1e-9
    )  # logarithms of 24 numbers, in float64
    if there.low is not None and there.high is not None:
        assert there.low <= there.ratio <= there.high
        assert back.low is not None
        assert there.high == pytest.approx(1 / back.low, rel=1e-6)


@settings(max_examples=25)
@given(st.lists(positive, min_size=2, max_size=12), st.floats(0.01, 100))
def test_only_ratios_matter(values: list[float], scale: float) -> None:
    slower = [1.07 * value for value in values]
    plain = ratio(rounds(values), rounds(slower))
    scaled = ratio(rounds([scale * v for v in values]), rounds([scale * v for v in slower]))
    assert plain.ratio == pytest.approx(1.07, rel=1e-9)
    assert scaled.ratio == pytest.approx(1.07, rel=1e-9)


def test_neighbouring_rounds_cancel_what_both_sides_share() -> None:
    drift = np.linspace(1.0, 3.0, 8)
    paired = ratio(rounds(drift), rounds(1.1 * drift))
    apart = ratio(rounds(drift), rounds(1.1 * drift, session="another"))
    assert paired.low == pytest.approx(1.1, rel=1e-6)
    assert apart.low is not None
    assert apart.low < 1.0


@pytest.mark.parametrize(("count", "session"), [(6, "one"), (10, "one"), (20, "other")])
def test_the_bounds_are_wrong_as_often_as_they_say(count: int, session: str) -> None:
    draws = 600
    low = high = 0
    for seed in range(draws):
        first, second = (noisy(1.0, 0.05, count, 2 * seed + side) for side in (0, 1))
        found = estimate(rounds(first), rounds(second, session=session), 0.95)
        assert found.low is not None
        assert found.high is not None
        low += found.low > 1.0
        high += found.high < 1.0
    # Of 600 draws 30 are expected on either side, with a standard deviation of 5.3; the trimmed
    # mean's bounds are known to be a little cautious.
    assert 13 <= low <= 46
    assert 13 <= high <= 46


def test_a_slow_down_of_the_stated_power_is_found_as_often_as_it_says() -> None:
    found = misses = 0
    for seed in range(400):
        first, second = (noisy(1.0, 0.02, 10, 2 * seed + side) for side in (0, 1))
        power = estimate(rounds(first), rounds(second), 0.999).power(THRESHOLD)
        assert power is not None
        slower = rounds([(1 + power) * value for value in second])
        verdict = judge(rounds(first), slower, THRESHOLD, 0.999)[0]
        found += verdict == "regression"
        misses += verdict == "unchanged"
    # 95 of 100, and the standard deviation is 1.1; the power is itself estimated.
    assert found >= 364
    assert misses <= 1, "what exceeds the stated power is never called unchanged"


def test_a_suite_of_unchanged_timings_is_called_slower_once_in_200() -> None:
    suites, benchmarks = 150, 20
    level = level_of("round", benchmarks)
    alarms = 0
    for suite in range(suites):
        seen = [
            judge(
                rounds(noisy(1.0, 0.05, 10, 1000 * suite + 2 * number)),
                rounds(noisy(1.0, 0.05, 10, 1000 * suite + 2 * number + 1)),
                THRESHOLD,
                level,
            )[0]
            for number in range(benchmarks)
        ]
        alarms += "regression" in seen
    # One in 400 is expected: three of 150 would be a chance of one in a hundred.
    assert alarms <= 2


def test_seeds_have_a_level_of_their_own() -> None:
    assert level_of("seed", 100) == level_of("seed", 1) < level_of("round", 100)


def verdict(
    baseline: list[float], candidate: list[float], threshold: float = THRESHOLD
) -> GateVerdict:
    return judge(rounds(baseline), rounds(candidate), threshold, LEVEL)[0]


def test_identical_rounds_are_unchanged() -> None:
    assert verdict([1.0] * 8, [1.0] * 8) == "unchanged"


def test_clear_changes_are_found_in_both_directions() -> None:
    slow, fast = noisy(1.1, 0.01, 8, 1), noisy(1.0, 0.01, 8, 2)
    assert verdict(fast, slow) == "regression"
    assert verdict(slow, fast) == "improvement"


@pytest.mark.parametrize("planted", [1.10, 1 / 1.10])
def test_a_tenth_is_found_in_nine_of_ten_and_nothing_in_none(planted: float) -> None:
    found: Counter[str] = Counter()
    null: Counter[str] = Counter()
    for seed in range(100):
        first, second = noisy(1.0, 0.02, 8, 2 * seed), noisy(1.0, 0.02, 8, 2 * seed + 1)
        null[verdict(first, second)] += 1
        found[verdict(first, [planted * value for value in second])] += 1
    assert found["regression" if planted > 1 else "improvement"] >= 90
    assert null["regression"] == null["improvement"] == 0


def test_beyond_the_threshold_without_proof_is_inconclusive() -> None:
    assert verdict([1.0, 1.0, 1.0, 1.0], [1.3, 0.9, 1.4, 0.9]) == "inconclusive"
    assert verdict([1.0] * 8, [1.04, 1.10] * 4, 0.05) == "regression"
    assert verdict([1.0] * 8, [0.94, 1.20] * 4, 0.05) == "inconclusive"


def test_noise_that_could_hide_a_change_is_inconclusive() -> None:
    assert verdict([1.0] * 4, [0.7, 1.4, 0.75, 1.36]) == "inconclusive"


def test_the_direction_is_the_metrics() -> None:
    rates = {"metric": "samples_per_second"}
    assert (
        judge(seeds([100.0] * 3, **rates), seeds([50.0] * 3, **rates), THRESHOLD, LEVEL)[0]
        == "regression"
    )
    assert judge(seeds([100.0] * 3), seeds([50.0] * 3), THRESHOLD, LEVEL)[0] == "improvement"


def test_a_single_seed_decides_only_what_is_deterministic() -> None:
    assert judge(seeds([1.0]), seeds([1.2]), THRESHOLD, LEVEL)[0] == "regression"
    loose = {"deterministic": False}
    assert useless(seeds([1.0])) is None
    assert useless(seeds([1.0], **loose)) is not None
    assert useless(seeds([1.0, 1.0], **loose)) is None


def test_what_lies_under_the_clip_does_not_matter() -> None:
    clip = {"metric": "share", "clip": 1e-3, "resolution": 1e-3}

    def of(*values: float) -> Samples:
        return seeds(values, **clip)

    def found(baseline: Samples, candidate: Samples) -> GateVerdict:
        return judge(baseline, candidate, THRESHOLD, LEVEL)[0]

    assert found(of(1e-13, -1e-9), of(1e-5, 9e-4)) == "unchanged"
    assert found(of(1e-3, 1e-3), of(1.9e-3, 1.9e-3)) == "unchanged"
    assert found(of(1e-3, 1e-3), of(4e-3, 4e-3)) == "regression"


def test_one_disturbed_round_is_no_change() -> None:
    steady = noisy(1.0, 0.005, 8, 5)
    disturbed = [3.0 * steady[0], *steady[1:]]
    assert ratio(rounds(steady), rounds(disturbed)).ratio == pytest.approx(1.0, abs=0.005)
    assert verdict(steady, disturbed) in ("unchanged", "inconclusive")
    assert verdict(disturbed, steady) in ("unchanged", "inconclusive")
    assert verdict(steady, [1.1 * value for value in disturbed]) == "regression"


def test_results_do_not_change_from_call_to_call() -> None:
    pair = rounds(noisy(1.0, 0.1, 8, 3)), rounds(noisy(1.0, 0.1, 8, 4))
    assert ratio(*pair) == ratio(*pair)


def test_centre_is_the_median_of_rounds_and_the_geometric_mean_of_seeds() -> None:
    assert centre(rounds([1.0, 100.0, 2.0])) == pytest.approx(2.0, rel=1e-12)
    assert centre(seeds([1.0, 4.0])) == pytest.approx(2.0, rel=1e-12)
    assert math.isclose(centre(seeds([0.0, 1e-9], metric="share", clip=1e-3)), 1e-3)


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.05, "5%"), (0.0234, "2.3%"), (0.125, "12%"), (1.5, "150%"), (0.0, "0%")],
)
def test_percentages_are_short(fraction: float, text: str) -> None:
    assert percent(fraction) == text
