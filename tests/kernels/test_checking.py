"""Relative errors see one wrong row of many, never divide by zero, and poison leaves nothing to
pass for a result."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivbench.errors import UsageError
from equivbench.kernels.checking import (
    TOLERANCES,
    WrongKernelError,
    check,
    poison,
    relative_error,
    tolerance,
)

SEEDS = st.integers(0, 2**31)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(SEEDS, st.floats(1e-6, 1.0), st.floats(1e-3, 1e3))
def test_a_relative_change_is_its_error_whatever_the_scale(seed, change, scale):
    expected = scale * drawn(seed, 7, 5)
    # A row smaller than the typical one counts as typical, so the largest row has the largest
    # error: exactly the change.
    assert relative_error(expected * (1 + change), expected) == pytest.approx(change, rel=1e-9)
    assert relative_error(expected, expected) == 0.0


@given(SEEDS, st.integers(0, 9_999))
def test_one_wrong_row_of_ten_thousand_counts_whole(seed, row):
    expected = drawn(seed, 10_000, 4)
    found = expected.clone()
    found[row] = -expected[row]
    size = float(expected[row].norm())
    typical = float(expected.square().sum(1).mean().sqrt())
    assert relative_error(found, expected) == pytest.approx(2 * size / max(size, typical), rel=1e-9)


def test_where_zero_is_expected_the_size_of_what_is_found_counts():
    zero = torch.zeros(3, 4, dtype=torch.float64)
    assert relative_error(zero, zero) == 0.0
    assert relative_error(zero + 0.5, zero) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "expected", [torch.zeros(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)]
)
def test_what_is_not_finite_is_infinitely_wrong(value, expected):
    found = expected.clone()
    found[1, 1] = value
    assert relative_error(found, expected) == math.inf


def test_integers_are_right_or_wrong():
    expected = torch.tensor([[1, 2], [3, 4]])
    assert relative_error(expected, expected) == 0.0
    assert relative_error(torch.tensor([[1, 2], [3, 5]]), expected) == 0.25
    assert relative_error(torch.empty(0, 3), torch.empty(0, 3, dtype=torch.float64)) == 0.0
    assert relative_error(
        torch.tensor(2.0), torch.tensor(1.0, dtype=torch.float64)
    ) == pytest.approx(1.0)


def test_a_missing_derivative_is_right_only_where_it_is_zero():
    zero, one = torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    assert check({"gradient x": None}, {"gradient x": zero}, torch.float64) == {"gradient x": 0.0}
    with pytest.raises(WrongKernelError, match="gradient x is missing"):
        check({"gradient x": None}, {"gradient x": one}, torch.float64)
    with pytest.raises(WrongKernelError, match="second x is missing"):
        check({}, {"second x": one}, torch.float64)


def test_outputs_are_held_to_more_than_derivatives_and_each_dtype_to_its_own():
    expected = {
        "output": torch.ones(2, 2, dtype=torch.float64),
        "gradient x": torch.ones(2, 2, dtype=torch.float64),
    }
    for dtype, allowed in TOLERANCES.items():
        assert torch.finfo(dtype).eps < allowed.output < allowed.derivatives < 0.2, (
            "an edge of 25 changes its row by a fifth"
        )
    off = {name: value.float() * (1 + 5e-5) for name, value in expected.items()}
    assert (
        check(off | {"output": expected["output"].float()}, expected, torch.float32)["gradient x"]
        > 4e-5
    )
    with pytest.raises(WrongKernelError, match="output is off by 5e-05"):
        check(off, expected, torch.float32)
    with pytest.raises(UsageError, match="int32"):
        tolerance(torch.int32)


def test_poison_leaves_no_result():
    results = {
        "output": torch.ones(3, 2),
        "gradient x": torch.ones(1, 2).expand(3, 2),
        "second x": torch.ones(4, 6)[:, ::2],
        "gradient none": None,
        "indices": torch.ones(2, dtype=torch.int64),
        "scalar": torch.ones(()),
        "empty": torch.empty(0, 2),
    }
    poison(results)
    for name in ("output", "gradient x", "second x", "scalar"):
        assert results[name].isnan().all(), name
    assert (results["indices"] < 0).all()
