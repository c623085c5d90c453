"""The points of a budget at which a run is evaluated."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.request import Budget
from equivbench.training.job import FIRST_FRACTION, evaluation_points, extension_points

BUDGETS = st.one_of(
    st.floats(0.1, 1e6).map(lambda limit: Budget("seconds", limit)),
    st.integers(1, 10**9).map(lambda limit: Budget("steps", float(limit))),
)


@given(BUDGETS, st.integers(1, 40))
def test_points_ascend_to_exactly_the_limit(budget: Budget, evaluations: int) -> None:
    points = evaluation_points(budget, evaluations)
    assert points[-1] == budget.limit
    assert all(first < second for first, second in itertools.pairwise(points))
    assert points[0] > 0
    assert len(points) <= evaluations
    if budget.kind == "steps":
        assert all(point == int(point) and point >= 1 for point in points)


def test_points_are_log_spaced_from_a_small_part_of_the_budget() -> None:
    points = evaluation_points(Budget("seconds", 60.0), 12)
    assert len(points) == 12
    assert points[0] == pytest.approx(60 * FIRST_FRACTION)
    ratios = [second / first for first, second in itertools.pairwise(points)]
    assert ratios == pytest.approx([ratios[0]] * 11)


@given(
    st.floats(0.1, 2e4).map(lambda limit: Budget("seconds", limit)),
    st.integers(2, 40),
    st.floats(1.01, 100),
)
def test_an_extension_is_at_least_as_dense_and_ends_at_the_new_limit(
    budget: Budget, evaluations: int, factor: float
) -> None:
    longer = budget.times(factor)
    points = extension_points(budget.limit, longer, evaluations)
    assert points[-1] == longer.limit
    step = math.log(1 / FIRST_FRACTION) / (evaluations - 1)
    path = [budget.limit, *points]
    assert all(
        0 < math.log(second / first) < step * (1 + 1e-9)
        for first, second in itertools.pairwise(path)
    )
