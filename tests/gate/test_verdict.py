"""The judgement of one benchmark: what rounds can prove, and what they cannot."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_samples import noisy, rounds, seeds

from equivbench.gate.verdict import GateVerdict, centre, estimate, judge, percent

LIMITS = (0.05, 0.002)
"""Threshold and noise floor."""
positive = st.floats(1e-6, 1e3)


@settings(max_examples=25)
@given(st.lists(positive, min_size=1, max_size=12), st.lists(positive, min_size=1, max_size=12))
def test_exchanging_the_sides_inverts_the_ratio_and_its_interval(
    first: list[float], second: list[float]
) -> None:
    there = estimate(rounds(first, session="a"), rounds(second, session="b"))
    back = estimate(rounds(second, session="b"), rounds(first, session="a"))
    assert there.ratio == pytest.approx(
        1 / back.ratio, rel=1e-9
    )  # logarithms of 24 numbers, in float64
    if there.low is not None and there.high is not None:
        assert there.low <= there.ratio <= there.high


@settings(max_examples=25)
@given(st.lists(positive, min_size=2, max_size=12), st.floats(0.01, 100))
def test_only_ratios_matter(values: list[float], scale: float) -> None:
    slower = [1.07 * value for value in values]
    plain = estimate(rounds(values), rounds(slower))
    scaled = estimate(rounds([scale * v for v in values]), rounds([scale * v for v in slower]))
    assert plain.ratio == pytest.approx(1.07, rel=1e-9)
    assert scaled.ratio == pytest.approx(1.07, rel=1e-9)


def test_neighbouring_rounds_cancel_what_both_sides_share() -> None:
    drift = np.linspace(1.0, 3.0, 8)
    paired = estimate(rounds(drift), rounds(1.1 * drift))
    apart = estimate(rounds(drift), rounds(1.1 * drift, session="another"))
    assert paired.low == pytest.approx(1.1, rel=1e-9)
    assert apart.low is not None
    assert apart.low < 1.0


def test_the_interval_covers_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        steps = noisy(1.0, 0.05, 10, seed)
        found = estimate(rounds([1.0] * 10), rounds(steps))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.0 <= found.high
    # A percentile bootstrap of 10 rounds is known to cover some 96-97% at a nominal 99%; 200 draws
    # scatter by 1.3%.
    assert covered >= 0.92 * 200


def verdict(
    baseline: list[float], candidate: list[float], limits: tuple[float, float] = LIMITS
) -> GateVerdict:
    return judge(rounds(baseline), rounds(candidate), *limits)[0]


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
    assert verdict([1.0] * 8, [1.07] * 8, (0.05, 0.03)) == "inconclusive"


def test_noise_that_could_hide_a_change_is_inconclusive() -> None:
    assert verdict([1.0] * 4, [0.7, 1.4, 0.75, 1.36]) == "inconclusive"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_rounds_decide_nothing(count: int) -> None:
    assert verdict([1.0] * count, [2.0] * count) == "inconclusive"
    assert verdict([1.0] * count, [1.0] * count) == "inconclusive"


def test_the_direction_is_the_metrics() -> None:
    rates = {"metric": "samples_per_second"}
    assert (
        judge(seeds([100.0] * 3, **rates), seeds([50.0] * 3, **rates), *LIMITS)[0] == "regression"
    )
    assert judge(seeds([100.0] * 3), seeds([50.0] * 3), *LIMITS)[0] == "improvement"


def test_a_single_seed_decides_only_what_is_deterministic() -> None:
    assert judge(seeds([1.0]), seeds([1.2]), *LIMITS)[0] == "regression"
    loose = {"deterministic": False}
    assert judge(seeds([1.0], **loose), seeds([1.2], **loose), *LIMITS)[0] == "inconclusive"
    assert judge(seeds([1.0], **loose), seeds([1.0], **loose), *LIMITS)[0] == "unchanged"


def test_what_lies_under_the_clip_does_not_matter() -> None:
    clip = {"metric": "share", "clip": 1e-3, "resolution": 1e-3}
    assert (
        judge(seeds([1e-13, -1e-9], **clip), seeds([1e-5, 9e-4], **clip), *LIMITS)[0] == "unchanged"
    )
    assert (
        judge(seeds([1e-3, 1e-3], **clip), seeds([1.9e-3, 1.9e-3], **clip), *LIMITS)[0]
        == "unchanged"
    )
    assert (
        judge(seeds([1e-3, 1e-3], **clip), seeds([4e-3, 4e-3], **clip), *LIMITS)[0] == "regression"
    )


def test_one_disturbed_round_is_no_change() -> None:
    steady = noisy(1.0, 0.005, 8, 5)
    disturbed = [3.0 * steady[0], *steady[1:]]
    assert estimate(rounds(steady), rounds(disturbed)).ratio == pytest.approx(1.0, abs=0.005)
    assert verdict(steady, disturbed) in ("unchanged", "inconclusive")
    assert verdict(disturbed, steady) in ("unchanged", "inconclusive")
    assert verdict(steady, [1.1 * value for value in disturbed]) == "regression"


def test_results_do_not_change_from_call_to_call() -> None:
    pair = rounds(noisy(1.0, 0.1, 8, 3)), rounds(noisy(1.0, 0.1, 8, 4))
    assert estimate(*pair) == estimate(*pair)


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
