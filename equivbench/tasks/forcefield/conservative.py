"""Forces as the gradient of an energy, and what they tell of it: how it changes where its molecule
is turned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.kernels.sums import sum_by
from equivbench.tasks.base import Batch


def energy_by_rotation(outputs: Batch, inputs: Batch) -> Tensor:
    """[molecules, 3] eV: the derivative of each energy by the angle of a rotation of its molecule
    about x, y and z, where ``forces`` are minus its gradient.

    A rotation by the small vector w moves r_i by w x r_i, and so the energy by minus the sum of F_i
    . (w x r_i), which is -w . (sum of r_i x F_i): minus the torque. It is that about any point
    where the energy does not depend on the origin, as here.
    """
    forces = outputs["forces"]
    torques = torch.linalg.cross(inputs["pos"].to(forces.dtype), forces)
    return -sum_by(inputs["batch"], torques, len(outputs["energy"]))


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
                    f"{type(self.model).__name__} gives no energy, so it has no conservative "
                    "forces; use --forces direct"
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
