"""The derivative of an energy by a rotation, and its penalty: known in closed form, held against
differences, nothing where the energy is invariant, and refused where forces do not tell it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from dev_jobs import dev_job
from molecules import inputs_for, molecules
from torch import Tensor, nn
from toy_training import toy_trainer

from equivbench.errors import UsageError
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.forcefield.conservative import ConservativeForces, energy_by_rotation
from equivbench.tasks.forcefield.networks import painn
from equivbench.tasks.forcefield.pairs import VECTOR
from equivbench.tasks.forcefield.task import ForceField
from equivbench.training.arm import Arm
from equivbench.training.assembly import build_trainer
from equivbench.training.rotational_gradient import RotationalGradient

CONFIG = VECTOR.arm("equigrad").presets["dev"].config


class UniformField(nn.Module):
    """E = -w . d in a uniform field w, d the sum of c_i r_i over charges c that add up to nothing:
    linear in the positions, independent of their origin, and not invariant."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.3, -1.1, 0.7], dtype=torch.float64))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor, n_atoms: Tensor) -> dict[str, Tensor]:
        return {"energy": -dipoles(z, pos, batch, n_atoms) @ self.w}


def dipoles(z: Tensor, pos: Tensor, batch: Tensor, n_atoms: Tensor) -> Tensor:
    """[molecules, 3]."""
    sums = pos.new_zeros(len(n_atoms))
    charges = z.to(pos) - (sums.index_add(0, batch, z.to(pos)) / n_atoms)[batch]
    zeros = pos.new_zeros(len(n_atoms), 3)
    return zeros.index_add(0, batch, charges[:, None] * pos)


def gradient_of(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return energy_by_rotation(ConservativeForces(network)(**inputs), inputs)


def arm_of(model: nn.Module, weight: float, folder: Path) -> Arm:
    """The dev arm with another model and weight, in float64."""
    arm = build_trainer(dev_job(folder, arm="equigrad")).arm
    recipe = dataclasses.replace(arm.recipe, symmetry_loss=weight)
    return dataclasses.replace(arm, model=model, module=model, recipe=recipe)


def test_that_of_a_linear_energy_is_its_field_times_its_dipole() -> None:
    network, inputs = UniformField(), molecules()
    dipole = dipoles(**inputs)
    # d(-w . R d) by the angle about n is -w . (n x d) = n . (w x d).
    expected = torch.linalg.cross(network.w.detach().expand(4, 3), dipole)
    found = gradient_of(network, inputs)
    # Float64 sums over at most 14 atoms of products of order 10.
    torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-11)
    assert float(expected.norm(dim=1).min()) > 0.1


def test_the_penalty_and_its_gradient_are_those_of_the_formula(tmp_path: Path) -> None:
    network, inputs, weight = UniformField(), molecules(), 2.5
    model = ConservativeForces(network)
    penalised = RotationalGradient(arm_of(model, weight, tmp_path)).at(0, 4)
    found = penalised.penalty(model(**inputs), {}, inputs, {})
    dipole, w = dipoles(**inputs), network.w.detach()
    torque = torch.linalg.cross(w.expand(4, 3), dipole)
    length = torque.norm(dim=1, keepdim=True)
    assert float(found.detach()) == pytest.approx(weight * float(length.mean()), rel=1e-12)
    # Of the length of w x d the gradient by w is d x (w x d) over that length.
    gradient = weight * (torch.linalg.cross(dipole, torque) / length).mean(0)
    (by_autograd,) = torch.autograd.grad(found, [network.w])
    torch.testing.assert_close(by_autograd, gradient, rtol=1e-11, atol=1e-11)


def test_it_is_the_difference_that_small_rotations_make() -> None:
    torch.manual_seed(0)
    network, sample = painn.build_plain(CONFIG).double(), molecules()
    inputs = inputs_for(network, sample)
    found, angle = gradient_of(network, inputs).detach(), 1e-4
    assert float(found.norm(dim=1).min()) > 1e-3
    for number, axis in enumerate(torch.eye(3, dtype=torch.float64)):
        skew = torch.linalg.cross(axis.expand(3, 3), torch.eye(3, dtype=torch.float64)).T
        energies = [
            network(**{**inputs, "pos": sample["pos"] @ torch.linalg.matrix_exp(turn * skew).T})[
                "energy"
            ].detach()
            for turn in (angle, -angle)
        ]
        difference = (energies[0] - energies[1]) / (2 * angle)
        # Of the third order in the angle, and rounding of energies of order one over the angle.
        torch.testing.assert_close(difference, found[:, number], rtol=1e-5, atol=1e-7)


def test_an_invariant_energy_has_none() -> None:
    torch.manual_seed(0)
    network = painn.build(VECTOR.arm("equivariant").presets["dev"].config).double()
    inputs = inputs_for(network, molecules())
    forces = ConservativeForces(network)(**inputs)["forces"].detach()
    # Rounding of sums of forces times positions of a few A.
    found = gradient_of(network, inputs).detach()
    assert float(found.abs().max()) < 1e-12 * float(forces.abs().max())
    plain = painn.build_plain(CONFIG).double()
    assert float(gradient_of(plain, inputs).detach().abs().max()) > 1e-3


def test_it_turns_with_what_it_is_of() -> None:
    """About another point it is the same, and of turned molecules in a turned field it is
    turned."""
    network, inputs = UniformField(), molecules()
    found = gradient_of(network, inputs).detach()
    moved = {**inputs, "pos": inputs["pos"] + torch.tensor([2.0, -1.0, 4.0], dtype=torch.float64)}
    # Float64 sums of products of order 100.
    torch.testing.assert_close(gradient_of(network, moved).detach(), found, rtol=0, atol=1e-10)
    turn = random_rotations(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[0]
    with torch.no_grad():
        network.w.copy_(turn @ network.w)
    turned = gradient_of(network, {**inputs, "pos": inputs["pos"] @ turn.T}).detach()
    torch.testing.assert_close(turned, found @ turn.T, rtol=0, atol=1e-10)


def test_a_step_predicts_once(tmp_path: Path) -> None:
    trainer = build_trainer(dev_job(tmp_path, arm="equigrad"))
    calls = []
    trainer.arm.module.register_forward_hook(lambda *call: calls.append(1))
    with trainer.clock.running():
        for _ in range(3):
            trainer.step(trainer.clock)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("variant", "requires", "says"),
    [
        ({}, {}, "add --forces conservative"),
        ({"forces": "direct"}, {}, "add --forces conservative"),
        ({"forces": "conservative"}, {"cell": 1.0}, "a part by the cell"),
    ],
)
def test_forces_that_do_not_tell_it_are_refused(
    variant: dict[str, str], requires: dict[str, float], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ForceField().rotational_gradient(variant, requires)


def test_a_task_without_an_energy_is_refused() -> None:
    with pytest.raises(UsageError, match="toy-cross has no energy"):
        toy_trainer(symmetry_loss=1.0, symmetry_loss_kind="rotational-gradient")


def test_an_arm_that_needs_conservative_forces_is_not_trained_on_direct_ones(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="is for conservative forces alone"):
        build_trainer(dev_job(tmp_path, arm="equigrad", variant={}))
