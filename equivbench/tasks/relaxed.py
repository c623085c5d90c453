"""A network relaxed by a residual pathway: beside it a small network without the symmetry, whose
predictions are added on a small scale (Residual Pathway Priors: Finzi, Benton & Wilson 2021,
2112.01388).

Weight decay and the optimiser's steps act on the weights of both alike, so that scale is the prior
on symmetry: the smaller it is, the larger the weights that a departure from it takes. At 0 the
network is the equivariant one.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Relaxed(nn.Module):
    """The predictions of ``equivariant`` plus ``relaxation`` times those of ``free``: of two
    networks that are called alike and return a tensor, or tensors by name."""

    def __init__(self, equivariant: nn.Module, free: nn.Module, relaxation: float) -> None:
        super().__init__()
        self.equivariant, self.free, self.relaxation = equivariant, free, relaxation
        requires: Mapping[str, float] | None = getattr(equivariant, "requires", None)
        if requires is not None:
            self.requires = requires

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor | dict[str, Tensor]:
        """What both networks return."""
        bound, free = self.equivariant(*inputs, **named), self.free(*inputs, **named)
        if isinstance(bound, Tensor):
            added: Tensor = bound + self.relaxation * free
            return added
        return {name: output + self.relaxation * free[name] for name, output in bound.items()}
