"""A problem whose errors, gradients and Hessians are known: learn y = k x with a linear map A,
which only its trace can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from equivbench.specs import Field
from equivbench.tasks.base import Task

SLOPE = 2.0
"""Of the target, k."""


class VectorSplit:
    """Normal vectors in groups of one to three."""

    def __init__(self, samples: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randn(samples, 3, dtype=torch.float64, generator=generator)
        self._groups = torch.arange(samples) * 2 // 3

    def __len__(self) -> int:
        return len(self.x)

    @property
    def groups(self) -> Tensor:
        return self._groups

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[indices], "y": SLOPE * self.x[indices]}


class Vectors(Task):
    """Predict y = k x from x and a noise that a model may ignore."""

    name = "toy-vectors"
    prediction = "y"
    index_field = None
    board_unit = "1"
    fields: ClassVar[tuple[Field, ...]] = (
        Field("x", ("n", 3), "float64", "1o", "graph", "1", "sample"),
        Field("y", ("n", 3), "float64", "1o", "graph", "1", "output"),
        Field("e", ("n", 3), "float64", "1o", "graph", "1", "noise"),
    )

    def noise(self, batch: Mapping[str, Tensor], generator: torch.Generator):
        return {"e": torch.randn(batch["x"].shape, generator=generator, dtype=torch.float64)}

    def assemble(
        self,
        batch: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        requires: Mapping[str, float],
    ):
        return {"x": batch["x"], **noise}, {"y": batch["y"]}

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return (outputs["y"] - targets["y"]).square().sum(-1).mean()

    def samples_in(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["x"])

    def baseline(self, split: VectorSplit) -> float:
        return float(SLOPE**2 * split.x.square().sum(-1).mean())


class Matrix(nn.Module):
    """f(x) = A x. Its twirl is t x with t = tr A / 3, so with D = A - t 1 and S the mean of |x|^2

    M = (t - k)^2 S, V = |D|^2 S / 3, grad M = 2 (t - k) S / 3 * 1 and grad V = 2 S / 3 * D.
    """

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.double())

    def forward(self, x: Tensor, e: Tensor) -> dict[str, Tensor]:
        return {"y": x @ self.matrix.T}

    @property
    def trace(self) -> float:
        return float(self.matrix.detach().trace()) / 3

    @property
    def rest(self) -> Tensor:
        """D."""
        return self.matrix.detach() - self.trace * torch.eye(3, dtype=torch.float64)

    def twirled(self, size: float) -> float:
        return (self.trace - SLOPE) ** 2 * size

    def equivariance(self, size: float) -> float:
        return float(self.rest.square().sum()) * size / 3

    def twirled_gradient(self, size: float) -> Tensor:
        return 2 * (self.trace - SLOPE) * size / 3 * torch.eye(3, dtype=torch.float64)

    def equivariance_gradient(self, size: float) -> Tensor:
        return 2 * size / 3 * self.rest


def matrix(seed: int = 0) -> Matrix:
    return Matrix(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )
