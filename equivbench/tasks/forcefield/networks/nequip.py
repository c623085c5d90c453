"""NequIP: message passing by tensor products of spherical features (Batzner et al. 2022,
2101.03164), with direct forces.

Each layer maps channels, convolves with spherical harmonics weighted by a radial MLP, maps again,
adds a species-dependent self-connection and applies a gated nonlinearity. Features have natural
parity, (-1)^l, so the network is O(3)-equivariant (what NequIP's own option ``parity=False``
means). Here ``parity=False`` also lets in the paths of the other parity, and leaves SO(3).

Departures: the self-connection scales channels by a species embedding before its linear map, in
place of one matrix for each species; direct forces come from one more gated 1o output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from equivbench.kernels.backend import OnBackend
from equivbench.kernels.operations import Convolution
from equivbench.tasks.forcefield.networks.graph import ELEMENTS, EdgeLinear, MolecularNetwork, mlp


def degree_map(inputs: int, outputs: int) -> nn.Linear:
    """A bias-free map of the channels of one degree, N(0, 1 / inputs) weights: e3nn's o3.Linear in
    the layout [atoms, 2 l + 1, channels]."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class NequIPLayer(nn.Module):
    """One interaction: features of degree up to ``source_lmax`` in, up to ``target_lmax`` out."""

    def __init__(
        self,
        channels: int,
        source_lmax: int,
        edge_lmax: int,
        target_lmax: int,
        radial: int,
        hidden: int,
        neighbours: float,
        parity: bool,
        kernels: str,
    ) -> None:
        super().__init__()
        convolution = Convolution((channels,) * (source_lmax + 1), edge_lmax, target_lmax, parity)
        paths = convolution.paths
        self.targets = tuple(
            tuple(n for n, path in enumerate(paths) if path.target == degree)
            for degree in range(target_lmax + 1)
        )
        self.target_lmax, self.scale = target_lmax, neighbours**-0.5
        self.heights = tuple(2 * path.target + 1 for path in paths)
        self.before = nn.ModuleList(degree_map(channels, channels) for _ in range(source_lmax + 1))
        self.convolution = OnBackend(convolution, kernels)
        # Without biases, so that the weights vanish with the basis at the cutoff.
        self.weights = nn.Sequential(
            EdgeLinear(radial + 1, hidden, bias=False),
            nn.SiLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.SiLU(),
            degree_map(hidden, len(paths) * channels),
        )
        # Scalars also carry one gate for each channel of each higher degree.
        widths = [channels * (1 + target_lmax)] + [channels] * target_lmax
        self.after = nn.ModuleList(
            degree_map(len(chosen) * channels, width)
            for chosen, width in zip(self.targets, widths, strict=True)
        )
        self.kept = min(source_lmax, target_lmax) + 1
        self.species = nn.Embedding(ELEMENTS, self.kept * channels)
        self.connection = nn.ModuleList(
            degree_map(channels, width) for width in widths[: self.kept]
        )

    def forward(
        self, x: Sequence[Tensor], z: Tensor, harmonics: Tensor, basis: Tensor, edge_index: Tensor
    ) -> list[Tensor]:
        """New features, one [atoms, 2 l + 1, C] a degree up to target_lmax, from x, the same up to
        source_lmax."""
        mapped = torch.cat([linear(one) for one, linear in zip(x, self.before, strict=True)], dim=1)
        convolved = self.convolution(
            # The convolution is linear in either, and atoms are far fewer than edges.
            x=mapped.flatten(1) * self.scale,
            harmonics=harmonics,
            weights=self.weights(basis),
            edge_index=edge_index,
        )
        sums = convolved.unflatten(-1, (sum(self.heights), -1)).split(self.heights, dim=1)
        species = self.species(z).unsqueeze(1).chunk(self.kept, dim=-1)
        new = [
            linear(torch.cat([sums[path] for path in chosen], dim=-1))
            for chosen, linear in zip(self.targets, self.after, strict=True)
        ]
        for degree, linear in enumerate(self.connection):
            new[degree] = new[degree] + linear(x[degree] * species[degree])
        scalars, *gates = functional.silu(new[0]).chunk(1 + self.target_lmax, dim=-1)
        return [scalars, *(gate * one for gate, one in zip(gates, new[1:], strict=True))]


class NequIP(MolecularNetwork):
    """Energies and direct forces from the scalars and vectors of the last layer."""

    def __init__(
        self,
        channels: int,
        layers: int,
        lmax: int,
        radial: int,
        hidden: int,
        cutoff: float,
        neighbours: float,
        *,
        parity: bool = True,
        kernels: str = "torch",
    ) -> None:
        super().__init__(channels, cutoff, radial)
        self.kernels, self.degrees = kernels, list(range(lmax + 1))
        # The first layer sees scalars only, the last one makes what the heads read: scalars and
        # vectors.
        lmaxes = [0] + [lmax] * (layers - 1) + [1]
        self.layers = nn.ModuleList(
            NequIPLayer(channels, source, lmax, target, radial, hidden, neighbours, parity, kernels)
            for source, target in pairwise(lmaxes)
        )
        self.energy = mlp(channels, channels, 1)
        self.gate = mlp(channels, channels, channels)
        self.force = degree_map(channels, 1)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From messages along the edges."""
        harmonics = o3.spherical_harmonics(
            self.degrees, vectors, normalize=True, normalization="component"
        )
        x = [self.embedding(z).unsqueeze(1)]
        for layer in self.layers:
            x = layer(x, z, harmonics, basis, edge_index)
        scalars, vectors = x[0].squeeze(1), x[1]
        forces = self.force(vectors * self.gate(scalars).unsqueeze(1)).squeeze(-1)
        return forces, self.energy(scalars)


def build(config: Mapping[str, Any]) -> NequIP:
    """Config: ``channels`` of each degree, ``layers``, ``lmax``, ``radial`` functions, ``hidden``
    width of the radial MLP, ``cutoff`` (A), ``neighbours`` (the mean number, for normalisation),
    ``parity``, ``kernels`` (the backend of the convolutions).
    """
    return NequIP(**config)
