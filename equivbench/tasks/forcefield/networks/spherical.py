"""Spherical features and the tensor-product convolution on them, laid out for speed: [atoms, 2 l + 1, channels] a degree.

e3nn keeps the channels of an irrep outermost and its TensorProduct visits the paths one by one. With channels innermost every
operation is a plain matrix product; ``split`` and ``unbind`` rather than slices, because the backward of a slice fills a
tensor with zeros. The Clebsch-Gordan coefficients, normalisation and spherical harmonics are e3nn's, and the tests hold the
result against ``e3nn.o3.TensorProduct``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor, nn

from equivbench.tasks.forcefield.networks.graph import sum_by


@dataclass(frozen=True)
class Path:
    """Degree ``source`` of the neighbour times degree ``edge`` of the harmonics to degree ``target``."""

    source: int
    edge: int
    target: int


def coupling_paths(source_lmax: int, edge_lmax: int, target_lmax: int, *, parity: bool) -> tuple[Path, ...]:
    """The paths of the triangle rule, ordered by source; with ``parity`` only those of natural parity (-1)^l, which keep O(3)."""
    return tuple(
        Path(source, edge, target)
        for source in range(source_lmax + 1)
        for edge in range(edge_lmax + 1)
        for target in range(abs(source - edge), min(source + edge, target_lmax) + 1)
        if not (parity and (source + edge + target) % 2)
    )


class Convolution(nn.Module):
    """sum_j w_p(d_ij) [x_j (x) Y(r_ij)]_p for each path p and channel: e3nn's "uvu" product, summed over the neighbours."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        super().__init__()
        edge_rows = (max(path.edge for path in paths) + 1) ** 2
        # Plain ints: torch.compile does not trace Irreps. For each source degree, the heights of its products in path order.
        self.heights: list[list[int]] = []
        for source in range(max(path.source for path in paths) + 1):
            stacked = []
            for path in paths:
                if path.source == source:
                    full = torch.zeros(2 * path.target + 1, 2 * source + 1, edge_rows, dtype=torch.float64)
                    # "component" normalisation of the output, as e3nn's TensorProduct has by default.
                    coefficients = (
                        o3.wigner_3j(path.target, source, path.edge, dtype=torch.float64) * (2 * path.target + 1) ** 0.5
                    )
                    full[..., path.edge**2 : (path.edge + 1) ** 2] = coefficients
                    stacked.append(full)
            self.heights.append([len(full) for full in stacked])
            self.register_buffer(f"coupling{source}", torch.cat(stacked), persistent=False)

    def forward(self, x: Sequence[Tensor], harmonics: Tensor, weights: Tensor, edge_index: Tensor) -> list[Tensor]:
        """One [atoms, 2 l + 1, C] a path.

        x: one [atoms, 2 l + 1, C] a degree; harmonics [edges, (edge_lmax + 1)^2]; weights [edges, paths, C].
        """
        sums: list[Tensor] = []
        path_weights = iter(weights.unsqueeze(2).unbind(1))
        for source, heights in enumerate(self.heights):
            # Kept in float64 and rounded here, so that a model turned to float64 is exact.
            coupling: Tensor = getattr(self, f"coupling{source}").to(harmonics.dtype)
            matrices = (harmonics @ coupling.flatten(0, 1).T).unflatten(-1, (coupling.shape[0], coupling.shape[1]))
            neighbours = x[source].index_select(0, edge_index[0])
            # A batched product with an inner size of one is slower than the broadcast product that it is.
            product = matrices * neighbours if source == 0 else matrices @ neighbours
            for part in product.split(heights, dim=1):
                sums.append(sum_by(edge_index[1], part * next(path_weights), x[0].shape[0]))
        return sums


def degree_map(inputs: int, outputs: int) -> nn.Linear:
    """A bias-free map of the channels of one degree, N(0, 1 / inputs) weights: e3nn's o3.Linear in this layout."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer
