"""PaiNN, a cheap first-order O(3)-equivariant network with scalar and vector features (Schuett et
al. 2021, 2102.03150), and its twin with unconstrained vectors.

In the twin x, y, z are ordinary channels, and the operations on them are general ones: layer by
layer the same embedding, radial basis, gated messages with the direction r_ij, residual updates and
readouts; but gates and filters see raw vectors, and one MLP mixes the 4 F scalar and vector
channels of an atom in place of norms, inner products and component-blind maps. Rotations must be
learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.kernels.backend import OnBackend
from equivbench.kernels.operations import PaiNNMessage
from equivbench.tasks.forcefield.networks.graph import EdgeLinear, MolecularNetwork, mlp


def vector_norm(v: Tensor) -> Tensor:
    """Length over the axis of x, y, z: ``v`` [atoms, 3, F] to [atoms, F]; smooth at zero."""
    return (v.square().sum(1) + 1e-8).sqrt()


class PaiNNInteraction(nn.Module):
    """Equations 7 and 8: scalars and vectors gathered from the neighbours through filters of the
    geometry.

    Parameters
    ----------
    state
        Channels of an atom that the gates see: its F scalars, in the twin its vectors as well.
    features
        F.
    geometry
        Channels of an edge that the filters see: functions of the distance, in the twin of the
        direction as well.
    first
        The first layer has no vectors to pass on yet, so it has no gate for them.
    kernels
        The backend of the messages.
    """

    def __init__(
        self, state: int, features: int, geometry: int, kernels: str, *, first: bool
    ) -> None:
        super().__init__()
        self.features = features
        message = PaiNNMessage(features, vectors=not first)
        self.context = mlp(state, features, message.weight_size)
        self.filter = EdgeLinear(geometry, message.weight_size, bias=False)
        self.message = OnBackend(message, kernels)

    def forward(
        self,
        state: Tensor,
        v: Tensor | None,
        geometry: Tensor,
        direction: Tensor,
        edge_index: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(change of the scalars [atoms, F], change of the vectors [atoms, 3, F])."""
        passed = self.context(state)
        if v is not None:
            # The gate of an atom's vectors is the same for all of its edges.
            gates, scale = passed.split((2 * self.features, self.features), dim=1)
            passed = torch.cat([gates, (scale.unsqueeze(1) * v).flatten(1)], dim=1)
        sums = self.message(
            x=passed, directions=direction, weights=self.filter(geometry), edge_index=edge_index
        )
        scalars, vectors = sums.split((self.features, 3 * self.features), dim=1)
        return scalars, vectors.unflatten(1, (3, self.features))


class PaiNNUpdate(nn.Module):
    """Equations 9 and 10: scalars and vectors of one atom exchange information through norms and
    inner products."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.gate = mlp(2 * features, features, 3 * features)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(change of s [atoms, F], change of v [atoms, 3, F])."""
        left, right = self.mix(v).chunk(2, dim=-1)
        scalar, inner, vector = self.gate(torch.cat([s, vector_norm(right)], dim=-1)).chunk(
            3, dim=-1
        )
        return scalar + inner * (left * right).sum(1), vector.unsqueeze(1) * left


class PaiNN(MolecularNetwork):
    """Energies and direct forces from a gated equivariant readout."""

    def __init__(
        self, features: int, layers: int, radial: int, cutoff: float, *, kernels: str = "torch"
    ) -> None:
        super().__init__(features, cutoff, radial)
        self.kernels = kernels
        self.messages = nn.ModuleList(
            PaiNNInteraction(features, features, radial + 1, kernels, first=layer == 0)
            for layer in range(layers)
        )
        self.updates = nn.ModuleList(PaiNNUpdate(features) for _ in range(layers))
        self.energy = mlp(features, features // 2, 1)
        self.mix = nn.Linear(features, 2 * features, bias=False)
        self.gate = mlp(2 * features, features, features)
        self.force = nn.Linear(features, 1, bias=False)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From messages along the edges."""
        direction = vectors / distance.unsqueeze(-1)
        s = self.embedding(z)
        v: Tensor | None = None
        for message, update in zip(self.messages, self.updates, strict=True):
            ds, dv = message(s, v, basis, direction, edge_index)
            s, v = s + ds, dv if v is None else v + dv
            ds, dv = update(s, v)
            s, v = s + ds, v + dv
        assert v is not None
        left, right = self.mix(v).chunk(2, dim=-1)
        gate = self.gate(torch.cat([s, vector_norm(right)], dim=-1))
        return self.force(gate.unsqueeze(1) * left).squeeze(-1), self.energy(s)


def build(config: Mapping[str, Any]) -> PaiNN:
    """Config: ``features``, ``layers``, ``radial`` (basis functions), ``cutoff`` (A), ``kernels``
    (the backend of the messages)."""
    return PaiNN(**config)


class PlainVectors(MolecularNetwork):
    """Energies and direct forces of the unconstrained trunk."""

    def __init__(
        self, features: int, layers: int, radial: int, cutoff: float, *, kernels: str = "torch"
    ) -> None:
        super().__init__(features, cutoff, radial)
        self.kernels = kernels
        self.messages = nn.ModuleList(
            PaiNNInteraction(
                features if layer == 0 else 4 * features,
                features,
                radial + 4,
                kernels,
                first=layer == 0,
            )
            for layer in range(layers)
        )
        self.updates = nn.ModuleList(
            mlp(4 * features, features, 4 * features) for _ in range(layers)
        )
        self.energy = mlp(4 * features, features // 2, 1)
        self.force = mlp(4 * features, features, 3)

    def predict(
        self, z: Tensor, vectors: Tensor, distance: Tensor, basis: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """From messages along the edges."""
        direction = vectors / distance.unsqueeze(-1)
        basis = torch.cat([basis, direction * basis[:, -1:]], dim=-1)
        s = self.embedding(z)
        v: Tensor | None = None
        state = s
        for message, update in zip(self.messages, self.updates, strict=True):
            ds, dv = message(state, v, basis, direction, edge_index)
            state = torch.cat([s + ds, (dv if v is None else v + dv).flatten(1)], dim=-1)
            state = state + update(state)
            s, v = state[:, : s.shape[1]], state[:, s.shape[1] :].unflatten(-1, (3, -1))
        return self.force(state), self.energy(state)


def build_plain(config: Mapping[str, Any]) -> PlainVectors:
    """Config: ``features``, ``layers``, ``radial`` (basis functions), ``cutoff`` (A), ``kernels``
    (the backend of the messages)."""
    return PlainVectors(**config)
