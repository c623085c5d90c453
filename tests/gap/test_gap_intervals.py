"""The intervals of the gap: closed forms, coverage by simulation, and sanity with few groups."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from factories import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import (
    Component,
    Quantity,
    combined,
    group_part,
    over_seeds,
    ranked,
    student,
    sum_of,
)
from equivbench.gap.simulation import (
    SCENARIOS,
    SPEED_SPREADS,
    Laws,
    made_up_records,
    main,
    simulate,
)
from equivbench.records.schema import GroupErrors, RunRecord

STEPS = [1000 >> k for k in range(6, -1, -1)]


# Each kind of curves with one number of seeds; docs/gap.md has them all, of more trials.
DESIGNS = [
    (laws, *design)
    for laws, design in zip(SCENARIOS, itertools.cycle([(3, 0.2), (6, 0.1)]), strict=False)
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("laws", "seeds", "speed_spread"), DESIGNS, ids=[laws.name for laws in SCENARIOS]
)
def test_intervals_hold_the_truth(laws: Laws, seeds: int, speed_spread: float) -> None:
    trials = 60
    found = simulate(laws, seeds, speed_spread, trials)
    # Nominal 95%, and 93% allowed; a fair count strays by three standard deviations of the binomial
    # once in 370 times.
    slack = 3 * math.sqrt(0.95 * 0.05 / trials)
    for name, covered in found.covered.items():
        assert covered >= 0.93 - slack, name
    assert found.false_verdicts <= 0.05 + slack


def test_a_simulation_repeats() -> None:
    assert simulate(SCENARIOS[0], 3, 0.1, 3) == simulate(SCENARIOS[0], 3, 0.1, 3)


def test_the_command_prints_a_row_for_each_combination(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--trials", "1", "--seeds", "3"])
    _, _, header, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(SCENARIOS) * len(SPEED_SPREADS)
    assert all(row.count("|") == header.count("|") for row in rows)
    assert [row.split(" | ")[2] for row in rows[:4]] == [f"{spread:g}" for spread in SPEED_SPREADS]


POSITIVE = st.floats(1e-3, 1e3)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_the_ends_of_a_sum_are_beyond_those_of_each_term_alone(
    a: float, b: float, a_low: float, b_low: float, a_high: float, b_high: float
) -> None:
    def term(value: float, low: float, high: float) -> Quantity:
        return Quantity(value, value / (1 + low), value * (1 + high))

    first, second = term(a, a_low, a_high), term(b, b_low, b_high)
    both = sum_of(first, second)
    assert both == sum_of(second, first)
    slack = 1e-9 * both.high
    for exact, other in ((first, second), (second, first)):
        alone = sum_of(exact, Quantity(other.value, other.value, other.value))
        assert alone.low == pytest.approx(exact.low + other.value)
        assert alone.high == pytest.approx(exact.high + other.value)
        assert both.low <= alone.low + slack
        assert both.high >= alone.high - slack
    # And never beyond the worst of both at once.
    assert both.low >= first.low + second.low - slack
    assert both.high <= first.high + second.high + slack


def test_a_sum_is_open_where_a_term_is_and_never_below_zero() -> None:
    closed = Quantity(2.0, 1.5, 3.0)
    assert sum_of(closed, Quantity(1.0, None, None, "below")) == Quantity(
        3.0, 3.0 - math.hypot(0.5, 1.0), None, "below"
    )
    assert sum_of(Quantity(2.0), Quantity(1.0)) == Quantity(3.0)
    assert sum_of(Quantity(), closed) == sum_of(closed, Quantity()) == Quantity()


def test_the_all_in_speed_carries_the_error_of_the_sample_efficiency() -> None:
    """Its interval is wider than that of the speed alone, the more the longer is compiled."""
    made = made_up_records(SCENARIOS[2], 6, 0.05, np.random.default_rng(0))
    widths = []
    for seconds in (1e-9, 20.0, 60.0):
        for record in made:
            record.clock.compile = seconds if record.arm == "equivariant" else 5.0
        speed = only(made).speed
        widths.append(
            (speed.all_in.high - speed.all_in.low) / (speed.steady.high - speed.steady.low)
        )
    # B / (B + c_o) of the steady one without anything to spread; whole steps make B a little more.
    assert widths[0] == pytest.approx(60 / 65, rel=1e-4)
    assert widths == sorted(widths)
    assert widths[2] > 1.05 * widths[0]


def grouped_runs(groups: int, seeds: int = 3, spread: float = 1.0) -> list[RunRecord]:
    """Both arms on ``groups`` test molecules of one atom each, half of whose difficulty is their
    own for each arm."""
    generator = np.random.default_rng(groups)
    common = generator.standard_normal(groups)
    records = []
    for arm, prefactor in (("equivariant", 2.0), ("augmented", 4.0)):
        hard = np.exp(spread * (common + generator.standard_normal(groups)) / 2)
        mean = float(hard.mean())
        for seed in range(seeds):
            luck = math.exp(0.05 * generator.standard_normal())
            record = make_run(
                arm,
                lambda step, k=prefactor * luck * mean: k * step**-0.5,
                STEPS,
                tau=0.1,
                seed=seed,
            )
            tests = [rung.test for rung in record.rungs]
            for test in (*tests, record.final, record.final_on_part):
                total = test.total * hard / mean
                test.groups = GroupErrors(
                    weights=[1.0] * groups,
                    total=total.tolist(),
                    equivariance=(total * generator.uniform(0, 0.4, groups)).tolist(),
                )
            records.append(record)
    return records


def only(records: list[RunRecord]) -> PairGap:
    (gap,) = efficiency_gap(records)
    return gap


@pytest.mark.parametrize("groups", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_no_number_that_cannot_be_is_given(groups: int, seeds: int) -> None:
    gap = only(grouped_runs(groups, seeds))

    def check(quantity: Quantity, most: float = math.inf) -> None:
        ends = [quantity.low, quantity.value, quantity.high]
        known = [end for end in ends if end is not None]
        assert known == sorted(known)
        assert all(0 <= end <= most and math.isfinite(end) for end in known)

    check(gap.symmetry_penalty, most=1.0)
    for each in (gap.loss_equivariant, gap.loss_augmented, gap.loss_ratio, gap.sample_efficiency):
        check(each)
    for timed in (gap.s_star_equivariant, gap.s_star_augmented, gap.speed, gap.throughput_ratio):
        check(timed.steady)
        check(timed.all_in)
    for twirl in gap.twirl.values():
        check(twirl.loss)
        check(twirl.cost)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 3, 5, 10, 100])
def test_shares_and_losses_of_few_groups_are_held_often_enough(groups: int) -> None:
    """The truth here is that of infinitely many groups of unequal difficulty."""
    generator = np.random.default_rng(groups)
    trials, truth = 2000, math.exp(0.125)
    errors = np.exp(0.5 * generator.standard_normal((trials, groups)))
    mean = errors.mean(axis=1, keepdims=True)
    influence = ((errors - mean) / (mean * groups)).T
    band = student(np.log(mean[:, 0]), np.log(mean.T), group_part(influence))
    covered = ((band.low <= math.log(truth)) & (math.log(truth) <= band.high)).mean()
    # A mean of few log-normal errors is skewed, which Student's interval does not know.
    assert 0.90 <= covered <= 0.98


def test_one_seed_has_the_test_set_s_interval_and_says_so() -> None:
    gap = only(grouped_runs(50, seeds=1))
    assert gap.loss_ratio.low < gap.loss_ratio.value < gap.loss_ratio.high
    assert any("one seed" in note for note in gap.notes)
    bare = only(grouped_runs(1, seeds=1))
    assert (bare.loss_ratio.low, bare.loss_ratio.high) == (None, None)


def test_groups_that_the_arms_share_cancel_in_the_ratio() -> None:
    """Common difficulty widens each arm's loss but not their ratio: test groups are paired."""
    hard = np.exp(np.random.default_rng(2).standard_normal(100))
    records = []
    for arm, prefactor in (("equivariant", 3.0), ("augmented", 4.0)):
        record = make_run(arm, lambda step, k=prefactor: k * step**-0.5, STEPS, tau=0.1)
        total = (record.final.total * hard / hard.mean()).tolist()
        record.final.groups = GroupErrors(weights=[1.0] * 100, total=total, equivariance=total)
        records.append(record)
    gap = only(records)
    # Rounding of a sum of 100 terms, not sampling.
    assert gap.loss_ratio.high - gap.loss_ratio.low < 1e-9
    assert gap.loss_equivariant.high / gap.loss_equivariant.low > 1.2


def test_test_groups_count_for_losses_shares_and_crossings() -> None:
    few, many = only(grouped_runs(4, seeds=1)), only(grouped_runs(100, seeds=1))

    def width(quantity: Quantity) -> float:
        return quantity.high / quantity.low

    assert width(few.loss_ratio) > width(many.loss_ratio)
    assert few.symmetry_penalty.high > many.symmetry_penalty.high
    # The loss falls as the root of the steps: an error of the loss is twice that of the steps.
    assert math.log(width(many.sample_efficiency)) == pytest.approx(
        2 * math.log(width(many.loss_ratio)), rel=0.05
    )


def test_results_repeat_and_do_not_depend_on_the_order() -> None:
    records = grouped_runs(20)
    assert efficiency_gap(records) == efficiency_gap(list(reversed(grouped_runs(20))))


def test_student_on_a_mean_is_the_textbook_interval() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    band = student(values.mean(axis=0), values)
    # The tabulated t(0.975, 2), good to ten digits.
    half = 4.302652729911275 * values.std(ddof=1) / math.sqrt(3)
    assert band.high[0] - band.mid[0] == pytest.approx(half, rel=1e-9)
    assert band.p[0] == pytest.approx(stats.ttest_1samp(values[:, 0], 0.0).pvalue, rel=1e-12)


def test_one_seed_alone_has_no_interval() -> None:
    band = student(np.ones(1), np.ones((1, 1)))
    assert (band.low[0], band.high[0]) == (-math.inf, math.inf)
    assert math.isnan(band.p[0])


parts = st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 100)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(parts)
def test_variances_add_and_degrees_of_freedom_lie_between_the_least_and_the_sum(
    given: list[tuple[float, int]],
) -> None:
    variance, freedom = combined([Component(np.array([v]), f) for v, f in given])
    assert variance[0] == pytest.approx(sum(v for v, _ in given))
    least, most = min(f for _, f in given), sum(f for _, f in given)
    assert least * (1 - 1e-9) <= freedom[0] <= most * (1 + 1e-9)


def test_one_part_keeps_its_degrees_of_freedom() -> None:
    assert combined([Component(np.array([0.3]), 7)])[1][0] == pytest.approx(7)


@pytest.mark.parametrize(("seeds", "groups"), [(3, 60), (3, 5), (6, 10), (12, 60)])
@pytest.mark.parametrize("within", [0.05, 0.3, 1.0, 4.0])
def test_two_levels_together_hold_the_truth(seeds: int, groups: int, within: float) -> None:
    generator = np.random.default_rng([seeds, groups])
    trials = 4000
    values = math.sqrt(seeds) * generator.standard_normal((seeds, trials))
    variance = within * generator.chisquare(groups - 1, trials) / (groups - 1)
    mid = values.mean(axis=0) + math.sqrt(within) * generator.standard_normal(trials)
    band = student(mid, values, Component(variance, groups - 1))
    covered = float(((band.low <= 0) & (band.high >= 0)).mean())
    # 94.2 to 96.5% in 60,000 trials each; 4000 have a standard deviation of .35%.
    assert 0.942 - 0.011 <= covered <= 0.965 + 0.011


def test_no_spread_at_all_is_a_point() -> None:
    band = student(np.array([0.0, 1.0]), np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert band.low.tolist() == band.high.tolist() == [0.0, 1.0]
    assert band.p.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("seeds", [5, 6, 9, 20])
def test_rank_intervals_have_their_level(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    draws = generator.standard_normal((seeds, 4000))
    band = ranked(draws)
    covered = float(((band.low <= 0) & (band.high >= 0)).mean())
    # The exact coverage is at least 95%; 4000 columns give a standard deviation of 0.35%.
    assert covered >= 0.95 - 0.015
    assert np.isinf(band.low).all() == (seeds < 6)


def test_infinite_seeds_move_the_median_by_rank_only() -> None:
    band = ranked(np.array([[-1.0], [0.5], [np.inf]]))
    assert band.mid[0] == 0.5
    assert math.isnan(ranked(np.array([[-np.inf], [np.inf]])).mid[0])


def test_means_over_seeds() -> None:
    assert over_seeds([]).value is None
    one = over_seeds([2.0])
    assert (one.value, one.low, one.high) == (2.0, None, None)
    logs = over_seeds([1.0, 4.0], geometric=True)
    assert logs.value == pytest.approx(2.0)
    assert logs.low * logs.high == pytest.approx(4.0)
    assert over_seeds([0.0, 1.0], geometric=True).value == pytest.approx(0.5)


def test_the_interval_of_a_share_stays_within_what_can_be() -> None:
    share = over_seeds([0.01, 0.05], least=0, most=1)
    assert (share.value, share.low) == (pytest.approx(0.03), 0)
    # Student's 97.5% point at one degree of freedom.
    assert share.high == pytest.approx(0.03 + 12.7062 * 0.02, rel=1e-4)
    # The estimate itself is what was measured, at the numerical floor below zero too.
    floor = over_seeds([-2e-15, -1e-15], least=0, most=1)
    assert floor.value == floor.low == pytest.approx(-1.5e-15)
    assert over_seeds([0.5], least=0, most=1).low is None
