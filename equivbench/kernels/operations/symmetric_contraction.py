"""MACE's symmetric contraction: products of up to three equal factors at each node, its costliest
operation after the convolution."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.contraction_paths import (
    ContractionPath,
    contraction_paths,
    contraction_terms,
    path_scale,
)
from equivbench.kernels.operations.paths import Path, coupling

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SymmetricContraction(Operation):
    """out_i,l = sum over paths p into degree l of w_p(z_i) [x_i (x) ... (x) x_i]_p, channel by
    channel, with up to ``correlation`` factors: equations 10 and 11 of MACE (Batatia et al. 2022,
    2206.07697).

    A path couples factors of given degrees one after the other, through degrees of natural parity;
    of those that are linearly dependent as functions of x the first ones are kept, so that they
    span what MACE's own, more numerous ones do. Its coefficients, averaged over the orders of the
    factors, have the norm (2 l + 1)^1/2, in e3nn's basis.

    Inputs: ``x`` [nodes, (lmax + 1)^2 C]; ``weights`` [elements, paths C], path after path;
    ``elements`` [nodes] int64, z_i, the row of the weights. Output: [nodes, (target_lmax + 1)^2 C].
    """

    name = "symmetric-contraction"
    differentiable = ("x", "weights")

    channels: int
    lmax: int
    target_lmax: int
    correlation: int = 3
    """The most factors."""

    @cached_property
    def paths(self) -> tuple[ContractionPath, ...]:
        """The paths, ordered by target, number of factors and degrees; raises ``UsageError`` for a
        target that none leads to."""
        return contraction_paths(self.lmax, self.target_lmax, self.correlation)

    @property
    def weight_size(self) -> int:
        """Weights of an element: one for each path and channel."""
        return len(self.paths) * self.channels

    @property
    def source_size(self) -> int:
        """Features of a node of ``x``."""
        return (self.lmax + 1) ** 2 * self.channels

    @property
    def target_size(self) -> int:
        """Features of a node of the output."""
        return (self.target_lmax + 1) ** 2 * self.channels

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Weights scaled for outputs of order one."""
        nodes, share = sizes["nodes"], (self.target_lmax + 1) / len(self.paths)
        return {
            "x": Drawn((nodes, self.source_size)),
            "weights": Drawn((sizes["elements"], self.weight_size), scale=share**0.5),
            "elements": Drawn((nodes,), "elements"),
        }

    def reference(self, x: Tensor, weights: Tensor, elements: Tensor) -> Tensor:
        """Coupled factor by factor, path by path; what several paths begin with is coupled once."""
        import torch

        rows = x.reshape(len(x), (self.lmax + 1) ** 2, self.channels)
        factors = [
            rows[:, degree**2 : (degree + 1) ** 2].contiguous() for degree in range(self.lmax + 1)
        ]
        of_nodes = weights.reshape(len(weights), len(self.paths), self.channels)[elements]
        begun: dict[tuple[Path, ...], Tensor] = {}
        out: list[Tensor | None] = [None] * (self.target_lmax + 1)
        for number, path in enumerate(self.paths):
            product = factors[path.degrees[0]]
            for count, pair in enumerate(path.couplings, start=1):
                beginning = path.couplings[:count]
                if beginning not in begun:
                    begun[beginning] = torch.einsum(
                        "tse,nsu,neu->ntu", coupling(pair).to(x), product, factors[pair.edge]
                    )
                product = begun[beginning]
            term = product * (path_scale(path, self.lmax) * of_nodes[:, number, None])
            before = out[path.target]
            out[path.target] = term if before is None else before + term
        return torch.cat([one for one in out if one is not None], dim=1).flatten(1)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """A product and a sum for each coefficient of the polynomials; between lie, as in MACE, the
        polynomials with one factor put in, with two, ..., whose coefficients have a row for each
        factor that is still out."""
        numbers, rows = sizes["nodes"] * self.channels, (self.lmax + 1) ** 2
        terms = len(contraction_terms(self.lmax, self.target_lmax, self.correlation))
        left = sum(rows**still for still in range(1, self.correlation))
        return (
            sizes["nodes"] * self.target_size,
            numbers * (self.target_lmax + 1) ** 2 * left,
            2 * numbers * terms,
        )


CASES = (
    Case(
        "symmetric-contraction-c8-l2",
        SymmetricContraction(8, 2, 1),
        {"nodes": 160, "elements": 4},
        2,
        "8 channels of l <= 2 to l <= 1 on 8 molecules of 20 atoms, as the convolution's smallest",
        quick=True,
    ),
    Case(
        "symmetric-contraction-c32-l2",
        SymmetricContraction(32, 2, 1),
        {"nodes": 160, "elements": 4},
        2,
        "MACE with 32 channels of l <= 2 to l <= 1 on 8 molecules of 20 atoms (2206.07697)",
        quick=True,
    ),
    Case(
        "symmetric-contraction-c64-l3",
        SymmetricContraction(64, 3, 1),
        {"nodes": 500, "elements": 4},
        2,
        "MACE with 64 channels of l <= 3 to l <= 1 on organic molecules (2206.07697)",
    ),
    Case(
        "symmetric-contraction-mace-128",
        SymmetricContraction(128, 3, 1),
        {"nodes": 500, "elements": 10},
        2,
        "MACE-MP-0 medium: messages to l = 3, 128x0e+128x1o after them, 10 of its 89 elements"
        " (2401.00096)",
    ),
)
