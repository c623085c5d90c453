"""An operation of somebody's own, in one file like those of the package: rows scaled by weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations import Case, Operation
from equivbench.kernels.operations.base import Drawn, Sizes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ScaledRows(Operation):
    """out_ic = w_i x_ic.

    Inputs: ``x`` [rows, channels]; ``weights`` [rows]. Output: [rows, channels].
    """

    name = "scaled-rows"
    differentiable = ("x", "weights")

    channels: int

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        return {"x": Drawn((sizes["rows"], self.channels)), "weights": Drawn((sizes["rows"],))}

    def reference(self, x: Tensor, weights: Tensor) -> Tensor:
        import torch

        return torch.einsum("ic,i->ic", x, weights)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        numbers = sizes["rows"] * self.channels
        return numbers, 0, numbers


CASES = (Case("scaled-rows-4", ScaledRows(4), {"rows": 50}, 2, "a toy", quick=True),)
