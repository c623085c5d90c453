"""The equivariant linear map: channels of one degree mixed with each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from equivbench.kernels.operations.base import Case, Drawn, Operation, Sizes
from equivbench.kernels.operations.paths import features

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Linear(Operation):
    """out_l = x_l W_l for each degree: channels mixed, components alike, nothing scaled.

    Inputs: ``x`` [nodes, sum_l (2 l + 1) inputs_l], for each degree a block [2 l + 1, inputs_l],
    component by component; ``weights`` [sum_l inputs_l outputs_l], each W_l [inputs_l, outputs_l]
    after the other. Output: [nodes, sum_l (2 l + 1) outputs_l], in blocks alike.
    """

    name = "linear"
    differentiable = ("x", "weights")

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def weight_sizes(self) -> tuple[int, ...]:
        """Numbers in W_l, for each degree."""
        return tuple(a * b for a, b in zip(self.inputs, self.outputs, strict=True))

    def arguments(self, sizes: Sizes) -> dict[str, Drawn]:
        """Weights scaled for outputs of order one, as in a network."""
        weights = Drawn((sum(self.weight_sizes),), scale=max(self.inputs) ** -0.5)
        return {"x": Drawn((sizes["nodes"], features(self.inputs))), "weights": weights}

    def reference(self, x: Tensor, weights: Tensor) -> Tensor:
        """Degree by degree."""
        import torch

        out, row, start = [], 0, 0
        for degree, inputs in enumerate(self.inputs):
            height, size = 2 * degree + 1, self.weight_sizes[degree]
            part = x[:, row : row + height * inputs].reshape(-1, height, inputs)
            matrix = weights[start : start + size].reshape(inputs, self.outputs[degree])
            out.append(torch.einsum("nac,cd->nad", part, matrix).flatten(1))
            row, start = row + height * inputs, start + size
        return torch.cat(out, dim=1)

    def work(self, sizes: Sizes) -> tuple[int, int, int]:
        """Two operations for each weight and row."""
        nodes = sizes["nodes"]
        return nodes * features(self.outputs), 0, 2 * nodes * features(self.weight_sizes)


CASES = (
    Case(
        "linear-c64-l2",
        Linear((64, 64, 64), (64, 64, 64)),
        {"nodes": 500},
        2,
        "NequIP's maps before and after a convolution (2101.03164)",
        quick=True,
    ),
)
