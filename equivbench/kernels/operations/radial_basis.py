"""Radial functions of a distance: Bessel functions under a smooth cutoff."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RadialBasis(Operation):
    """Bessel functions times a cosine envelope, and the envelope alone (Gasteiger et al. 2020,
    2003.03123; Behler 2011).

    Inputs: ``distances`` [edges], > 0. Output: [edges, number + 1]: 2 (2 / c)^1/2 sin(n pi d / c) /
    d f(d) for n = 1 ... number, then f(d) = (1 + cos(pi d / c)) / 2; all 0 from the cutoff c on.
    """

    name = "radial-basis"
    differentiable = ("distances",)

    number: int
    cutoff: float

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """From a short bond to beyond the cutoff, where all is zero."""
        return {
            "distances": Drawn((sizes["edges"],), "uniform", 1.1 * self.cutoff - 0.8, first=0.8)
        }

    def reference(self, distances: Tensor) -> Tensor:
        """As stated."""
        import torch

        inside = distances < self.cutoff
        envelope = torch.where(inside, torch.cos(math.pi / 2 * distances / self.cutoff) ** 2, 0.0)
        waves = [
            torch.sin(n * math.pi * distances / self.cutoff) / distances
            for n in range(1, self.number + 1)
        ]
        scaled = (2 * (2 / self.cutoff) ** 0.5 * wave * envelope for wave in waves)
        return torch.stack([*scaled, envelope], dim=1)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """A sine and three products a function, a cosine and three more for the envelope."""
        edges, number = sizes["edges"], self.number
        return edges * (number + 1), edges * number, edges * (4 * number + 4)


CASES = (
    Case(
        "radial-basis-8",
        RadialBasis(8, 5.0),
        {"edges": 10_000},
        2,
        "8 Bessel functions to 5 A, as in NequIP (2101.03164)",
        quick=True,
    ),
)
