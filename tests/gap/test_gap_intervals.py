"""The intervals of the gap: they cover what they should on noisy curves, and no lead is claimed too
early."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from factories import make_run

from equivbench.gap.efficiency import efficiency_gap
from equivbench.gap.intervals import (
    REPLICATES,
    Resampled,
    draw_groups,
    percentile,
    ranked,
    student,
)
from equivbench.gap.leads import holm
from equivbench.records.schema import MachineShare, RunRecord

BUDGET = 100.0
TAU = {"equivariant": 0.2, "augmented": 0.1}
LAW = {"equivariant": (3.0, 0.45), "augmented": (4.0, 0.5)}
GROUPS = 100


def noisy_runs(
    generator: np.random.Generator,
    seeds: int,
    *,
    seed_spread: float = 0.05,
    wiggle: float = 0.02,
    group_spread: float | None = None,
    laws: dict[str, tuple[float, float]] | None = None,
) -> list[RunRecord]:
    """Power laws in time: a factor per seed and arm, a wiggle per evaluation and, on request,
    difficulties per test group (shared by all runs) with an interaction per arm and group."""
    common = generator.standard_normal(GROUPS)
    records = []
    for arm, (prefactor, exponent) in (laws or LAW).items():
        last = round(BUDGET / TAU[arm])
        steps = sorted({max(1, round(value)) for value in np.geomspace(last / 100, last, 16)})
        own = generator.standard_normal(GROUPS)
        for seed in range(seeds):
            factor = math.exp(seed_spread * generator.standard_normal())
            wiggles = dict(
                zip(steps, np.exp(wiggle * generator.standard_normal(len(steps))), strict=True)
            )
            curve = {
                step: float(prefactor * factor * wiggles[step] * (step * TAU[arm]) ** -exponent)
                for step in steps
            }
            groups = None
            if group_spread is not None:
                # Mean one over the population of groups: E exp(s z) = exp(s^2 / 2).
                hard = np.exp(group_spread * (common + own) - group_spread**2)
                curve = {step: loss * float(hard.mean()) for step, loss in curve.items()}
                total = [(loss / hard.mean() * hard).tolist() for loss in curve.values()]
                groups = {
                    "weights": [1.0] * GROUPS,
                    "total": total,
                    "equivariance": [[0.0] * GROUPS for _ in total],
                }
            records.append(
                make_run(
                    arm,
                    curve.__getitem__,
                    steps,
                    tau=TAU[arm],
                    limit=BUDGET,
                    seed=seed,
                    run_id=f"{arm}-{seed}",
                    groups=groups,
                )
            )
    return records


def true_s_star() -> float:
    (a, p), (c, q) = LAW["equivariant"], LAW["augmented"]
    return (a / c) ** (1 / p) * BUDGET ** (q / p - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seeds", "group_spread", "trials"),
    [(3, None, 300), (6, None, 200), (3, 0.3, 60), (6, 0.3, 100), (12, 0.3, 60)],
)
def test_the_interval_of_the_break_even_speed_up_covers(
    seeds: int, group_spread: float | None, trials: int
) -> None:
    generator = np.random.default_rng([seeds, trials])
    covered = {"s_star": 0, "loss_ratio": 0}
    loss_ratio = 3.0 / 4.0 * BUDGET**0.05
    for _ in range(trials):
        (gap,) = efficiency_gap(noisy_runs(generator, seeds, group_spread=group_spread))
        for name, quantity, truth in (
            ("s_star", gap.s_star_equivariant.steady, true_s_star()),
            ("loss_ratio", gap.loss_ratio, loss_ratio),
        ):
            covered[name] += (quantity.low is None or quantity.low <= truth) and (
                quantity.high is None or truth <= quantity.high
            )
    # Nominal 95%; a fair count leaves 3 standard deviations of the binomial once in 370 times. The
    # bootstrap of 12 seeds runs short by nature (it divides by S, not S - 1, and has normal tails:
    # 93% here), hence 3 points of grace.
    slack = 3 * math.sqrt(0.95 * 0.05 / trials) + (0.03 if seeds > 10 else 0.0)
    for name, count in covered.items():
        assert count / trials >= 0.95 - slack, (name, count)
    if group_spread is not None:
        # Nor is it needlessly wide where both levels vary alike.
        assert covered["loss_ratio"] < trials


def test_the_estimate_is_not_biased_by_noise_as_a_first_crossing_is() -> None:
    generator = np.random.default_rng(7)
    trials = 60
    logs = []
    for _ in range(trials):
        (gap,) = efficiency_gap(noisy_runs(generator, 4, wiggle=0.1, seed_spread=0.02))
        logs.append(math.log(gap.s_star_equivariant.steady.value))
    error = np.std(logs) / math.sqrt(trials)
    # Four standard errors of the mean, and 5% for the isotonic fit's pull at its last point, where
    # the target is read.
    assert abs(np.mean(logs) - math.log(true_s_star())) < 4 * error + 0.05


def test_censored_replicates_open_the_interval() -> None:
    laws = {"equivariant": (4.0, 0.5), "augmented": (4.0, 0.5)}
    (gap,) = efficiency_gap(noisy_runs(np.random.default_rng(3), 4, laws=laws))
    # Equal arms: some replicates never cross within the budget, so the upper end is open, and
    # nobody is behind.
    assert gap.s_star_equivariant.steady.high is None
    assert gap.s_star_equivariant.steady.low is not None
    assert gap.behind is None


@pytest.mark.parametrize(("seeds", "claimed"), [(5, None), (6, "augmented")])
def test_no_lead_below_six_seeds(seeds: int, claimed: str | None) -> None:
    laws = {"equivariant": (8.0, 0.5), "augmented": (4.0, 0.5)}
    (gap,) = efficiency_gap(noisy_runs(np.random.default_rng(0), seeds, laws=laws))
    assert gap.behind == "equivariant"
    assert gap.lead.arm == claimed
    assert gap.lead.p is not None


def test_a_run_on_a_busy_machine_decides_nothing() -> None:
    laws = {"equivariant": (8.0, 0.5), "augmented": (4.0, 0.5)}
    records = noisy_runs(np.random.default_rng(0), 6, laws=laws)
    share = MachineShare(
        cpu_share=0.9,
        switches=3.0,
        load=1.0,
        steal=0.0,
        throttled_seconds=0.0,
        p90_over_p10=28.0,
        stalled_seconds=0.0,
    )
    busy = msgspec.structs.replace(records[3], machine_share=share)
    (gap,) = efficiency_gap([*records[:3], busy, *records[4:]])
    assert gap.behind is None
    assert (gap.lead.arm, gap.lead.p) == (None, None)
    assert "the machine was busy" in gap.lead.reason
    assert any("no verdict" in note for note in gap.notes)


def test_leads_are_corrected_over_pairs() -> None:
    laws = {"equivariant": (4.3, 0.5), "augmented": (4.0, 0.5)}
    alone = noisy_runs(np.random.default_rng(5), 6, laws=laws)
    (single,) = efficiency_gap(alone)
    others = []
    for index in range(9):
        for record in noisy_runs(
            np.random.default_rng(100 + index),
            6,
            laws={"equivariant": (4.0, 0.5), "augmented": (4.0, 0.5)},
        ):
            record.pair = f"other-{index}"
            others.append(record)
    among = next(gap for gap in efficiency_gap([*alone, *others]) if gap.pair == "pair")
    assert among.lead.p == single.lead.p
    assert among.lead.p_holm > single.lead.p_holm


def test_one_seed_has_the_test_set_s_interval_and_says_so() -> None:
    (gap,) = efficiency_gap(noisy_runs(np.random.default_rng(1), 1, group_spread=0.3))
    assert gap.loss_ratio.low < gap.loss_ratio.value < gap.loss_ratio.high
    assert any("one seed" in note for note in gap.notes)
    (bare,) = efficiency_gap(noisy_runs(np.random.default_rng(1), 1))
    assert (bare.loss_ratio.low, bare.loss_ratio.high) == (None, None)


def test_groups_that_the_arms_share_cancel_in_the_ratio() -> None:
    """Common difficulty widens each arm's loss but not their ratio: test groups are paired."""
    generator = np.random.default_rng(2)
    hard = np.exp(generator.standard_normal(GROUPS))
    records = []
    for arm, prefactor in (("equivariant", 3.0), ("augmented", 4.0)):
        steps = [10, 30, 100, 300, 1000]
        curve = {step: prefactor * step**-0.5 * float(hard.mean()) for step in steps}
        total = [(prefactor * step**-0.5 * hard).tolist() for step in steps]
        groups = {"weights": [1.0] * GROUPS, "total": total, "equivariance": total}
        records.append(make_run(arm, curve.__getitem__, steps, tau=0.1, groups=groups))
    (gap,) = efficiency_gap(records)
    # Rounding of a sum of 100 terms, not sampling.
    assert gap.loss_ratio.high - gap.loss_ratio.low < 1e-9
    assert gap.loss_equivariant.high / gap.loss_equivariant.low > 1.2


def test_results_repeat() -> None:
    def records() -> list[RunRecord]:
        return noisy_runs(np.random.default_rng(9), 3, group_spread=0.3)

    assert efficiency_gap(records()) == efficiency_gap(list(reversed(records())))


def test_student_on_a_mean_is_the_textbook_interval() -> None:
    values = np.array([[1.0], [2.0], [4.0]])
    band = student(values.mean(axis=0), values, None)
    # The tabulated t(0.975, 2), good to ten digits.
    half = 4.302652729911275 * values.std(ddof=1) / math.sqrt(3)
    assert band.high[0] - band.mid[0] == pytest.approx(half, rel=1e-9)
    from scipy import stats

    assert band.p[0] == pytest.approx(stats.ttest_1samp(values[:, 0], 0.0).pvalue, rel=1e-12)


def test_group_variance_adds_to_seed_variance_with_welch_satterthwaite_degrees_of_freedom() -> None:
    from scipy import stats

    values, replicates, groups = (
        np.array([[1.0], [2.0], [4.0]]),
        np.array([[2.0], [3.0], [1.0]]),
        40,
    )
    band = student(values.mean(axis=0), values, Resampled(replicates, groups))
    between, within = values.var(ddof=1) / 3, replicates.var(ddof=1)
    freedom = (between + within) ** 2 / (between**2 / 2 + within**2 / (groups - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(between + within)
    assert (band.high[0] - band.low[0]) / 2 == pytest.approx(half, rel=1e-12)


def test_no_spread_at_all_is_a_point() -> None:
    band = student(np.array([0.0, 1.0]), np.array([[0.0, 1.0], [0.0, 1.0]]), None)
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


def test_percentiles_bracket_the_estimate() -> None:
    replicates = np.random.default_rng(0).standard_normal((REPLICATES, 1))
    band = percentile(np.zeros(1), 12, replicates)
    # Quantiles of 999 normal draws have a standard deviation of about 0.06 out there.
    assert (band.low[0], band.high[0]) == (
        pytest.approx(-1.96, abs=0.25),
        pytest.approx(1.96, abs=0.25),
    )


def test_group_draws_keep_the_number_of_groups_and_start_with_the_measured_set() -> None:
    draws = draw_groups(7, 50)
    assert (draws[0] == 1).all()
    assert (draws.sum(axis=1) == 7).all()


def test_holm_is_step_down_and_monotone() -> None:
    # Holm 1979: 4 x .005, then 3 x .011, then 2 x .02, then 1 x .04; no later one below an earlier
    # one.
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
