"""Verdicts: when there is one, and every reason for which there is none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from factories import make_run
from scipy import stats

from equivbench.gap.campaigns import LEAD_SEEDS
from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.verdicts import POWER, holm
from equivbench.records.schema import GroupErrors, RunRecord, Status

STEPS = [1000 >> k for k in range(6, -1, -1)]


def records(
    effect: float = 0.5, spread: float = 0.05, seeds: int = 4, draw: int = 0, **more: Any
) -> list[RunRecord]:
    """Both arms, the log ratio of their losses being ``effect`` on average and ``spread`` apart
    over seeds."""
    deviates = np.random.default_rng(draw).standard_normal(seeds)
    if seeds > 1:
        deviates = (deviates - deviates.mean()) / deviates.std(ddof=1)
    found = []
    for arm, sign in (("equivariant", 0.5), ("augmented", -0.5)):
        for seed in range(seeds):
            level = 3.0 * math.exp(sign * (effect + spread * float(deviates[seed])))
            found.append(
                make_run(arm, lambda n, k=level: k * n**-0.5, STEPS, tau=0.1, seed=seed, **more)
            )
    return found


def only(found: list[RunRecord]) -> PairGap:
    (gap,) = efficiency_gap(found)
    return gap


def no_verdict(found: list[RunRecord]) -> str:
    """The reason."""
    gap = only(found)
    assert (gap.behind, gap.decided) == (None, False)
    return gap.reason


@pytest.mark.parametrize("effect", [0.5, -0.5])
def test_a_clear_difference_is_a_verdict_from_three_seeds_on(effect: float) -> None:
    gap = only(records(effect, seeds=LEAD_SEEDS))
    assert gap.decided
    assert gap.behind == ("equivariant" if effect > 0 else "augmented")
    # Student's test of a mean that is this many standard errors from zero.
    t = abs(effect) * math.sqrt(LEAD_SEEDS) / 0.05
    assert gap.p == pytest.approx(2 * stats.t.sf(t, LEAD_SEEDS - 1), rel=1e-6)


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds(seeds: int) -> None:
    assert f"{seeds} seed" in no_verdict(records(seeds=seeds))


def test_a_difference_within_its_interval() -> None:
    assert "not below 0.05" in no_verdict(records(effect=0.05, spread=0.1))


def test_a_seed_that_diverged() -> None:
    found = records(seeds=6)
    found[2].status = "diverged"
    assert no_verdict(found) == "5 of 6 seeds finished"


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_seed_that_failed_counts_as_not_finished(status: Status) -> None:
    found = records(seeds=4)
    found[1].status = status
    gap = only(found)
    assert (gap.seeds, gap.unfinished) == ([0, 2, 3], [1])
    assert no_verdict(found) == "3 of 4 seeds finished"


def test_a_run_on_a_busy_machine_decides_nothing_and_none_of_its_times_is_used() -> None:
    found = records()
    found[3].machine_share.p90_over_p10 = 28.0
    gap = only(found)
    assert "equivariant seed 3: the machine was busy" in no_verdict(found)
    assert gap.loss_ratio == only(records()).loss_ratio
    for name in ("speed", "throughput_ratio", "s_star_equivariant", "s_star_augmented"):
        assert getattr(gap, name).steady.value is None
        assert "the machine was busy" in gap.reasons[name]
    assert gap.sample_efficiency.value is not None
    assert gap.lead_changes == []


def test_partners_of_different_contests() -> None:
    found = records()
    found[1].contest = "another"
    assert no_verdict(found) == "the arms of seed 1 did not take turns in one contest"


@pytest.mark.parametrize(("over", "decided"), [(0.5, True), (0.97, False), (1.2, False)])
def test_an_arm_that_is_not_past_the_best_untrained_predictor_by_more_than_its_interval(
    over: float, decided: bool
) -> None:
    found = records()
    for record in found:
        seeds = 1 + 0.02 * (record.seed - 1.5)
        better = 0.3 if record.arm == "augmented" else over
        record.final.over_best_untrained = better * seeds
    gap = only(found)
    assert gap.decided == decided
    if not decided:
        assert "the equivariant arm is not past the best predictor" in gap.reason


def test_what_the_best_untrained_predictor_is_follows_from_the_baselines_too() -> None:
    found = records(baselines={"zero": 100.0, "linear": 0.1})
    for record in found:
        record.final.over_best_untrained = None
    # The arms end at .12 and .07.
    assert "the equivariant arm is not past the best predictor" in no_verdict(found)
    for record in found:
        record.baselines = {"zero": 100.0, "linear": 0.01}
    assert "neither arm is past the best predictor" in no_verdict(found)
    for record in found:
        record.baselines = {}
    assert only(found).decided


def test_verdicts_are_corrected_over_pairs() -> None:
    alone = records(effect=0.2, spread=0.08)
    single = only(alone)
    assert single.decided
    others = [
        record
        for index in range(9)
        for record in records(0.0, 0.1, draw=index, pair=f"other-{index}")
    ]
    among = next(gap for gap in efficiency_gap([*alone, *others]) if gap.pair == "pair")
    assert among.p == single.p
    assert among.p_holm == pytest.approx(10 * single.p)
    assert among.decided == (10 * single.p < 0.05)
    # A pair that nothing could decide is no test.
    single_seeds = [record for record in others if record.seed == 0]
    same = next(gap for gap in efficiency_gap([*alone, *single_seeds]) if gap.pair == "pair")
    assert same.p_holm == single.p_holm


@pytest.mark.parametrize(("effect", "spread"), [(0.1, 0.1), (0.1, 0.05), (0.03, 0.06), (0.5, 0.05)])
def test_seeds_needed_are_the_fewest_with_that_power(effect: float, spread: float) -> None:
    needed = only(records(effect, spread)).seeds_needed

    def power(seeds: int) -> float:
        bound = stats.t.ppf(0.975, seeds - 1)
        return stats.nct.sf(bound, seeds - 1, effect * math.sqrt(seeds) / spread)

    assert power(needed) >= POWER
    assert needed == LEAD_SEEDS or power(needed - 1) < POWER or needed > 50


def test_seeds_needed_rise_with_the_pairs_and_end_where_nobody_runs_so_many() -> None:
    alone = records(0.1, 0.1)
    others = [record for index in range(7) for record in records(draw=index, pair=f"other-{index}")]
    among = next(gap for gap in efficiency_gap([*alone, *others]) if gap.pair == "pair")
    assert among.seeds_needed > only(alone).seeds_needed
    assert only(records(1e-4, 0.1)).seeds_needed is None
    assert only(records(seeds=1)).seeds_needed is None


def test_the_test_set_bounds_what_more_seeds_can_show() -> None:
    found = records(0.1, 0.05)
    for record in found:
        # Two molecules, on which the arms differ by more than on average.
        factors = (0.5, 1.5) if record.arm == "augmented" else (1.0, 1.0)
        total = [factor * record.final.total for factor in factors]
        record.final.groups = GroupErrors(weights=[1, 1], total=total, equivariance=[0, 0])
    assert only(found).seeds_needed is None


def test_holm_is_step_down_and_monotone() -> None:
    # Holm 1979: 4 x .005, then 3 x .011, then 2 x .02, then 1 x .04; no later one below an earlier
    # one.
    assert holm([0.02, 0.005, 0.04, 0.011]) == pytest.approx([0.04, 0.02, 0.04, 0.033])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]
