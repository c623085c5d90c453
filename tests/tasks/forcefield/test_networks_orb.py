"""Orb's parts: maps summed from their parts, and edges that count for both of their ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from equivbench.tasks.forcefield.networks.orb import OrbLayer

WIDTH, ATOMS = 6, 5
EDGES = torch.tensor([[0, 1, 2, 3, 4, 2], [1, 2, 0, 4, 3, 1]])


@pytest.fixture
def layer() -> OrbLayer:
    torch.manual_seed(0)
    return OrbLayer(WIDTH, 7, neighbours=4.0).double()


def states() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    nodes, edges = (
        torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
        for rows in (ATOMS, EDGES.shape[1])
    )
    return nodes, edges, torch.rand(len(edges), 1, generator=generator, dtype=torch.float64)


def test_an_edge_learns_from_itself_and_both_ends_through_one_map(layer: OrbLayer) -> None:
    nodes, edges, smooth = states()
    together = torch.cat([edges, nodes[EDGES[0]], nodes[EDGES[1]]], dim=1)
    weight = torch.cat([layer.own.weight, *layer.ends.weight.chunk(2)], dim=1)
    expected = edges + layer.edge(together @ weight.T + layer.own.bias)
    torch.testing.assert_close(layer(nodes, edges, smooth, EDGES)[1], expected)


def test_an_atom_learns_from_edges_in_and_out_and_a_faded_one_says_nothing(
    layer: OrbLayer,
) -> None:
    nodes, edges, smooth = states()
    before = layer(nodes, edges, smooth, EDGES)[0]
    changed = edges.clone()
    changed[3] += 1.0  # from atom 3 to atom 4
    after = layer(nodes, changed, smooth, EDGES)[0]
    moved = (after - before).abs().amax(1) > 1e-6
    assert moved.tolist() == [False, False, False, True, True]
    smooth[3] = 0.0
    faded = [layer(nodes, each, smooth, EDGES)[0] for each in (edges, changed)]
    assert torch.equal(*faded)
