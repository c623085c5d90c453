"""Paths and sizes of the stated operations."""

from itertools import pairwise

import pytest
import torch
from e3nn import o3

from equivbench.kernels.operations import (
    CASES,
    Convolution,
    EdgeProduct,
    Operation,
    Path,
    SO2Convolution,
    SO2Message,
    SteerableConvolution,
    case,
    costs,
)
from equivbench.kernels.operations.edge_frames import frame_elements, frame_rows


def test_paths_are_those_of_the_triangle_rule() -> None:
    assert len(Convolution((4, 4, 4), 2, 2).paths) == 11
    assert len(Convolution((4, 4, 4), 2, 2, parity=False).paths) == 15
    assert Convolution((4,), 2, 2).paths == (Path(0, 0, 0), Path(0, 1, 1), Path(0, 2, 2))


def test_sizes_follow_the_channels_of_each_paths_source() -> None:
    operation = Convolution((5, 3), 1, 1)
    assert operation.paths == (Path(0, 0, 0), Path(0, 1, 1), Path(1, 0, 1), Path(1, 1, 0))
    assert operation.weight_size == 5 + 5 + 3 + 3
    assert operation.source_size == 5 + 3 * 3
    assert operation.target_size == 5 + 3 * 5 + 3 * 3 + 3


def test_every_path_couples() -> None:
    for path in (
        *Convolution((1, 1, 1), 2, 2, parity=False).paths,
        *SteerableConvolution((1, 1), (1, 1), 2, 3.0, 2).paths,
    ):
        assert o3.wigner_3j(path.target, path.source, path.edge).norm() > 0.9  # its norm is 1


def test_the_edge_product_returns_to_its_own_degrees() -> None:
    assert {path.target for path in EdgeProduct(2, 2).paths} == {0, 1, 2}


def test_orders_up_to_mmax_are_mixed() -> None:
    operation = SO2Convolution(3, 5, 3, 1)
    assert operation.degrees == (4, 3)
    assert operation.mixing_size == (4 * 4 + 2 * 3 * 3) * 3 * 5


def test_a_message_makes_no_orders_that_its_target_lacks() -> None:
    operation = SO2Message(3, 5, 3, 1, 2)
    assert (operation.into.rows, operation.back.rows) == (frame_rows(3, 1), frame_rows(1, 1))
    # Gates of three degrees beside four rows of m = 0; of m = 1 there are three rows and one.
    assert operation.first_shapes == ((4 * 6, 7 * 5), (3 * 6, 3 * 5))
    assert operation.second_shapes == ((4 * 5, 2 * 3), (3 * 5, 3))


def test_elements_of_lower_orders_come_first() -> None:
    few, many = frame_elements(3, 1), frame_elements(3, 2)
    assert many[: len(few)] == few
    assert [one for _, one in few[:16]] == list(range(16))
    assert len(set(many)) == len(many) == 70  # 1 + 3 3 + 5 5 + 5 7: rows by columns


def test_every_operation_has_a_quick_case() -> None:
    quick = {type(one.operation) for one in CASES if one.quick}
    assert quick == set(Operation.__subclasses__()) - {
        one for one in Operation.__subclasses__() if "equivbench" not in one.__module__
    }


def test_names_are_unique_and_found() -> None:
    assert len({one.name for one in CASES}) == len(CASES)
    assert all(case(one.name) is one for one in CASES)


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_costs_grow_with_derivatives_and_the_floor_is_below_the_unfused(one) -> None:  # type: ignore[no-untyped-def]
    modes = [costs(one, "forward"), costs(one, "backward"), costs(one, "double_backward")]
    for less, more in pairwise(modes[: one.derivatives + 1]):
        assert 0 < less.bytes_fused < more.bytes_fused
        assert 0 < less.operations < more.operations
    assert all(0 < mode.bytes_fused <= mode.bytes_unfused for mode in modes)
    half = costs(one, "backward", itemsize=2)
    assert half.bytes_fused < modes[1].bytes_fused or one.derivatives == 0
    assert torch.isfinite(torch.tensor([half.bytes_unfused])).all()
