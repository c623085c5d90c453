"""The force field as a plug-in has it: a tiny network of energies whose conservative forces are
compiled up to the C++, which would take minutes (and which torch 2.13 gets wrong on a CPU)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import equivbench as eb
from equivbench.specs import (
    CONTESTANTS,
    ArmPreset,
    ArmSpec,
    MatchSpec,
    PairPreset,
    PairSpec,
    Recipe,
)
from equivbench.tasks.forcefield.conservative import ConservativeForces
from equivbench.tasks.forcefield.task import ForceField

CUTOFF = 4.0


class TracedForces(ConservativeForces):
    """Minus the gradient of the energies, compiled by the route of the real ones."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **{**kwargs, "backend": "aot_eager"})


@eb.register_task("traced", summary="forces of molecules", board_unit="(eV/A)^2")
class TracedForceField(ForceField):
    """The force field, whose networks give energies alone."""

    name = "traced"

    def adapt(self, model: nn.Module, variant: Mapping[str, str]) -> nn.Module:
        return TracedForces(model)


class PairEnergies(nn.Module):
    """A function of the distance and the elements of each pair, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = nn.Embedding(200, 8)
        self.energy = nn.Sequential(nn.Linear(16, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(
        self, z: Tensor, pos: Tensor, batch: Tensor, edge_index: Tensor, n_atoms: Tensor
    ) -> dict[str, Tensor]:
        source, target = edge_index
        distance = torch.linalg.vector_norm(pos[source] - pos[target], dim=1, keepdim=True)
        centres = torch.linspace(0.5, CUTOFF, 8, device=pos.device)
        bumps = torch.exp(-((distance - centres) ** 2)) * (1 - distance / CUTOFF) ** 2
        pairs = self.energy(torch.cat([self.elements(z[source] + z[target]), bumps], dim=1))
        molecules = torch.zeros_like(n_atoms, dtype=pos.dtype)
        return {"energy": molecules.index_add(0, batch[target], pairs.squeeze(1))}


@eb.register_model(
    "pair-energies", task="traced", symmetry="o3", requires={"edge_index": CUTOFF, "n_atoms": 1.0}
)
def pair_energies(config: Mapping[str, Any]) -> nn.Module:
    return PairEnergies()


for name, compiled in (("eager", False), ("compiled", True)):
    recipe = Recipe(1e-3, 16, "none", warmup_steps=2, compile=compiled)
    preset = PairPreset(
        "gfn2-small", "6steps", rungs=0, rotations=2, test_samples=32, part_samples=16
    )
    eb.register_pair(
        PairSpec(
            name=name,
            task="traced",
            summary="energies of pairs of atoms",
            arms=tuple(
                ArmSpec(arm, "pair-energies", {"dev": ArmPreset({}, recipe)}) for arm in CONTESTANTS
            ),
            matching=MatchSpec("nothing", "nothing"),
            presets={"dev": preset},
        )
    )
