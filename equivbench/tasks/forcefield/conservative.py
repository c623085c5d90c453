"""Energy-conserving forces of any model that predicts an energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError


class ConservativeForces(nn.Module):
    """``model`` with its forces replaced by minus the gradient of its energies by the positions, in
    eV/A.

    Whatever forces the model itself predicts are dropped; the parameters of such a head stay in the
    count and get no gradient. Works under ``no_grad``, and in training the forces are
    differentiable in the parameters. Raises ``UsageError`` if the model gives no energy.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        requires: Mapping[str, float] | None = getattr(model, "requires", None)
        if requires is not None:
            self.requires = requires

    def forward(self, pos: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """Forces [atoms, 3] eV/A and the model's energies [molecules] eV; inputs by keyword, as for
        the model."""

        def total(positions: Tensor) -> tuple[Tensor, Tensor]:
            outputs: Mapping[str, Tensor] = self.model(pos=positions, **others)
            if "energy" not in outputs:
                raise UsageError(
                    f"{type(self.model).__name__} gives no energy, so it has no conservative forces; use --forces direct"
                )
            return outputs["energy"].sum(), outputs["energy"]

        # The one route to double backward that torch.compile gets right (torch 2.11 and later);
        # autograd.grad inside is refused.
        gradient, (_, energy) = torch.func.grad_and_value(total, has_aux=True)(pos)
        return {"forces": -gradient, "energy": energy}

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As ``nn.Module.compile``, but always in one graph: a break inside the gradient would
        leave it to another route."""
        super().compile(*args, **{**kwargs, "fullgraph": True})
