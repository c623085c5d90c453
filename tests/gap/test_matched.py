"""Shares at a matched loss: closed forms on power laws, what is not reached, means over seeds; and
the baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from factories import BASELINE, make_record, make_run, make_test
from hypothesis import given, settings
from hypothesis import strategies as st

from equivbench.gap.matched import END, matched_shares, share_at
from equivbench.records.curves import Evaluation, curve
from equivbench.records.schema import RunRecord
from equivbench.report.arms import ends_table, levels_table
from equivbench.report.render import cell_text
from equivbench.report.table import Table

STEPS = (10, 30, 100, 300, 1000)


def rungs(
    loss: Callable[[float], float], share: Callable[[float], float], steps: Sequence[int] = STEPS
) -> list[Any]:
    return [
        {
            "budget": 0.1 * n,
            "step": n,
            "samples": 32 * n,
            "train_seconds": 0.1 * n,
            "test": make_test(loss(n), share(n)),
        }
        for n in steps
    ]


def points(
    losses: Sequence[float], shares: Sequence[float], steps: Sequence[int] = STEPS
) -> list[Evaluation]:
    values = dict(zip(steps, zip(losses, shares, strict=True), strict=True))
    raw = rungs(lambda n: values[int(n)][0], lambda n: values[int(n)][1], steps)
    return curve(make_record(rungs=raw))


def power_run(
    arm: str,
    start: float,
    power: float,
    share: float,
    share_power: float,
    seed: int = 0,
    **more: Any,
) -> RunRecord:
    """A run with loss ``start`` n^-``power`` and share ``share`` n^-``share_power``."""
    results = rungs(lambda n: start * n**-power, lambda n: share * n**-share_power)
    return make_run(
        arm, lambda n: start * n**-power, STEPS, tau=0.1, seed=seed, rungs=results, **more
    )


powers = st.floats(0.1, 1.0)


def by_first_cell(table: Table) -> dict[str, list[str]]:
    rows = [
        [cell_text(cell, column) for column, cell in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    return {row[0]: row for row in rows}


@settings(max_examples=50, deadline=None)
@given(powers, st.floats(-0.5, 0.5), st.floats(0.02, 0.98))
def test_on_power_laws_the_share_at_a_loss_is_the_closed_form(
    power: float, share_power: float, part: float
) -> None:
    at = 10 * 100**part  # steps, between the first and the last evaluation
    results = points([5 * n**-power for n in STEPS], [0.01 * n**-share_power for n in STEPS])
    found, censored = share_at(results, math.log(5 * at**-power))
    assert censored is None
    # Straight lines in logarithms: only rounding, magnified by 1 / power where the crossing is
    # found.
    assert found == pytest.approx(0.01 * at**-share_power, rel=1e-9)


def test_nothing_is_extrapolated() -> None:
    results = points([5, 4, 3, 2, 1], [0.1] * 5)
    assert share_at(results, math.log(0.99)) == (None, "above")
    assert share_at(results, math.log(5.01)) == (None, "below")
    assert share_at([], 0.0) == (None, "above")
    # Both ends are evaluations, not extrapolations.
    assert share_at(results, math.log(1)) == (pytest.approx(0.1), None)
    assert share_at(results, math.log(5)) == (pytest.approx(0.1), None)


def test_a_loss_that_comes_back_is_read_where_it_is_passed_for_good() -> None:
    shares = [0.5, 0.4, 0.3, 0.2, 0.1]
    dipped, plain = (
        points([5, 2, 4, 1.5, 1], shares),
        points([5, math.sqrt(8), math.sqrt(8), 1.5, 1], shares),
    )
    # The nearest non-increasing curve levels the dip at its mean in logarithms.
    assert share_at(dipped, math.log(2)) == share_at(plain, math.log(2))
    assert 0.2 < share_at(dipped, math.log(2))[0] < 0.3


def test_shares_round_zero_are_interpolated_linearly() -> None:
    results = points([4, 1], [1e-9, -3e-9], steps=(10, 1000))
    assert share_at(results, math.log(2))[0] == pytest.approx(-1e-9)


def test_points_without_a_share_are_passed_over() -> None:
    whole, holed = (
        points([4, 2, 1], [0.1, 0.9, 0.1], (10, 100, 1000)),
        points([4, 2, 1], [0.1, 0.9, 0.1], (10, 100, 1000)),
    )
    holed[1].test.share = None
    assert share_at(whole, math.log(2))[0] == pytest.approx(0.9)
    assert share_at(holed, math.log(2))[0] == pytest.approx(0.1)


def three_seeds(arm: str, start: float, power: float = 0.5, share: float = 0.01) -> list[RunRecord]:
    return [
        power_run(arm, start, power, share * factor, 0.0, seed)
        for seed, factor in enumerate((1.0, 2.0, 3.0))
    ]


def test_the_mean_over_seeds_comes_with_its_student_interval() -> None:
    (found,) = matched_shares(
        [*three_seeds("equivariant", 4.0, share=1e-8), *three_seeds("augmented", 8.0)]
    )
    assert list(found.arms) == ["equivariant", "augmented"]
    level = found.levels[-1]
    assert level.name == END
    assert level.loss == pytest.approx(8.0 / math.sqrt(1000))
    reading = level.arms["augmented"]
    assert (reading.seeds, reading.reached, reading.began_below) == (3, 3, 0)
    assert reading.share.value == pytest.approx(0.02)
    # Student's 97.5% point at two degrees of freedom, 4.3027, times sd 0.01 over the root of three.
    assert reading.share.high == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3), rel=1e-5)
    assert level.arms["equivariant"].share.value == pytest.approx(2e-8)


def test_a_level_that_one_seed_does_not_reach_has_no_mean() -> None:
    poor = power_run("augmented", 30.0, 0.3, 0.01, 0.0, seed=3)
    (found,) = matched_shares(
        [*three_seeds("equivariant", 4.0), *three_seeds("augmented", 8.0), poor]
    )
    deep = {level.name: level for level in found.levels}["explained 90%"]
    assert deep.loss == pytest.approx(BASELINE / 10)
    assert (deep.arms["augmented"].share.value, deep.arms["augmented"].reached) == (None, 3)
    assert deep.arms["equivariant"].share.value is not None
    end = found.levels[-1]
    assert end.loss == pytest.approx(30.0 * 1000**-0.3)
    assert end.arms["augmented"].reached == 4
    table = levels_table(found.levels)
    text = by_first_cell(table)
    names = [column.name for column in table.columns]
    assert names == ["share at", "loss", "equivariant", "augmented"]
    assert text["explained 90%"][3] == "reached by 3 of 4 seeds only"
    assert text["explained 25%"][2] == "passed before the first evaluation"


def test_a_level_that_nobody_reaches_is_said() -> None:
    (found,) = matched_shares(
        [
            power_run("equivariant", 30.0, 0.3, 1e-9, 0.0),
            power_run("augmented", 30.0, 0.3, 0.1, 0.0),
        ]
    )
    row = by_first_cell(levels_table(found.levels))["explained 90%"]
    assert row[2:] == ["not reached", "not reached"]


def test_each_arm_stands_against_both_baselines() -> None:
    baselines = {"zero": BASELINE, "linear": 4.0}
    runs = [
        power_run(arm, 8.0, 0.5, 0.01, 0.0, baselines=baselines)
        for arm in ("equivariant", "augmented", "frames")
    ]
    (found,) = matched_shares(runs)
    assert (found.baseline, found.linear, found.notes) == (pytest.approx(BASELINE), 4.0, [])
    total = 8.0 / math.sqrt(1000)
    for standing in found.arms.values():
        assert standing.total.value == pytest.approx(total)
        assert standing.over_best_untrained.value == pytest.approx(total / BASELINE)
        assert list(standing.shares) == ["annealed", "raw", "ema"]
        assert standing.explained.value == pytest.approx(1 - total / BASELINE)
        assert standing.total.low is None  # one seed
    rows = by_first_cell(ends_table(found))
    assert list(rows) == ["equivariant", "augmented", "frames", "linear baseline", "zero baseline"]
    assert rows["linear baseline"][2:4] == ["1.00", "60.0%"]
    assert rows["zero baseline"][2:4] == ["2.50", "0%"]


def test_what_is_explained_says_what_it_is_relative_to() -> None:
    (found,) = matched_shares([make_record()])
    assert found.baseline == pytest.approx(BASELINE)
    assert found.linear is None
    assert found.levels == []
    assert len(found.notes) == 1


def test_settings_and_kernels_are_kept_apart_and_diverged_seeds_counted() -> None:
    swept = make_record(variant={"sweep": "data", "value": "0.5"}, run_id="small-seed0-data")
    fast = make_record(model={"kernels": "fast"}, run_id="small-seed0-fast")
    lost = make_record(seed=1, status="diverged", reason="nan", final=None)
    found = matched_shares([make_record(), swept, fast, lost])
    assert len(found) == 2
    assert [list(each.arms) for each in found] == [
        ["equivariant on default", "equivariant on fast"],
        ["equivariant"],
    ]
    default = found[0].arms["equivariant on default"]
    assert (default.seeds, default.finished) == (2, 1)
    assert matched_shares([lost]) == []


@pytest.mark.parametrize(("weights", "factor"), [("annealed", 1.0), ("raw", 1.2), ("ema", 1.08)])
def test_the_losses_are_those_of_the_weights_that_are_asked_for(
    weights: str, factor: float
) -> None:
    runs = [
        make_run(arm, lambda n: 8.0 * n**-0.5, STEPS, tau=0.1, share=0.02)
        for arm in ("equivariant", "augmented")
    ]
    (found,) = matched_shares(runs, weights)
    assert found.weights == weights
    # The trace ends where the cooldown begins, at the last point but one of these runs.
    last = STEPS[-1] if weights == "annealed" else STEPS[-2]
    assert found.levels[-1].loss == pytest.approx(factor * 8.0 * last**-0.5)
    assert found.levels[-1].arms["augmented"].share.value == pytest.approx(0.02)
    assert matched_shares(runs)[0].weights == "annealed"
