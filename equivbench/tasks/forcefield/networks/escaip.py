"""EScAIP: attention over the neighbours of each atom on invariant features; its force head may
break the symmetry.

Qu & Krishnapriyan 2024 (2410.24169), version 1 of their code. Everything before the head is
invariant under rotations and reflections. The head gives an edge ij a triple s_ij and predicts f_i
= m_i sum_j s_ij (*) d_ij with d_ij the direction to the neighbour: three independent rows break the
symmetry, one row used for x, y and z ("tied") is exactly O(3)-equivariant.

Departures: no dropout (runs must be reproducible step by step); neighbours carry a smooth cutoff
weight, as in version 2 of their code (see ``neighbourhood`` in ``graph.py``); linear maps of
concatenated atom and edge features are summed from their parts, which is the same function and
cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from e3nn.math import soft_one_hot_linspace
from torch import Tensor, nn
from torch.nn import functional

from equivbench.tasks.forcefield.networks.graph import bond_order, neighbourhood, sum_by, widened


@dataclass(frozen=True)
class EScAIPSizes:
    """Widths, by their names in the published configuration; ``elements`` rows in each of the
    element embeddings."""

    hidden: int
    layers: int
    heads: int
    cutoff: float
    max_neighbours: int
    head_rows: int
    radial: int
    """Gaussians of the distance expansion."""
    distance: int
    """Width of the distance embedding."""
    atom: int
    """Width of the element embeddings."""
    orders: int
    """Bond-orientational orders."""
    direction: int
    """Width of their embedding."""
    elements: int = 100


@dataclass(frozen=True)
class EScAIPInputs:
    """What layers read: z [atoms], distances [atoms, K, radial], orders [atoms, orders], cosines
    [atoms, K, K], neighbours."""

    z: Tensor
    radial: Tensor
    orders: Tensor
    cosines: Tensor
    source: Tensor
    weight: Tensor

    def of_source(self, values: Tensor) -> Tensor:
        """[atoms, K, ...]: the rows of ``values`` [atoms, ...] that belong to the neighbours."""
        rows: Tensor = values.index_select(0, self.source.flatten()).unflatten(0, self.source.shape)
        return rows

    def mean(self, edges: Tensor) -> Tensor:
        """[atoms, H]: weighted mean over the neighbours of ``edges`` [atoms, K, H]."""
        return (edges * self.weight.unsqueeze(-1)).sum(1) / (
            self.weight.sum(1, keepdim=True) + 1e-5
        )


class EScAIPLinear(nn.Linear):
    """nn.Linear that flattens the leading axes of its input first.

    Otherwise ``torch.compile`` of ``torch.func.grad`` through three axes and a bias fixes the
    number of atoms (torch 2.13), and each batch is compiled anew.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., outputs] from [..., inputs]."""
        out: Tensor = super().forward(input.flatten(0, -2)).unflatten(0, input.shape[:-1])
        return out


def feed_forward(width: int, multiplier: int = 2) -> nn.Sequential:
    """Linear, GELU, Linear."""
    return nn.Sequential(
        EScAIPLinear(width, multiplier * width), nn.GELU(), EScAIPLinear(multiplier * width, width)
    )


class EdgeFeatures(nn.Module):
    """[atoms, K, H] from distances, elements and bond-orientational orders of both ends."""

    def __init__(self, sizes: EScAIPSizes) -> None:
        super().__init__()
        self.elements = nn.ModuleList(nn.Embedding(sizes.elements, sizes.atom) for _ in range(2))
        self.orders = nn.ModuleList(EScAIPLinear(sizes.orders, sizes.direction) for _ in range(2))
        self.ends = nn.ModuleList(
            EScAIPLinear(sizes.atom + sizes.direction, sizes.hidden, bias=False) for _ in range(2)
        )
        self.distance = nn.Sequential(
            EScAIPLinear(sizes.radial, sizes.distance),
            nn.GELU(),
            EScAIPLinear(sizes.distance, sizes.hidden),
        )

    def forward(self, inputs: EScAIPInputs) -> Tensor:
        """The features, after a GELU."""
        source, target = (
            end(torch.cat([element(inputs.z), functional.gelu(order(inputs.orders))], dim=-1))
            for end, element, order in zip(self.ends, self.elements, self.orders, strict=True)
        )
        return functional.gelu(
            self.distance(inputs.radial) + inputs.of_source(source) + target.unsqueeze(1)
        )


class EScAIPAttention(nn.Module):
    """Self-attention among the neighbours of each atom, biased by the cosine of the angle between
    them."""

    def __init__(self, sizes: EScAIPSizes) -> None:
        super().__init__()
        width = sizes.hidden
        self.heads = sizes.heads
        self.edges = EdgeFeatures(sizes)
        self.source = EScAIPLinear(width, width, bias=False)
        self.target = EScAIPLinear(width, width)
        self.message = EScAIPLinear(2 * width, width)
        self.project = EScAIPLinear(width, 3 * width)
        self.out = EScAIPLinear(width, width)
        self.angle = nn.Parameter(torch.ones(()))

    def forward(self, inputs: EScAIPInputs, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """(change of the atoms [atoms, H], change of the edges [atoms, K, H])."""
        ends = functional.gelu(
            inputs.of_source(self.source(nodes)) + self.target(nodes).unsqueeze(1)
        )
        message = functional.gelu(self.message(torch.cat([self.edges(inputs), ends], dim=-1)))
        query, key, value = (
            self.project(message).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + (
            self.angle * inputs.cosines
        ).unsqueeze(1)
        # A softmax in which each neighbour counts with its cutoff weight; written out because it
        # must be twice differentiable.
        weights = (scores - scores.detach().amax(-1, keepdim=True)).exp() * inputs.weight[
            :, None, None, :
        ]
        mixed = (weights / (weights.sum(-1, keepdim=True) + 1e-12)) @ value
        edges = self.out(mixed.transpose(1, 2).flatten(2))
        return inputs.mean(edges), edges


class EScAIPBlock(nn.Module):
    """Attention and feed-forward layers on atoms and edges, residual, normalised first."""

    def __init__(self, sizes: EScAIPSizes) -> None:
        super().__init__()
        width = sizes.hidden
        self.attention = EScAIPAttention(sizes)
        self.before_attention = nn.RMSNorm(width)
        self.before_nodes, self.before_edges = nn.RMSNorm(width), nn.RMSNorm(width)
        self.nodes, self.edges = feed_forward(width), feed_forward(width)

    def forward(self, inputs: EScAIPInputs, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """The new features of atoms and edges."""
        node_change, edge_change = self.attention(inputs, self.before_attention(nodes))
        nodes, edges = nodes + node_change, edges + edge_change
        return nodes + self.nodes(self.before_nodes(nodes)), edges + self.edges(
            self.before_edges(edges)
        )


class Readout(nn.Module):
    """One set of features (of atoms or of edges) from all layers, read out and projected to one
    width."""

    def __init__(self, sizes: EScAIPSizes) -> None:
        super().__init__()
        width, depths = sizes.hidden, sizes.layers + 1
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(depths))
        self.layers = nn.ModuleList(feed_forward(width) for _ in range(depths))
        self.project = nn.Sequential(
            nn.RMSNorm(depths * width),
            EScAIPLinear(depths * width, width),
            nn.GELU(),
            nn.RMSNorm(width),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """[..., H] from the features [..., H] of every depth."""
        read = [
            one + layer(norm(one))
            for one, layer, norm in zip(features, self.layers, self.norms, strict=True)
        ]
        out: Tensor = self.project(torch.cat(read, dim=-1))
        return out


class Head(nn.Module):
    """A residual feed-forward layer and a bias-free linear map to ``rows`` numbers."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.layer = feed_forward(width)
        self.rows = EScAIPLinear(width, rows, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[..., rows]."""
        out: Tensor = self.rows(features + self.layer(features))
        return out


class EScAIP(nn.Module):
    """``forward(z, pos, batch, edge_index, n_atoms)`` returns ``forces`` [atoms, 3] eV/A and
    ``energy`` [molecules] eV."""

    def __init__(self, sizes: EScAIPSizes) -> None:
        super().__init__()
        self.requires = {
            "edge_index": sizes.cutoff,
            "max_neighbours": float(sizes.max_neighbours),
            "n_atoms": 1.0,
        }
        self.cutoff, self.places, self.orders, self.radial = (
            sizes.cutoff,
            sizes.max_neighbours,
            sizes.orders,
            sizes.radial,
        )
        self.edges = EdgeFeatures(sizes)
        self.edge_layer = nn.Sequential(nn.RMSNorm(sizes.hidden), feed_forward(sizes.hidden, 1))
        self.node_norm, self.edge_norm = nn.RMSNorm(sizes.hidden), nn.RMSNorm(sizes.hidden)
        self.blocks = nn.ModuleList(EScAIPBlock(sizes) for _ in range(sizes.layers))
        self.read_nodes, self.read_edges = Readout(sizes), Readout(sizes)
        self.direction, self.magnitude, self.energy = (
            Head(sizes.hidden, sizes.head_rows),
            Head(sizes.hidden, 1),
            Head(sizes.hidden, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Energies start near zero, as published: the reference per element already holds most of
        # them.
        nn.init.xavier_uniform_(self.energy.rows.weight, gain=0.01)

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor, n_atoms: Tensor
    ) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and energies [molecules] eV."""
        near = neighbourhood(pos, edge_index, self.cutoff, self.places)
        cosines = near.cosines()
        radial = soft_one_hot_linspace(
            near.distance, 0.0, self.cutoff, self.radial, basis="gaussian", cutoff=False
        )
        inputs = EScAIPInputs(
            z,
            radial,
            bond_order(cosines, near.weight, self.orders),
            cosines,
            near.source,
            near.weight,
        )
        edges = self.edges(inputs)
        edges = edges + self.edge_layer(edges)
        nodes, edges = self.node_norm(inputs.mean(edges)), self.edge_norm(edges)
        all_nodes, all_edges = [nodes], [edges]
        for block in self.blocks:
            nodes, edges = block(inputs, nodes, edges)
            all_nodes.append(nodes)
            all_edges.append(edges)
        nodes, edges = self.read_nodes(all_nodes), self.read_edges(all_edges)
        pull = self.direction(edges) * near.direction * near.weight.unsqueeze(-1)
        forces = self.magnitude(nodes) * pull.sum(1)
        return {
            "forces": forces,
            "energy": sum_by(batch, widened(self.energy(nodes)).squeeze(-1), n_atoms.shape[0]),
        }

    def symmetric_projection(self) -> dict[str, Tensor]:
        """The rows of the force head at their mean: with them the model is its own exact twirl
        (``studies/gradients/measuring.py``)."""
        rows = self.direction.rows.weight
        return {"direction.rows.weight": rows.mean(0, keepdim=True).expand_as(rows)}


def build_tied(config: Mapping[str, Any]) -> EScAIP:
    """The equivariant head: one row for x, y and z. Config: the fields of :class:`EScAIPSizes` but
    ``head_rows``."""
    return EScAIP(EScAIPSizes(head_rows=1, **config))


def build_untied(config: Mapping[str, Any]) -> EScAIP:
    """The published head: three rows. Config: the fields of :class:`EScAIPSizes` but
    ``head_rows``."""
    return EScAIP(EScAIPSizes(head_rows=3, **config))
