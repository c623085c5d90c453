"""An operation of somebody's own, in one file like those of the package: rows scaled by weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from equivbench.kernels.operations import Case, Costs, Operation
from equivbench.kernels.operations.base import Sizes, bilinear_passes

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class ScaledRows(Operation):
    """out_ic = w_i x_ic.

    Inputs: ``x`` [rows, channels]; ``weights`` [rows]. Output: [rows, channels].
    """

    name: ClassVar[str] = "scaled-rows"
    differentiable: ClassVar[tuple[str, ...]] = ("x", "weights")

    channels: int

    def draw(self, sizes: Sizes, generator: Generator) -> dict[str, Tensor]:
        from equivbench.kernels.operations.drawing import normal

        rows = sizes["rows"]
        return {"x": normal(generator, rows, self.channels), "weights": normal(generator, rows)}

    def reference(self, x: Tensor, weights: Tensor) -> Tensor:
        import torch

        return torch.einsum("ic,i->ic", x, weights)

    def passes(self, sizes: Sizes, itemsize: int) -> tuple[Costs, ...]:
        numbers = sizes["rows"] * self.channels
        return bilinear_passes(itemsize, numbers + sizes["rows"], numbers, 0, numbers)


CASES = (Case("scaled-rows-4", ScaledRows(4), {"rows": 50}, 2, "a toy", quick=True),)
