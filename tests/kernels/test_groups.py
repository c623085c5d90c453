"""Groups of edges and of nodes: complete, in order, and never those of another list of indices."""

import gc

import pytest
import torch

from equivbench.kernels.fused import groups as module
from equivbench.kernels.fused.groups import (
    CENTRE,
    NEIGHBOUR,
    centres,
    checked_elements,
    element_chunks,
    groups,
)


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


@pytest.mark.parametrize("edges", [40, 1, 0])
@pytest.mark.parametrize("far", [0, 2**40])
def test_centres_are_those_that_have_edges_whatever_they_are_called(edges: int, far: int) -> None:
    edge_index = edge_list(edges) * 3 + far
    made = centres(edge_index)
    assert made.order.sort().values.tolist() == list(range(edges))
    named = sorted(set(edge_index[CENTRE].tolist()))
    assert len(made.starts) == len(named) + 1
    assert made.starts[-1] == edges
    for place, centre in enumerate(named):
        mine = made.order[made.starts[place] : made.starts[place + 1]].tolist()
        assert mine == (edge_index[CENTRE] == centre).nonzero().flatten().tolist()


def test_a_centre_below_0_is_an_error() -> None:
    with pytest.raises(IndexError, match="centre below 0"):
        centres(edge_list() - 1)


@pytest.mark.parametrize("length", [1, 3, 50])
@pytest.mark.parametrize(
    "kinds", [[4, 0, 2, 2, 0, 2, 4, 2], [1], [], [5] * 7, [0, 1, 2, 3, 4, 5]], ids=str
)
def test_every_node_is_in_one_chunk_of_its_element(kinds: list[int], length: int) -> None:
    elements = torch.tensor(kinds, dtype=torch.int64)
    made = element_chunks(elements, 6, length)
    for element in range(6):
        found: list[int] = []
        for chunk in range(int(made.firsts[element]), int(made.firsts[element + 1])):
            mine = made.order[made.begins[chunk] : made.ends[chunk]].tolist()
            assert 0 < len(mine) <= length
            found += mine
        assert found == [node for node, kind in enumerate(kinds) if kind == element]
    # What is over is empty.
    assert bool((made.begins[made.firsts[-1] :] >= made.ends[made.firsts[-1] :]).all())


@pytest.mark.parametrize("wrong", [-1, 6, 2**40])
def test_an_element_that_has_no_weights_is_an_error(wrong: int) -> None:
    elements = torch.tensor([0, wrong, 3])
    with pytest.raises(RuntimeError, match="not among the 6"):
        checked_elements(elements, 6)
    with pytest.raises(RuntimeError, match="not among the 6"):
        element_chunks(elements, 6, 2)


def test_groups_are_kept_while_the_edge_list_lives_and_made_anew_once_it_is_written_to() -> None:
    edge_index = edge_list()
    first = groups(edge_index, CENTRE, 7)
    assert groups(edge_index, CENTRE, 7).order is first.order
    assert not torch.equal(groups(edge_index, NEIGHBOUR, 7).order, first.order)
    assert len(groups(edge_index, CENTRE, 9).starts) == 10
    assert centres(edge_index).order is centres(edge_index).order
    edge_index.copy_(edge_index.flip(0).clone())
    assert torch.equal(
        groups(edge_index, CENTRE, 7).order, groups(edge_index.clone(), CENTRE, 7).order
    )
    assert not torch.equal(groups(edge_index, CENTRE, 7).order, first.order)
    assert torch.equal(centres(edge_index).order, centres(edge_index.clone()).order)


def test_nothing_outlives_its_edge_list() -> None:
    gc.collect()
    before = len(module._KEPT)
    edge_index = edge_list()
    groups(edge_index, CENTRE, 7)
    centres(edge_index)
    assert len(module._KEPT) == before + 1
    del edge_index
    gc.collect()
    assert len(module._KEPT) == before


def test_inference_tensors_have_no_version_and_are_grouped_each_time() -> None:
    with torch.inference_mode():
        edge_index = edge_list()
        first = groups(edge_index, CENTRE, 7)
        edge_index.copy_(edge_index.flip(0).clone())
        assert not torch.equal(groups(edge_index, CENTRE, 7).order, first.order)
