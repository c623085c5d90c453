"""Groups of edges: complete, in order, and never those of another edge list."""

import gc

import pytest
import torch

from equivbench.kernels.fused import triton_launch
from equivbench.kernels.fused.triton_launch import CENTRE, NEIGHBOUR, groups


def edge_list(edges: int = 40, nodes: int = 7) -> torch.Tensor:
    return torch.randint(0, nodes - 1, (2, edges), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("row", [NEIGHBOUR, CENTRE])
@pytest.mark.parametrize("edges", [40, 0])
def test_every_edge_is_in_the_group_of_its_end_once(row: int, edges: int) -> None:
    edge_index = edge_list(edges)
    made = groups(edge_index, row, 7)
    assert made.order.sort().values.tolist() == list(range(edges))
    assert made.starts[0] == 0
    assert made.starts[-1] == edges
    for node in range(7):
        mine = made.order[made.starts[node] : made.starts[node + 1]]
        assert edge_index[row, mine].tolist() == [node] * len(mine)
        # The order of a sum is that of the edge list, so that it does not depend on the sort.
        assert mine.tolist() == sorted(mine.tolist())
    assert torch.equal(made.others, edge_index[1 - row][made.order])


def test_groups_are_kept_while_the_edge_list_lives_and_made_anew_once_it_is_written_to() -> None:
    edge_index = edge_list()
    first = groups(edge_index, CENTRE, 7)
    assert groups(edge_index, CENTRE, 7).order is first.order
    assert not torch.equal(groups(edge_index, NEIGHBOUR, 7).order, first.order)
    assert len(groups(edge_index, CENTRE, 9).starts) == 10
    edge_index.copy_(edge_index.flip(0).clone())
    assert torch.equal(
        groups(edge_index, CENTRE, 7).order, groups(edge_index.clone(), CENTRE, 7).order
    )
    assert not torch.equal(groups(edge_index, CENTRE, 7).order, first.order)


def test_nothing_outlives_its_edge_list() -> None:
    gc.collect()
    before = len(triton_launch._KEPT)
    edge_index = edge_list()
    groups(edge_index, CENTRE, 7)
    assert len(triton_launch._KEPT) == before + 1
    del edge_index
    gc.collect()
    assert len(triton_launch._KEPT) == before


def test_inference_tensors_have_no_version_and_are_grouped_each_time() -> None:
    with torch.inference_mode():
        edge_index = edge_list()
        first = groups(edge_index, CENTRE, 7)
        edge_index.copy_(edge_index.flip(0).clone())
        assert not torch.equal(groups(edge_index, CENTRE, 7).order, first.order)
