"""The efficiency gap against closed forms, and what changes nothing or exactly one thing."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from factories import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.gap.intervals import Quantity
from equivbench.records.schema import RunRecord

BUDGET = 100.0


def run(
    arm: str, prefactor: float, exponent: float, tau: float, *, upto: float = BUDGET, **more: object
) -> RunRecord:
    """A run whose loss is ``prefactor`` t^-``exponent`` in seconds t, with rungs down to a 64th of
    the ``upto`` seconds."""
    steps = sorted({max(1, round(upto / tau / 2**k)) for k in range(7)})
    return make_run(
        arm,
        lambda step: prefactor * (step * tau) ** -exponent,
        steps,
        tau=tau,
        limit=BUDGET,
        **more,
    )


def extended(arm: str, prefactor: float, exponent: float, tau: float, factor: float) -> RunRecord:
    """The same, prolonged to ``factor`` times the budget."""
    limit = factor * BUDGET
    budget = {"limit": limit, "extends": BUDGET}
    return run(arm, prefactor, exponent, tau, upto=limit, budget=budget, run_id="longer")


def noisy(seeds: int = 3, **scales: float) -> list[RunRecord]:
    """Both arms with seeds that differ in loss, speed and blocks; ``scales`` multiply the losses of
    both arms (``loss``) or an arm's times (by its name)."""
    generator = np.random.default_rng(0)
    records = []
    for arm, prefactor, tau in (("equivariant", 3.0, 0.2), ("augmented", 4.0, 0.1)):
        for seed in range(seeds):
            luck, speed = np.exp(0.1 * generator.standard_normal(2)).tolist()
            blocks = tau * speed * np.exp(0.05 * generator.standard_normal(8))
            steps = [round(BUDGET / tau / speed / 2**k) for k in range(6, -1, -1)]
            loss, time = scales.get("loss", 1.0), scales.get(arm, 1.0)
            record = make_run(
                arm,
                lambda step, p=prefactor * luck * loss, t=tau: p * (step * t) ** -0.5,
                steps,
                tau=tau * speed,
                seed=seed,
            )
            record.throughput.blocks = (time * blocks).tolist()
            records.append(record)
    return records


def only(records: list[RunRecord]) -> PairGap:
    (gap,) = efficiency_gap(records)
    return gap


def is_scaled(quantity: Quantity, other: Quantity, factor: float) -> bool:
    """Whether value and interval of one are those of the other, times ``factor``."""
    return quantity.censored == other.censored and all(
        (first is None and second is None) or first == pytest.approx(factor * second, rel=1e-9)
        for first, second in (
            (quantity.value, other.value),
            (quantity.low, other.low),
            (quantity.high, other.high),
        )
    )


@settings(max_examples=40, deadline=None)
@given(
    p=st.floats(0.3, 1.0),
    q=st.floats(0.3, 1.0),
    target=st.floats(0.1, 0.9),
    tau_e=st.sampled_from([0.1, 0.2, 0.5]),
    tau_a=st.sampled_from([0.05, 0.1]),
    batch_e=st.sampled_from([8, 32]),
)
def test_power_laws_give_the_closed_form(
    p: float, q: float, target: float, tau_e: float, tau_a: float, batch_e: int
) -> None:
    # A is chosen so that s*_e = (A/C)^(1/p) B^(q/p - 1) lies inside the curve.
    c = 4.0
    a = c * (target * BUDGET ** (1 - q / p)) ** p
    gap = only([run("equivariant", a, p, tau_e, batch_size=batch_e), run("augmented", c, q, tau_a)])
    # Power laws are straight in log-log, so interpolation is exact; only rounding remains.
    expected = (a / c) ** (1 / p) * BUDGET ** (q / p - 1)
    assert gap.s_star_equivariant.steady.value == pytest.approx(expected, rel=1e-9)
    assert gap.loss_ratio.value == pytest.approx(a / c * BUDGET ** (q - p), rel=1e-9)
    assert gap.throughput_ratio.steady.value == pytest.approx(
        (tau_e / batch_e) / (tau_a / 32), rel=1e-12
    )
    assert gap.speed.steady.value == pytest.approx(tau_e / tau_a, rel=1e-12)
    product = gap.sample_efficiency.value * gap.speed.steady.value
    assert product == pytest.approx(gap.s_star_equivariant.steady.value, rel=1e-12)


def test_an_extension_carries_the_arm_behind_on_to_its_own_break_even() -> None:
    a, p, c, q = 3.0, 0.4, 4.0, 0.5
    base = [run("equivariant", a, p, 0.2), run("augmented", c, q, 0.1)]
    censored = only(base).s_star_equivariant.steady
    assert (censored.censored, censored.value) == ("above", pytest.approx(1.0))
    gap = only([*base, extended("equivariant", a, p, 0.2, 16)])
    equivariant = (a / c) ** (1 / p) * BUDGET ** (q / p - 1)
    augmented = (c / a) ** (1 / q) * BUDGET ** (p / q - 1)
    assert gap.s_star_equivariant.steady.value == pytest.approx(equivariant, rel=1e-9)
    assert gap.s_star_augmented.steady.value == pytest.approx(augmented, rel=1e-9)
    # They are no reciprocals, but s* above 1 and a loss ratio above 1 are the same statement.
    assert abs(math.log(equivariant * augmented)) > 0.05
    assert equivariant > 1 > augmented
    assert gap.loss_ratio.value > 1
    assert gap.loss_ratio == only(base).loss_ratio


def test_extensions_of_some_seeds_only_are_not_used_and_said() -> None:
    base = noisy()
    longer = [extended("equivariant", 3.0, 0.5, 0.2, 8)]
    gap = only([*base, *longer])
    assert gap.s_star_equivariant == only(base).s_star_equivariant
    assert any("1 of 3 seeds of the equivariant arm were extended" in note for note in gap.notes)


def test_all_in_shifts_both_sides_by_their_compile_seconds() -> None:
    gap = only(
        [
            run("equivariant", 2.0, 0.5, 0.2, compile_seconds=30.0),
            run("augmented", 4.0, 0.5, 0.1, compile_seconds=10.0),
        ]
    )
    steady = (2.0 / 4.0) ** 2
    assert gap.s_star_equivariant.steady.value == pytest.approx(steady, rel=1e-9)
    assert gap.s_star_equivariant.all_in.value == pytest.approx(
        (steady * BUDGET + 30) / (BUDGET + 10), rel=1e-9
    )
    assert gap.throughput_ratio.all_in.value == pytest.approx(
        2 * (BUDGET + 30) / (BUDGET + 10), rel=1e-9
    )
    product = gap.sample_efficiency.value * gap.speed.all_in.value
    assert product == pytest.approx(gap.s_star_equivariant.all_in.value, rel=1e-12)


def test_an_arm_below_from_its_first_rung_is_censored_there() -> None:
    gap = only([run("equivariant", 0.01, 0.5, 0.1), run("augmented", 2.0, 0.5, 0.1)])
    s_star = gap.s_star_equivariant.steady
    assert s_star.censored == "below"
    # 1000 / 64 steps, rounded.
    assert s_star.value == pytest.approx(16 * 0.1 / BUDGET)
    assert gap.s_star_augmented.steady.censored == "above"


def test_exchanging_the_arms_exchanges_the_break_even_points_and_inverts_the_ratios() -> None:
    names = {"equivariant": "augmented", "augmented": "equivariant"}
    records = noisy()
    exchanged = [msgspec.structs.replace(each, arm=names[each.arm]) for each in records]
    gap, turned = only(records), only(exchanged)
    assert turned.s_star_augmented == gap.s_star_equivariant
    assert turned.s_star_equivariant == gap.s_star_augmented
    for name in ("loss_ratio", "speed", "throughput_ratio"):
        first, second = getattr(gap, name), getattr(turned, name)
        if name != "loss_ratio":
            first, second = first.steady, second.steady
        assert is_scaled(first.map(lambda value: 1 / value, falling=True), second, 1.0)
    assert turned.p == pytest.approx(gap.p, rel=1e-9)
    assert turned.behind == (gap.behind and names[gap.behind])


def test_scaling_both_losses_changes_the_losses_alone() -> None:
    gap, scaled = only(noisy()), only(noisy(loss=7.0))
    assert is_scaled(scaled.loss_equivariant, gap.loss_equivariant, 7.0)
    for name in ("loss_ratio", "sample_efficiency", "symmetry_penalty"):
        assert is_scaled(getattr(scaled, name), getattr(gap, name), 1.0)
    assert is_scaled(scaled.s_star_equivariant.steady, gap.s_star_equivariant.steady, 1.0)


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_a_faster_kernel_scales_the_gap_through_speed_alone(factor: float) -> None:
    gap, scaled = only(noisy()), only(noisy(equivariant=factor))
    assert is_scaled(scaled.s_star_equivariant.steady, gap.s_star_equivariant.steady, factor)
    assert is_scaled(scaled.s_star_augmented.steady, gap.s_star_augmented.steady, 1 / factor)
    assert is_scaled(scaled.speed.steady, gap.speed.steady, factor)
    assert scaled.sample_efficiency == gap.sample_efficiency
    assert scaled.loss_ratio == gap.loss_ratio


def test_the_final_losses_are_the_records_and_not_read_off_a_curve() -> None:
    """Whatever the rungs and times say."""
    records = noisy()
    gap = only(records)
    logs = {
        arm: [math.log(each.final.total) for each in records if each.arm == arm]
        for arm in ("equivariant", "augmented")
    }
    for name, arm in (("loss_equivariant", "equivariant"), ("loss_augmented", "augmented")):
        assert getattr(gap, name).value == pytest.approx(math.exp(np.mean(logs[arm])), rel=1e-12)
    differences = np.subtract(logs["equivariant"], logs["augmented"])
    assert gap.loss_ratio.value == pytest.approx(math.exp(differences.mean()), rel=1e-12)
    # Student's 97.5% point at two degrees of freedom, 4.3027.
    half = 4.302652729911275 * differences.std(ddof=1) / math.sqrt(3)
    assert gap.loss_ratio.high == pytest.approx(math.exp(differences.mean() + half), rel=1e-9)


def test_the_interval_of_the_speed_is_over_blocks_for_one_seed_and_over_seeds_for_more() -> None:
    records = noisy(seeds=3)
    ratios = [
        np.log(first.throughput.blocks) - np.log(second.throughput.blocks)
        for first, second in zip(records[:3], records[3:], strict=True)
    ]

    def half(values: np.ndarray, quantile: float) -> float:
        return quantile * values.std(ddof=1) / math.sqrt(len(values))

    single = only([records[0], records[3]]).speed.steady
    assert math.log(single.value) == pytest.approx(ratios[0].mean(), rel=1e-9)
    # Student's 97.5% points at 7 and at 2 degrees of freedom.
    assert math.log(single.high / single.value) == pytest.approx(half(ratios[0], 2.364624251592785))
    means = np.array([ratio.mean() for ratio in ratios])
    several = only(records).speed.steady
    assert math.log(several.value) == pytest.approx(means.mean(), rel=1e-9)
    assert math.log(several.high / several.value) == pytest.approx(half(means, 4.302652729911275))


def test_one_seed_s_timing_widens_its_break_even_speed_up_and_not_its_sample_efficiency() -> None:
    gap = only(noisy(seeds=1))
    assert gap.sample_efficiency.low is None
    s_star = gap.s_star_equivariant.steady
    # The loss falls as a power law, so an error of the time is the same error of s*.
    speed = gap.speed.steady
    assert s_star.high / s_star.value == pytest.approx(speed.high / speed.value, rel=1e-2)


@pytest.mark.parametrize("kind", ["steps", "samples"])
def test_a_budget_in_steps_or_samples_takes_the_other_arm_s_time_as_budget(kind: str) -> None:
    steps = {"equivariant": 1024, "augmented": 1024 if kind == "steps" else 512}
    batch = {"equivariant": 16, "augmented": 32}
    tau = {"equivariant": 0.3, "augmented": 0.1}
    budget = {"kind": kind, "limit": 1024.0 if kind == "steps" else 16384.0}
    records = [
        make_run(
            arm,
            lambda step: 3.0 * step**-0.5,
            [steps[arm] >> k for k in range(6, -1, -1)],
            tau=tau[arm],
            batch_size=batch[arm],
            budget=budget,
        )
        for arm in ("equivariant", "augmented")
    ]
    gap = only(records)
    # Alike per step: the same number of steps ties, and only the time of a step differs.
    assert gap.sample_efficiency.value == pytest.approx(1.0)
    assert gap.s_star_equivariant.steady.value == pytest.approx(3.0)
    assert gap.loss_ratio.value == pytest.approx((steps["augmented"] / steps["equivariant"]) ** 0.5)


def test_a_seed_without_timing_says_nothing_of_how_much_seeds_differ() -> None:
    records = noisy(4)
    timed = only([record for record in records if record.seed != 3])
    for record in records:
        if record.seed == 3:
            record.throughput.samples_per_second = record.throughput.step_seconds = None
            record.throughput.blocks = []
    gap = only(records)
    assert gap.n_seeds == 4
    assert is_scaled(gap.speed.steady, timed.speed.steady, 1.0)


def test_diverged_seeds_are_infinite_losses_and_are_counted() -> None:
    def seeds(arm: str, prefactor: float, failed: set[int]) -> list[RunRecord]:
        return [
            run(
                arm,
                prefactor * (1 + 0.01 * seed),
                0.5,
                0.1,
                seed=seed,
                **({"status": "diverged", "reason": "loss is NaN"} if seed in failed else {}),
            )
            for seed in range(3)
        ]

    gap = only([*seeds("equivariant", 2.0, {2}), *seeds("augmented", 4.0, set())])
    assert (gap.n_seeds, gap.n_diverged, gap.diverged) == (3, 1, {"equivariant": 1, "augmented": 0})
    # The median of {2/4, 2/4, inf} by seed.
    assert gap.loss_ratio.value == pytest.approx(0.5, rel=1e-9)
    assert gap.s_star_equivariant.steady.value == pytest.approx(0.25, rel=1e-9)
    assert (gap.loss_ratio.low, gap.loss_ratio.high) == (None, None)
    assert (gap.behind, gap.decided, gap.reason) == (None, False, "2 of 3 seeds finished")

    most = only([*seeds("equivariant", 2.0, {1, 2}), *seeds("augmented", 4.0, set())])
    assert (most.loss_ratio.value, most.loss_ratio.censored) == (None, "above")
    assert most.s_star_equivariant.steady.censored == "above"

    every = only([*seeds("equivariant", 2.0, {0, 1, 2}), *seeds("augmented", 4.0, set())])
    assert every.s_star_equivariant.steady.censored == "above"
    assert every.s_star_augmented.steady.censored == "below"
    assert every.n_diverged == 3


def test_identical_arms_tie() -> None:
    gap = only([run("equivariant", 3.0, 0.5, 0.1), run("augmented", 3.0, 0.5, 0.1)])
    assert gap.s_star_equivariant.steady.value == pytest.approx(1.0, rel=1e-12)
    assert gap.s_star_augmented.steady.value == pytest.approx(1.0, rel=1e-12)
    assert not gap.decided


def test_twirling_and_the_symmetry_penalty_come_from_the_final_decomposition() -> None:
    share, total = 0.2, 4.0 * BUDGET**-0.5
    inference = {"samples_per_second": 300.0, "twirl": {"2": 600.0, "4": 300.0, "8": 150.0}}
    gap = only(
        [
            run("equivariant", 4.0, 0.5, 0.1, inference=inference),
            run("augmented", 4.0, 0.5, 0.1, share=share, inference=inference),
        ]
    )
    assert gap.symmetry_penalty.value == pytest.approx(share)
    for n in (2, 4, 8):
        assert gap.twirl[n].loss.value == pytest.approx(total * (1 - share + share / n), rel=1e-12)
        assert gap.twirl[n].cost.value == pytest.approx(n / 4, rel=1e-12)


def test_what_was_not_measured_is_null_with_a_reason() -> None:
    unmeasured: dict[str, dict[str, Any]] = {
        "throughput": {"samples_per_second": None, "step_seconds": None, "blocks": []},
        "inference": {"samples_per_second": None, "twirl": {}},
    }
    records = [run("equivariant", 3.0, 0.5, 0.1), run("augmented", 4.0, 0.5, 0.1)]
    for record in records:
        for name, fields in unmeasured.items():
            for field, value in fields.items():
                setattr(getattr(record, name), field, value)
        record.final_on_part, record.rungs = None, []
    gap = only(records)
    for name in ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"):
        assert getattr(gap, name).steady.value is None
        assert "step time" in gap.reasons[name]
    assert gap.sample_efficiency == Quantity()
    assert "sample_efficiency" in gap.reasons
    assert gap.twirl[4].cost.value is None
    assert "twirl.4.cost" in gap.reasons
    assert gap.loss_ratio.value == pytest.approx(0.75, rel=1e-9)


def test_json_has_the_contract_s_fields_and_no_number_that_json_lacks() -> None:
    gap = only(
        [
            run("equivariant", 0.01, 0.5, 0.1),
            run("augmented", 2.0, 0.5, 0.1, status="diverged", reason="NaN"),
        ]
    )
    plain = json.loads(json.dumps(gap.to_json(), allow_nan=False))
    quantity = {"value", "low", "high", "censored"}
    for name in ("loss_ratio", "sample_efficiency", "symmetry_penalty"):
        assert set(plain[name]) == quantity
    for name in ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"):
        assert set(plain[name]["steady"]) == set(plain[name]["all_in"]) == quantity
    assert set(plain["twirl"]) == {"2", "4", "8"}
    assert set(plain["twirl"]["2"]) == {"loss", "cost"}
    assert plain["decided"] is False
    assert plain["reason"] == "0 of 1 seed finished"
    described = {"task", "pair", "preset", "machine_key", "budget", "n_seeds", "n_diverged"}
    assert described | {"behind", "commit", "contests", "day", "seeds_needed"} <= set(plain)


def test_arms_whose_blocks_are_no_pairs_are_compared_by_their_rates() -> None:
    first, second = run("equivariant", 3.0, 0.5, 0.2), run("augmented", 4.0, 0.5, 0.1)
    first.throughput.blocks = first.throughput.blocks[:3]
    speed = only([first, second]).speed.steady
    assert speed.value == pytest.approx(2.0, rel=1e-12)
    # One seed and no blocks: nothing says how well it is known.
    assert (speed.low, speed.high) == (None, None)
