"""PaiNN relaxed by a residual pathway: beside it a small network with unconstrained vectors, whose
predictions are added on a small scale (Residual Pathway Priors: Finzi, Benton & Wilson 2021,
2112.01388).

Weight decay and the optimiser's steps act on the weights of both alike, so that scale is the prior
on symmetry: the smaller it is, the larger the weights that a departure from it takes. At 0 the
network is PaiNN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from equivbench.tasks.forcefield.networks.painn import PaiNN, PlainVectors


class RelaxedPaiNN(nn.Module):
    """``forward(z, pos, batch, edge_index, n_atoms)`` returns the ``forces`` [atoms, 3] eV/A and
    ``energy`` [molecules] eV of PaiNN plus ``relaxation`` times those of the pathway.

    Both see the same neighbours and distances; ``features`` are the channels of PaiNN,
    ``free_features`` those of the pathway.
    """

    def __init__(
        self,
        features: int,
        free_features: int,
        relaxation: float,
        layers: int,
        radial: int,
        cutoff: float,
        *,
        kernels: str = "torch",
    ) -> None:
        super().__init__()
        self.kernels, self.relaxation = kernels, relaxation
        self.equivariant = PaiNN(features, layers, radial, cutoff, kernels=kernels)
        self.free = PlainVectors(free_features, layers, radial, cutoff, kernels=kernels)
        self.requires = self.equivariant.requires

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and energies [molecules] eV."""
        bound, free = self.equivariant(**inputs), self.free(**inputs)
        return {name: output + self.relaxation * free[name] for name, output in bound.items()}


def build(config: Mapping[str, Any]) -> RelaxedPaiNN:
    """Config: that of PaiNN, with the pathway's ``free_features`` and the scale of its predictions,
    ``relaxation``."""
    return RelaxedPaiNN(**config)
