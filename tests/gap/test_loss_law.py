"""The law of a frontier: known laws are found again, with and without a floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.gap.loss_law import ENOUGH, FlooredPowerLaw, fit_law

BUDGETS = np.log(15.0 * 2.0 ** np.arange(6))

laws = st.builds(
    FlooredPowerLaw,
    st.floats(-3.0, 3.0),
    st.floats(0.1, 1.2),
    st.just(0.0),
)


@given(laws, st.floats(0.0, 0.8))
def test_a_law_is_found_again(law: FlooredPowerLaw, part: float) -> None:
    # The floor is a part of the loss at the largest budget.
    falling = math.exp(float(law.log_loss(BUDGETS)[-1]))
    law = law._replace(floor=part / (1 - part) * falling)
    found = fit_law(BUDGETS, law.log_loss(BUDGETS))
    # A misfit of rounding is left, which a nearly straight line turns into some of the floor.
    assert np.allclose(found.log_loss(BUDGETS), law.log_loss(BUDGETS), atol=1e-6)
    assert found.exponent == pytest.approx(law.exponent, rel=0.01, abs=0.01)
    total = math.exp(float(law.log_loss(BUDGETS)[-1]))
    assert found.floor == pytest.approx(law.floor, abs=0.02 * total)


def test_few_budgets_give_a_straight_line() -> None:
    few = BUDGETS[: ENOUGH - 1]
    found = fit_law(few, FlooredPowerLaw(1.0, 0.5, 0.2).log_loss(few))
    assert found.floor == 0.0
    assert 0 < found.exponent < 0.5


def test_a_curve_that_steepens_has_no_floor() -> None:
    bent = 1.0 - 0.3 * BUDGETS - 0.05 * (BUDGETS - BUDGETS[0]) ** 2
    assert fit_law(BUDGETS, bent).floor == 0.0
