"""The neighbour search of PyG's networks, for machines without its compiled packages."""

from __future__ import annotations

import torch
from torch import Tensor

from equivbench.errors import UsageError
from equivbench.kernels.neighbours import edges_within


def radius_graph(
    x: Tensor,
    r: float,
    batch: Tensor | None = None,
    loop: bool = False,
    max_num_neighbors: int = 32,
    flow: str = "source_to_target",
    num_workers: int = 1,
    batch_size: int | None = None,
) -> Tensor:
    """What ``torch_geometric.nn.radius_graph`` gives, without pyg-lib and torch-cluster.

    Parameters
    ----------
    x
        [atoms, 3] positions.
    r
        The cutoff, in their unit.
    batch
        [atoms] int64, sorted; None: one structure.
    loop
        Also an edge from each atom to itself.
    max_num_neighbors
        The nearest so many sources of each target, itself not counted.

    Returns
    -------
    Tensor
        [2, edges] int64: sources, targets.
    """
    if flow != "source_to_target":
        raise UsageError(f"flow is 'source_to_target', not {flow!r}")
    own = torch.zeros(len(x), dtype=torch.int64, device=x.device) if batch is None else batch
    edges = edges_within(x.detach(), own, float(r), max_num_neighbors)
    if not loop:
        return edges
    atoms = torch.arange(len(x), device=x.device)
    return torch.cat((edges, atoms.expand(2, -1)), dim=1)
