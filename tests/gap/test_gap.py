"""The efficiency gap against closed forms: curves whose crossings are known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from factories import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.gap.efficiency import PairGap, efficiency_gap
from equivbench.records.schema import RunRecord

BUDGET = 100.0
DENSE = sorted({*np.geomspace(2, 1000, 120).round().astype(int).tolist(), 1000})


def power_law(prefactor: float, exponent: float, tau: float):
    """L as a function of steps whose value after t seconds is prefactor * t**-exponent."""
    return lambda step: prefactor * (step * tau) ** -exponent


def run(
    arm: str, prefactor: float, exponent: float, tau: float, *, upto: float = BUDGET, **more: object
) -> RunRecord:
    """A run of a power law in time, evaluated densely up to ``upto`` seconds."""
    last = round(upto / tau)
    steps = sorted({max(1, round(last * step / 1000)) for step in DENSE})
    return make_run(arm, power_law(prefactor, exponent, tau), steps, tau=tau, limit=BUDGET, **more)


def only(records: list[RunRecord]) -> PairGap:
    gaps = efficiency_gap(records)
    assert len(gaps) == 1
    return gaps[0]


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
    product = gap.sample_efficiency.value * gap.speed.steady.value
    assert product == pytest.approx(gap.s_star_equivariant.steady.value, rel=1e-12)


def test_the_augmented_arm_has_its_own_break_even_which_is_no_reciprocal() -> None:
    # An extension lets the arm that is behind reach the other, so both break-even points lie inside
    # the curves.
    a, p, c, q = 3.0, 0.4, 4.0, 0.5
    records = [
        run("equivariant", a, p, 0.2),
        run(
            "equivariant",
            a,
            p,
            0.2,
            upto=8 * BUDGET,
            budget={"limit": 8 * BUDGET, "extends": BUDGET},
            run_id="longer",
        ),
        run("augmented", c, q, 0.1),
    ]
    gap = only(records)
    equivariant = (a / c) ** (1 / p) * BUDGET ** (q / p - 1)
    augmented = (c / a) ** (1 / q) * BUDGET ** (p / q - 1)
    assert gap.s_star_equivariant.steady.value == pytest.approx(equivariant, rel=1e-9)
    assert gap.s_star_augmented.steady.value == pytest.approx(augmented, rel=1e-9)
    assert abs(math.log(equivariant * augmented)) > 0.05
    # s* above 1 and a loss ratio above 1 are the same statement.
    assert equivariant > 1 > augmented
    assert gap.loss_ratio.value > 1


def test_all_in_shifts_both_sides_by_their_compile_seconds() -> None:
    records = [
        run("equivariant", 2.0, 0.5, 0.2, compile_seconds=30.0),
        run("augmented", 4.0, 0.5, 0.1, compile_seconds=10.0),
    ]
    gap = only(records)
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


def test_an_arm_that_never_gets_there_is_censored_and_an_extension_resolves_it() -> None:
    base = [run("equivariant", 3.0, 0.4, 0.2), run("augmented", 2.0, 0.5, 0.1)]
    censored = only(base).s_star_equivariant.steady
    assert censored.censored == "above"
    assert censored.value == pytest.approx(1.0)
    longer = run(
        "equivariant",
        3.0,
        0.4,
        0.2,
        upto=20 * BUDGET,
        budget={"limit": 20 * BUDGET, "extends": BUDGET},
        run_id="longer",
    )
    resolved = only([*base, longer]).s_star_equivariant.steady
    assert resolved.censored is None
    assert resolved.value == pytest.approx(1.5**2.5 * BUDGET**0.25, rel=1e-9)
    assert resolved.value > censored.value


def test_an_arm_below_from_the_start_is_censored_below_with_its_first_evaluation_as_bound() -> None:
    tau = 0.1
    gap = only([run("equivariant", 0.01, 0.5, tau), run("augmented", 2.0, 0.5, tau)])
    s_star = gap.s_star_equivariant.steady
    assert s_star.censored == "below"
    assert s_star.value == pytest.approx(DENSE[0] * tau / BUDGET)
    assert gap.s_star_augmented.steady.censored == "above"


def test_exchanging_the_arms_exchanges_the_break_even_points() -> None:
    gap = only(
        [
            run("equivariant", 3.0, 0.5, 0.2, compile_seconds=7),
            run("augmented", 4.0, 0.5, 0.1, compile_seconds=2),
        ]
    )
    turned = only(
        [
            run("augmented", 3.0, 0.5, 0.2, compile_seconds=7),
            run("equivariant", 4.0, 0.5, 0.1, compile_seconds=2),
        ]
    )
    assert turned.s_star_augmented == gap.s_star_equivariant
    assert turned.s_star_equivariant == gap.s_star_augmented
    assert turned.loss_ratio.value == pytest.approx(1 / gap.loss_ratio.value, rel=1e-12)


def test_the_unit_of_time_does_not_matter() -> None:
    def records(scale: float) -> list[RunRecord]:
        curves = {
            "equivariant": (lambda step: 3.0 * step**-0.5, 0.2),
            "augmented": (lambda step: 4.0 * step**-0.5, 0.1),
        }
        return [
            make_run(
                arm,
                loss,
                [step for step in DENSE if step * tau <= BUDGET],
                tau=scale * tau,
                limit=scale * BUDGET,
            )
            for arm, (loss, tau) in curves.items()
        ]

    plain, scaled = only(records(1.0)), only(records(60.0))
    assert scaled.s_star_equivariant.steady.value == pytest.approx(
        plain.s_star_equivariant.steady.value, rel=1e-12
    )
    assert scaled.sample_efficiency.value == pytest.approx(plain.sample_efficiency.value, rel=1e-12)


def test_a_faster_kernel_changes_the_gap_through_speed_alone() -> None:
    def gap(tau_e: float) -> PairGap:
        curve = make_run("equivariant", lambda step: 2.5 * step**-0.46, DENSE, tau=tau_e)
        return only([curve, make_run("augmented", lambda step: 3.5 * step**-0.5, DENSE, tau=0.1)])

    slow, fast = gap(0.2), gap(0.05)
    assert slow.sample_efficiency.censored is None
    assert fast.sample_efficiency == slow.sample_efficiency
    ratio = slow.s_star_equivariant.steady.value / fast.s_star_equivariant.steady.value
    assert ratio == pytest.approx(4.0, rel=1e-12)
    assert slow.speed.steady.value / fast.speed.steady.value == pytest.approx(4.0, rel=1e-12)


@pytest.mark.parametrize("kind", ["steps", "samples"])
def test_a_budget_in_steps_or_samples_takes_the_other_arm_s_time_as_budget(kind: str) -> None:
    steps = {"equivariant": 1000, "augmented": 1000 if kind == "steps" else 500}
    batch = {"equivariant": 16, "augmented": 32}
    tau = {"equivariant": 0.3, "augmented": 0.1}
    budget = {"kind": kind, "limit": 1000.0 if kind == "steps" else 16000.0}
    records = [
        make_run(
            arm,
            lambda step: 3.0 * step**-0.5,
            [*(step for step in DENSE if step < steps[arm]), steps[arm]],
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


def test_diverged_seeds_are_infinite_losses_and_are_counted() -> None:
    def seeds(arm: str, prefactor: float, failed: set[int]) -> list[RunRecord]:
        return [
            run(
                arm,
                prefactor * (1 + 0.01 * seed),
                0.5,
                0.1,
                seed=seed,
                run_id=f"{arm}-{seed}",
                status="diverged",
                reason="loss is NaN",
            )
            if seed in failed
            else run(
                arm, prefactor * (1 + 0.01 * seed), 0.5, 0.1, seed=seed, run_id=f"{arm}-{seed}"
            )
            for seed in range(3)
        ]

    gap = only([*seeds("equivariant", 2.0, {2}), *seeds("augmented", 4.0, set())])
    assert (gap.n_seeds, gap.n_diverged, gap.diverged) == (3, 1, {"equivariant": 1, "augmented": 0})
    # The median of {2/4, 2/4, inf} by seed.
    assert gap.loss_ratio.value == pytest.approx(0.5, rel=1e-9)
    assert gap.s_star_equivariant.steady.value == pytest.approx(0.25, rel=1e-9)
    # Three seeds give no rank interval, hence no verdict.
    assert gap.loss_ratio.low is None
    assert gap.loss_ratio.high is None
    assert gap.behind is None

    most = only([*seeds("equivariant", 2.0, {1, 2}), *seeds("augmented", 4.0, set())])
    assert most.loss_ratio.value is None
    assert most.loss_ratio.censored == "above"
    assert most.s_star_equivariant.steady.censored == "above"

    every = only([*seeds("equivariant", 2.0, {0, 1, 2}), *seeds("augmented", 4.0, set())])
    assert every.s_star_equivariant.steady.censored == "above"
    assert every.s_star_augmented.steady.censored == "below"
    assert every.n_diverged == 3


def test_six_pairs_with_one_diverged_seed_can_still_decide() -> None:
    records = []
    for seed in range(6):
        failed = {"status": "diverged", "reason": "loss is NaN"} if seed == 4 else {}
        records.append(run("equivariant", 4.0, 0.5, 0.1, seed=seed, run_id=f"e{seed}", **failed))
        records.append(run("augmented", 2.0, 0.5, 0.1, seed=seed, run_id=f"a{seed}"))
    gap = only(records)
    assert gap.behind == "equivariant"
    # All six seeds agree: the sign test's p is 2 / 2^6.
    assert gap.lead.arm == "augmented"
    assert gap.lead.p == pytest.approx(2 / 64)


def test_identical_arms_tie() -> None:
    gap = only([run("equivariant", 3.0, 0.5, 0.1), run("augmented", 3.0, 0.5, 0.1)])
    assert gap.s_star_equivariant.steady.value == pytest.approx(1.0, rel=1e-12)
    assert gap.s_star_augmented.steady.value == pytest.approx(1.0, rel=1e-12)
    assert gap.behind is None


def test_a_rising_end_is_pointed_out_and_the_loss_is_the_measured_one() -> None:
    def overfits(step: float) -> float:
        return 3.0 * step**-0.5 * (1.0 if step < 400 else step / 400)

    gap = only([make_run("equivariant", overfits, DENSE, tau=0.1), run("augmented", 3.0, 0.5, 0.1)])
    assert any("rises at the end" in note for note in gap.notes)
    assert gap.loss_equivariant.value == pytest.approx(overfits(1000), rel=1e-12)


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
    unmeasured = {
        "throughput": {"samples_per_second": None, "step_seconds": None},
        "inference": {"samples_per_second": None, "twirl": {}},
    }
    gap = only(
        [
            run("equivariant", 3.0, 0.5, 0.1, **unmeasured),
            run("augmented", 4.0, 0.5, 0.1, **unmeasured),
        ]
    )
    for name in ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"):
        assert getattr(gap, name).steady.value is None
        assert name in gap.reasons
    assert gap.twirl[4].cost.value is None
    assert "twirl.4.cost" in gap.reasons
    assert gap.loss_ratio.value == pytest.approx(0.75, rel=1e-9)


def test_json_has_the_contract_s_fields_and_no_number_that_json_lacks() -> None:
    import json

    gap = only(
        [
            run("equivariant", 0.01, 0.5, 0.1),
            run("augmented", 2.0, 0.5, 0.1, status="diverged", reason="NaN"),
        ]
    )
    text = json.dumps(gap.to_json(), allow_nan=False)
    plain = json.loads(text)
    quantity = {"value", "low", "high", "censored"}
    for name in ("loss_ratio", "sample_efficiency", "symmetry_penalty"):
        assert set(plain[name]) == quantity
    for name in ("throughput_ratio", "s_star_equivariant", "s_star_augmented", "speed"):
        assert set(plain[name]["steady"]) == set(plain[name]["all_in"]) == quantity
    assert set(plain["twirl"]) == {"2", "4", "8"}
    assert set(plain["twirl"]["2"]) == {"loss", "cost"}
    assert {
        "task",
        "pair",
        "preset",
        "machine_key",
        "budget",
        "n_seeds",
        "n_diverged",
        "behind",
    } <= set(plain)


def test_three_budgets_show_how_the_loss_scales() -> None:
    records = [
        run(
            arm,
            prefactor,
            exponent,
            0.1,
            upto=limit,
            budget={"limit": limit},
            run_id=f"{arm}-{limit}",
        )
        for limit in (30.0, 100.0, 300.0)
        for arm, prefactor, exponent in (("equivariant", 3.0, 0.4), ("augmented", 4.0, 0.5))
    ]
    gaps = efficiency_gap(records)
    assert len(gaps) == 3
    for gap in gaps:
        assert gap.scaling["equivariant"].exponent == pytest.approx(0.4, rel=1e-6)
        assert gap.scaling["augmented"].exponent == pytest.approx(0.5, rel=1e-6)
    assert all(gap.scaling is None for gap in efficiency_gap(records[:4]))
