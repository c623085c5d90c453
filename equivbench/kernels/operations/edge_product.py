"""Allegro's tensor product of an edge's features with what surrounds its centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.paths import Path, coupled_orders, coupling, triangle_paths

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EdgeProduct(Operation):
    """Allegro's tensor product ("uuu"): an edge's features times the environment of its centre,
    channel by channel.

    env_i = sum over edges j -> i of v_l(ij) Y_l(r_ij); out_ij,t = sum over paths into degree t of
    w_p [x_ij (x) env_i]_p (Musaelian et al. 2022, 2204.05249). Paths are those of natural parity,
    ordered by source, edge and target degree, with the coefficients of
    :class:`equivbench.kernels.operations.Convolution`.

    Inputs: ``x`` [edges, (lmax + 1)^2 C]; ``harmonics`` [edges, (lmax + 1)^2]; ``environment``
    [edges, (lmax + 1) C], the v of degree after degree; ``weights`` [paths, C]; ``edge_index`` [2,
    edges] int64. Output: [edges, (lmax + 1)^2 C].
    """

    name = "edge-product"
    differentiable = ("x", "harmonics", "environment", "weights")

    channels: int
    lmax: int

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths, ordered by source, edge and target degree."""
        return triangle_paths(self.lmax, self.lmax, self.lmax)

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Normal numbers and the edges of molecules."""
        edges, degrees = sizes["edges"], self.lmax + 1
        return {
            "x": Drawn((edges, degrees**2 * self.channels)),
            "harmonics": Drawn((edges, degrees**2)),
            "environment": Drawn((edges, degrees * self.channels)),
            "weights": Drawn((len(self.paths), self.channels)),
            "edge_index": Drawn((2, edges), "neighbour_pairs"),
        }

    def reference(
        self,
        x: Tensor,
        harmonics: Tensor,
        environment: Tensor,
        weights: Tensor,
        edge_index: Tensor,
    ) -> Tensor:
        """One coefficient at a time, so that autograd keeps views only."""
        import torch

        channels, centre = self.channels, edge_index[1]
        features = x.reshape(len(x), (self.lmax + 1) ** 2, channels)
        by_degree = environment.reshape(len(x), self.lmax + 1, channels)
        degree_of_row = [degree for degree in range(self.lmax + 1) for _ in range(2 * degree + 1)]
        weighted = by_degree[:, degree_of_row] * harmonics[:, :, None]
        nodes = int(edge_index.max()) + 1 if len(x) else 0
        sums = weighted.new_zeros(nodes, *weighted.shape[1:]).index_add(0, centre, weighted)
        around = sums[centre]
        out: list[Tensor] = [torch.zeros_like(features[:, 0]) for _ in degree_of_row]
        for path, weight in zip(self.paths, weights, strict=True):
            coefficients = coupling(path)
            for t, s, e in coefficients.abs().gt(1e-9).nonzero().tolist():
                product = features[:, path.source**2 + s] * around[:, path.edge**2 + e]
                row = path.target**2 + t
                out[row] = out[row] + float(coefficients[t, s, e]) * product * weight
        return torch.stack(out, dim=1).flatten(1)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Two operations a row for the environment, three a coefficient, two a component of each
        path's product."""
        rows, numbers = (self.lmax + 1) ** 2, sizes["edges"] * self.channels
        outer = sum((2 * path.source + 1) * (2 * path.edge + 1) for path in self.paths)
        coefficients = sum(sum(coupled_orders(path)) for path in self.paths)
        heights = sum(2 * path.target + 1 for path in self.paths)
        products = 2 * rows + 3 * coefficients + 2 * heights
        return rows * numbers, (2 * rows + outer) * numbers, products * numbers


CASES = (
    Case(
        "edge-product-c16-l2",
        EdgeProduct(16, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "Allegro's product at the tensor-product pair's edge count",
        quick=True,
    ),
    Case(
        "edge-product-c64-l2",
        EdgeProduct(64, 2),
        {"nodes": 500, "edges": 10_000},
        2,
        "Allegro, 64 tensor features to l = 2 (2204.05249)",
    ),
)
