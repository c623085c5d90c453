"""The cost formulas against what the coefficients and sizes really are."""

import math

import pytest
from e3nn import o3

from equivbench.errors import UsageError
from equivbench.kernels.operations import (
    CASES,
    Case,
    Convolution,
    CubeConvolution,
    Linear,
    Operation,
    SteerableConvolution,
    case,
    costs,
)
from equivbench.kernels.operations.paths import coupled_orders
from equivbench.specs import MODES


def test_coupled_orders_are_the_coefficients_that_are_not_zero() -> None:
    for path in Convolution((1, 1, 1), 2, 2, parity=False).paths:
        nonzero = (
            o3.wigner_3j(path.target, path.source, path.edge).abs() > 1e-6
        )  # the least is above .1
        assert sum(coupled_orders(path)) == int(nonzero.sum())
        assert len(coupled_orders(path)) == int(nonzero.any(-1).sum())


def test_a_linear_map_costs_its_arguments_result_and_products() -> None:
    one = Case("test", Linear((4, 2), (3, 5)), {"nodes": 10}, 2, "")
    found = costs(one, "forward")
    assert (
        found.bytes_fused
        == found.bytes_unfused
        == 4 * (10 * (4 + 3 * 2) + 4 * 3 + 2 * 5 + 10 * (3 + 3 * 5))
    )
    assert found.operations == 2 * 10 * (4 * 3 + 3 * 2 * 5)
    arguments, output = 4 * (10 * 10 + 22), 4 * 10 * 18
    assert (found.bytes_read, found.bytes_written) == (arguments, output)
    # The output's gradient is read beside the arguments, and each of these has a gradient.
    twice = costs(one, "backward")
    assert (twice.bytes_read, twice.bytes_written) == (2 * arguments + output, output + arguments)
    # Of those a gradient each arrives, and what they and the output's gradient have are written.
    thrice = costs(one, "double_backward")
    assert thrice.bytes_read == 4 * arguments + 2 * output
    assert thrice.bytes_written == 2 * (arguments + output)


def test_a_scalar_convolution_costs_what_is_counted_by_hand() -> None:
    one = Case("test", Convolution((2,), 0, 0), {"nodes": 3, "edges": 4}, 2, "")
    found = costs(one, "forward")
    # x, harmonics, weights and output, and two int64 an edge.
    assert found.bytes_fused == 4 * (3 * 2 + 4 + 4 * 2 + 3 * 2) + 4 * 16
    # Two products and one sum would do; the count has one product more for the matrix of the
    # harmonics.
    assert found.operations == 4 * 2 * 4


def test_the_floor_of_the_64_channel_case_is_mostly_its_weights() -> None:
    one = case("convolution-c64-l2")
    assert isinstance(one.operation, Convolution)
    weights = 4 * one.sizes["edges"] * one.operation.weight_size
    assert weights < costs(one, "forward").bytes_fused < 1.3 * weights


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_every_argument_is_read_and_every_gradient_written(one: Case) -> None:
    modes = [costs(one, mode) for mode in MODES[: one.derivatives + 1]]
    sizes = {
        name: (8 if drawn.index else 4) * math.prod(drawn.shape)
        for name, drawn in one.operation.arguments(one.sizes).items()
    }
    # A handful of numbers, such as a weight for each head, may be left out.
    assert modes[0].bytes_read == pytest.approx(sum(sizes.values()), rel=1e-3)
    if one.derivatives:
        gradients = sum(sizes[name] for name in one.operation.differentiable)
        written = modes[1].bytes_written - modes[0].bytes_written
        assert written == pytest.approx(gradients, rel=1e-3)


def test_voxels_beyond_the_grid_and_corners_of_a_kernel_are_no_work() -> None:
    sizes = {"samples": 1, "size": 4}
    cube = Case("test", CubeConvolution(1, 1, 3), sizes, 1, "")
    # Along an axis 4 voxels meet themselves and 3 a neighbour on each side.
    assert costs(cube, "forward").operations == 2 * 24 * 24 * (4 + 3 + 3) ** 3
    ball = Case("test", SteerableConvolution((1,), (1,), 0, 3.0, 1), sizes, 1, "")
    # One radial function over 0 to 1.5 voxels: not the centre, 6 faces, 12 edges, no corner (1.73).
    assert costs(ball, "forward").operations == 2 * (6 * 3 * 4 * 4 + 12 * 3 * 3 * 4)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("pair-bias-attention-64", 8 * 64 * 8 * 16),
        ("point-attention-64", 4 * 64 * 8 * (16 + 4 * 8)),
    ],
)
def test_attention_writes_its_output_once(name: str, numbers: int) -> None:
    assert costs(case(name), "forward").bytes_written == 4 * numbers


def test_an_operation_without_formulas_is_said() -> None:
    with pytest.raises(UsageError, match="no cost formulas"):
        costs(
            Case("test", type("Foreign", (Operation,), {"name": "foreign"})(), {}, 0, ""), "forward"
        )
