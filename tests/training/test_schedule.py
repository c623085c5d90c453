"""When evaluations, checkpoints and warm-up fall."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.budget import Budget
from equivbench.training.keeper import checkpoint_due
from equivbench.training.optim import learning_rate
from equivbench.training.progress import FIRST_FRACTION, evaluation_points, extension_points

BUDGETS = st.one_of(
    st.floats(0.1, 1e6).map(lambda limit: Budget("seconds", limit)),
    st.integers(1, 10**9).map(lambda limit: Budget("steps", limit)),
)


@given(BUDGETS, st.integers(1, 40))
def test_points_ascend_to_exactly_the_limit(budget, evaluations):
    points = evaluation_points(budget, evaluations)
    assert points[-1] == budget.limit
    assert all(first < second for first, second in itertools.pairwise(points))
    assert points[0] > 0
    assert len(points) <= evaluations
    if budget.kind == "steps":
        assert all(point == int(point) and point >= 1 for point in points)


def test_points_are_log_spaced_from_a_small_part_of_the_budget():
    points = evaluation_points(Budget("seconds", 60), 12)
    assert len(points) == 12
    assert points[0] == pytest.approx(60 * FIRST_FRACTION)
    ratios = [second / first for first, second in itertools.pairwise(points)]
    assert ratios == pytest.approx([ratios[0]] * 11)


@given(
    st.floats(0.1, 2e4).map(lambda limit: Budget("seconds", limit)),
    st.integers(2, 40),
    st.floats(1.01, 100),
)
def test_an_extension_is_at_least_as_dense_and_ends_at_the_new_limit(budget, evaluations, factor):
    longer = budget.times(factor)
    points = extension_points(budget.limit, longer, evaluations)
    assert points[-1] == longer.limit
    step = math.log(1 / FIRST_FRACTION) / (evaluations - 1)
    path = [budget.limit, *points]
    assert all(
        0 < math.log(second / first) < step * (1 + 1e-9)
        for first, second in itertools.pairwise(path)
    )


def test_warm_up_is_linear_then_constant():
    assert [learning_rate(step, 2.0, 4) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert learning_rate(0, 2.0, 0) == 2.0


def test_checkpoints_cost_at_most_two_percent():
    budget = Budget("seconds", 3600)
    assert not checkpoint_due(budget, 9.9, 9.9, 0.01)
    assert checkpoint_due(budget, 10, 10, 0.01)
    assert not checkpoint_due(budget, 49, 49, 1.0)
    assert checkpoint_due(budget, 50, 50, 1.0)
    assert checkpoint_due(Budget("steps", 95), 10, 0.1, 5.0)
    assert not checkpoint_due(Budget("steps", 95), 9, 0.1, 0.0)
