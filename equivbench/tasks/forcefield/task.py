"""The force-field task: forces (and energies) of molecules from atomic numbers and positions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError, unknown_name
from equivbench.kernels.neighbours import edges_within
from equivbench.tasks.base import Batch, Split, Task, TaskData
from equivbench.tasks.forcefield.constants import NUMBERS
from equivbench.tasks.forcefield.declarations import BOARD_UNIT, FIELDS

FORCE_WEIGHT, ENERGY_WEIGHT = 100.0, 4.0
"""Weights of the two parts of the objective, those of EScAIP (Qu & Krishnapriyan 2024)."""


class ForceField(Task):
    """Predict the force on every atom; the board metric is |F - F_hat|^2 in (eV/A)^2, averaged over
    atoms."""

    name = "forcefield"
    prediction = "forces"
    index_field = "batch"
    board_unit = BOARD_UNIT
    options: ClassVar[Mapping[str, tuple[str, ...]]] = {"forces": ("direct", "conservative")}
    fields = FIELDS

    def adapt(self, model: nn.Module, variant: Mapping[str, str]) -> nn.Module:
        """The model itself, or with ``forces=conservative`` its forces replaced by minus its
        energy's gradient."""
        chosen = variant.get("forces", "direct")
        if chosen not in self.options["forces"]:
            raise unknown_name("value of forces", chosen, self.options["forces"])
        if chosen == "direct":
            return model
        return ConservativeForces(model)

    def assemble(
        self, batch: Batch, noise: Batch, requires: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs z, pos, batch and, where required, edge_index and n_atoms; targets forces and
        energy.

        ``requires`` may hold ``edge_index`` (the cutoff, A), with it ``max_neighbours``, and
        ``n_atoms`` (which has no parameter: any number asks for it); anything else is a
        ``UsageError``.
        """
        unknown = set(requires) - {"edge_index", "max_neighbours", "n_atoms"}
        if unknown:
            raise unknown_name(
                "derived input of task forcefield",
                min(unknown),
                ["edge_index", "max_neighbours", "n_atoms"],
            )
        if "max_neighbours" in requires and "edge_index" not in requires:
            raise UsageError(
                "max_neighbours needs edge_index: require both, e.g. {'edge_index': 5.0, "
                "'max_neighbours': 20}"
            )
        inputs = {name: batch[name] for name in ("z", "pos", "batch")}
        if "edge_index" in requires:
            most = requires.get("max_neighbours")
            inputs["edge_index"] = edges_within(
                batch["pos"],
                batch["batch"],
                float(requires["edge_index"]),
                None if most is None else int(most),
            )
        if "n_atoms" in requires:
            # With it a model knows the number of molecules from a shape: batch.max() + 1 waits for
            # a GPU and breaks a compiled graph.
            molecules = torch.zeros_like(batch["energy"], dtype=torch.int64)
            inputs["n_atoms"] = molecules.index_add(
                0, batch["batch"], torch.ones_like(batch["batch"])
            )
        return inputs, {name: batch[name] for name in ("forces", "energy")}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        """100 times the mean over atoms of |F - F_hat| plus 4 times the mean over molecules of |E -
        E_hat| per atom.

        The energy part is left out where the model gives no energy. EScAIP's weights; energy per
        atom is our reading.
        """
        loss: Tensor = (
            FORCE_WEIGHT
            * torch.linalg.vector_norm(outputs["forces"] - targets["forces"], dim=-1).mean()
        )
        if "energy" in outputs:
            error = (outputs["energy"] - targets["energy"]).abs()
            n_atoms = torch.zeros_like(error).index_add(
                0, inputs["batch"], error.new_ones(len(inputs["batch"]))
            )
            loss = loss + ENERGY_WEIGHT * (error / n_atoms).mean()
        return loss

    def samples_in(self, batch: Batch) -> int:
        """Number of molecules."""
        return len(batch["energy"])

    def strata(self, batch: Batch) -> tuple[tuple[str, ...], Tensor]:
        """The atoms by element symbol; those that SPICE lacks are ``other``."""
        return (*NUMBERS, "other"), _stratum_of_element().to(batch["z"].device)[batch["z"]]

    def baseline(self, split: Split) -> float:
        """Mean over atoms of |F|^2: the error of predicting no force, which is the mean force of
        every orientation."""
        total, atoms = 0.0, 0
        for indices in torch.split(torch.arange(len(split)), 4096):
            forces = split.collate(indices)["forces"].double()
            total += float(forces.square().sum())
            atoms += len(forces)
        return total / atoms

    def untrained(self, data: TaskData, seed: int = 0) -> dict[str, nn.Module]:
        """``linear``: central pair forces
        (:class:`equivbench.tasks.forcefield.baseline.PairForces`)."""
        from equivbench.tasks.forcefield.baseline import fit_pair_forces

        return {"linear": fit_pair_forces(data.train, seed)}


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


@cache
def _stratum_of_element() -> Tensor:
    table = torch.full((256,), len(NUMBERS))
    table[list(NUMBERS.values())] = torch.arange(len(NUMBERS))
    return table
