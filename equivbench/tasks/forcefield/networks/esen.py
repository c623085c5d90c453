"""eSEN: message passing in the frames of edges, where a convolution is a linear map for each order
m (Fu et al. 2025, 2502.12147, on the convolutions of Passaro & Zitnick 2023, 2302.03655).

The features of both ends of an edge are turned so that the edge lies on the polar axis. There the
maps that commute with rotations are those that commute with turns about that axis: they mix degrees
and channels of one order m, and the rows of m and -m like the two parts of a complex number. Two
such maps with a gate between them, turned back, are the message; orders above ``mmax`` are left
out. The imaginary parts of the maps see handedness: the network is SO(3)- and not O(3)-equivariant.

Departures: Bessel functions and a cosine cutoff for Gaussians and a polynomial one, as in the other
networks here; scalars are not centred in the normalisation; the last layer makes only what the
heads read, scalars and vectors; direct forces are read from its vectors, energies from its scalars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.kernels.backend import OnBackend
from equivbench.kernels.backends.plain.wigner import WignerToAxis
from equivbench.kernels.operations import Convolution, SO2Message
from equivbench.tasks.forcefield.networks.graph import ELEMENTS, MolecularNetwork, mlp

_EPSILON = 1e-6
"""Keeps the normalisation of features near zero smooth."""


def degrees_of(lmax: int) -> list[int]:
    """The degree of each of the (lmax + 1)^2 rows of an atom's features."""
    return [l for l in range(lmax + 1) for _ in range(2 * l + 1)]


def in_scalars(values: Tensor, rows: int) -> Tensor:
    """[..., rows, C]: ``values`` [..., C] in the first row, zeros in the others."""
    return functional.pad(values.unsqueeze(-2), (0, 0, 0, rows - 1))


def uniform(inputs: int, *shape: int) -> Tensor:
    """Weights as torch's linear maps of so many inputs begin."""
    bound = inputs**-0.5
    return torch.empty(shape).uniform_(-bound, bound)


class DegreeNorm(nn.Module):
    """Features over the root of their mean square, in which each degree counts alike, times a
    factor a degree and channel."""

    degree: Tensor
    share: Tensor

    def __init__(self, channels: int, lmax: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        degree = torch.tensor(degrees_of(lmax))
        self.register_buffer("degree", degree, persistent=False)
        # Integers, which are the same in every precision.
        self.register_buffer("share", (2 * degree + 1) * (lmax + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[atoms, (lmax + 1)^2, C]."""
        square = (x.square().mean(-1) / self.share).sum(1)
        scaled = x * (square + _EPSILON).rsqrt()[:, None, None]
        weight = self.weight.index_select(0, self.degree)
        return scaled * weight + in_scalars(self.bias, len(self.degree))


class DegreeLinear(nn.Module):
    """A map of the channels of each degree, with a bias for scalars."""

    degree: Tensor

    def __init__(self, inputs: int, outputs: int, lmax: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(uniform(inputs, lmax + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("degree", torch.tensor(degrees_of(lmax)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[atoms, (lmax + 1)^2, outputs] from [atoms, (lmax + 1)^2, inputs]."""
        weight = self.weight.index_select(0, self.degree)
        mapped = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)
        return mapped + in_scalars(self.bias, len(self.degree))


class Gate(nn.Module):
    """SiLU of the scalars, in the first row; every other row times a gate of its degree."""

    def __init__(self, degrees: Sequence[int]) -> None:
        super().__init__()
        self.degrees = list(degrees[1:])

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """[n, rows, H] from x, the same, and gates [n, lmax H] before their sigmoid."""
        # Stacked, not selected: on a CPU the backward of index_select along a middle axis takes
        # ten times as long.
        each = torch.sigmoid(gates).chunk(max(self.degrees), dim=1)
        rows = torch.stack([each[degree - 1] for degree in self.degrees], dim=1)
        scalars, others = x.split((1, len(self.degrees)), dim=1)
        return torch.cat([functional.silu(scalars), others * rows], dim=1)


class FeedForward(nn.Module):
    """Two maps of each degree with a gate between them, on every atom by itself."""

    def __init__(self, channels: int, hidden: int, lmax: int) -> None:
        super().__init__()
        self.gates = nn.Linear(channels, lmax * hidden)
        self.up = DegreeLinear(channels, hidden, lmax)
        self.gate = Gate(degrees_of(lmax))
        self.down = DegreeLinear(hidden, channels, lmax)

    def forward(self, x: Tensor) -> Tensor:
        """[atoms, (lmax + 1)^2, C]."""
        out: Tensor = self.down(self.gate(self.up(x), self.gates(x.select(1, 0))))
        return out


class SO2Maps(nn.Module):
    """The weights of a map of features in the frames of edges that commutes with turns about the
    edge, as :class:`equivbench.kernels.operations.SO2Message` takes them."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        (inputs, outputs), *others = shapes
        self.unturned = nn.Parameter(uniform(inputs, inputs, outputs))
        self.bias = nn.Parameter(uniform(inputs, outputs))
        # Real parts, which see no handedness, and imaginary ones.
        self.turned = nn.ParameterList(
            uniform(before, 2, before, after) for before, after in others
        )

    def forward(self) -> Tensor:
        """All of them, flat."""
        return torch.cat([one.flatten() for one in (self.unturned, self.bias, *self.turned)])


class Radial(nn.Sequential):
    """What an edge embedding makes of its numbers: linear maps with SiLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), mlp(hidden, hidden, outputs))


class EdgeMessages(nn.Module):
    """Messages in the frames of the edges from features up to l = ``source_lmax``, turned back up
    to l = ``target_lmax`` and summed."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        embedding: int,
        edge: int,
        source_lmax: int,
        target_lmax: int,
        mmax: int,
        neighbours: float,
        kernels: str,
    ) -> None:
        super().__init__()
        message = SO2Message(channels, hidden, source_lmax, target_lmax, mmax)
        self.scale, self.channels = neighbours**-0.5, channels
        self.radial = Radial(embedding, edge, message.into.weight_size)
        self.first = SO2Maps(message.first_shapes)
        self.second = SO2Maps(message.second_shapes)
        self.message = OnBackend(message, kernels)

    def forward(
        self, x: Tensor, embedding: Tensor, frames: Tensor, smooth: Tensor, edge_index: Tensor
    ) -> Tensor:
        """[atoms, (target_lmax + 1)^2, C] from x [atoms, (source_lmax + 1)^2, C], embedding
        [edges, E], the elements of Wigner matrices [edges, F] and the cutoff's value [edges, 1]."""
        sums = self.message(
            x=x.flatten(1),
            frames=frames,
            weights=self.radial(embedding),
            first=self.first(),
            second=self.second(),
            scales=smooth * self.scale,
            edge_index=edge_index,
        )
        out: Tensor = torch.unflatten(sums, 1, (-1, self.channels))
        return out


class ESENLayer(nn.Module):
    """Messages and a feed-forward layer, residual, normalised first."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        embedding: int,
        edge: int,
        source_lmax: int,
        target_lmax: int,
        mmax: int,
        neighbours: float,
        kernels: str,
    ) -> None:
        super().__init__()
        self.target_rows = (target_lmax + 1) ** 2
        self.before_messages = DegreeNorm(channels, source_lmax)
        self.messages = EdgeMessages(
            channels, hidden, embedding, edge, source_lmax, target_lmax, mmax, neighbours, kernels
        )
        self.before_feed_forward = DegreeNorm(channels, target_lmax)
        self.feed_forward = FeedForward(channels, hidden, target_lmax)

    def forward(
        self, x: Tensor, embedding: Tensor, frames: Tensor, smooth: Tensor, edge_index: Tensor
    ) -> Tensor:
        """New features, as :class:`EdgeMessages` takes and gives them."""
        message = self.messages(self.before_messages(x), embedding, frames, smooth, edge_index)
        x = x[:, : self.target_rows] + message
        out: Tensor = x + self.feed_forward(self.before_feed_forward(x))
        return out


class ESEN(MolecularNetwork):
    """Energies and direct forces from the scalars and vectors of the last layer."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        edge: int,
        layers: int,
        lmax: int,
        mmax: int,
        radial: int,
        cutoff: float,
        neighbours: float,
        *,
        kernels: str = "torch",
    ) -> None:
        super().__init__(channels, cutoff, radial)
        self.kernels, self.channels = kernels, channels
        self.scale, self.rows = neighbours**-0.5, (lmax + 1) ** 2
        self.frames = WignerToAxis(lmax, mmax)
        self.ends = nn.ModuleList(nn.Embedding(ELEMENTS, edge) for _ in range(2))
        embedding = radial + 1 + 2 * edge
        self.neighbourhood = Radial(embedding, edge, (lmax + 1) * channels)
        self.around = OnBackend(Convolution((channels,), lmax, lmax), kernels)
        targets = [lmax] * (layers - 1) + [1]
        self.layers = nn.ModuleList(
            ESENLayer(channels, hidden, embedding, edge, lmax, target, mmax, neighbours, kernels)
            for target in targets
        )
        self.norm = DegreeNorm(channels, 1)
        self.energy = mlp(channels, channels, 1)
        self.force = nn.Linear(channels, 1, bias=False)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From messages along the edges."""
        frames, smooth = self.frames(vectors), basis[:, -1:]
        ends = zip(self.ends, edge_index.unbind(), strict=True)
        elements = [end(z).index_select(0, row) for end, row in ends]
        embedding = torch.cat([basis, *elements], dim=-1)
        # Rows of m = 0 turned back are spherical harmonics of the edge, and of all elements first.
        around = self.around(
            x=basis.new_ones((len(z), self.channels)),
            harmonics=frames[:, : self.rows],
            weights=self.neighbourhood(embedding) * (smooth * self.scale),
            edge_index=edge_index,
        )
        x = around.unflatten(1, (self.rows, self.channels))
        x = x + in_scalars(self.embedding(z), x.shape[1])
        for layer in self.layers:
            x = layer(x, embedding, frames, smooth, edge_index)
        scalars, pulls = self.norm(x).split((1, 3), dim=1)
        return self.force(pulls).squeeze(-1), self.energy(scalars.squeeze(1))


def build(config: Mapping[str, Any]) -> ESEN:
    """Config: ``channels`` of each degree, ``hidden`` channels within a layer, ``edge`` width of
    edge embeddings, ``layers``, ``lmax``, ``mmax``, ``radial`` functions, ``cutoff`` (A),
    ``neighbours`` (the mean number, for normalisation), ``kernels`` (the backend of the messages).
    """
    return ESEN(**config)
