"""The symmetry loss: what that on rotated copies is of a network whose penalty is known in closed
form, what a step does with it, and that ranks share both kinds exactly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from dev_jobs import dev_job
from thread_ranks import on_ranks
from torch import Tensor, nn
from toy_training import ToyNet, ToySplit, toy_trainer

from equivbench.errors import UsageError
from equivbench.ranks import Ranks
from equivbench.specs import Group
from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.base import Batch
from equivbench.training.arm import Arm
from equivbench.training.assembly import build_trainer
from equivbench.training.data import Batches
from equivbench.training.loop import Trainer
from equivbench.training.rotated_copies import RotatedCopies, RotatedCopy, metric_of
from equivbench.training.rotational_gradient import RotationalGradient
from equivbench.training.shards import Shards
from equivbench.training.symmetry_loss import symmetry_loss_of

SHIPPED = ["forcefield/vector", "flow/frames", "voxel/octahedral"]
KINDS = [*((pair, "symmetry-loss") for pair in SHIPPED), ("forcefield/vector", "equigrad")]


class Matrix(nn.Module):
    """y = W a: equivariant where W is a multiple of the identity."""

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        self.weight = nn.Parameter(drawn)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"y": a.to(self.weight.dtype) @ self.weight.T}


class Cross(nn.Module):
    """The target itself, which rotations commute with and, of two vectors, reflections do not."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"y": self.scale * torch.linalg.cross(a.double(), b.double())}


def arm_of(model: nn.Module, weight: float = 1.0, group: Group | None = None) -> Arm:
    arm = toy_trainer(model=model, symmetry_loss=weight, augmentation="haar").arm
    preset = dataclasses.replace(arm.declared.pair_preset, group=group)
    return dataclasses.replace(arm, declared=dataclasses.replace(arm.declared, pair_preset=preset))


def penalty_of(
    penalised: RotatedCopy | RotationalGradient, arm: Arm, inputs: Batch, targets: Batch
) -> Tensor:
    outputs, second = arm.outputs(inputs, targets), penalised.outputs(inputs, targets)
    return penalised.penalty(outputs, second, inputs, targets)


def vectors(count: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    batch = ToySplit(count, seed).collate(torch.arange(count))
    double = {name: each.double() for name, each in batch.items()}
    return {name: double[name] for name in "ab"}, {"y": double["y"]}


def test_penalty_and_gradient_of_a_matrix_are_those_of_the_formula() -> None:
    weight, count = 2.5, 7
    model = Matrix()
    arm = arm_of(model, weight)
    inputs, targets = vectors(count)
    copy = RotatedCopies(arm, seed=3).at(11, count)
    found = penalty_of(copy, arm, inputs, targets)
    turns, w, a = copy._elements, model.weight.detach(), inputs["a"]
    # f(R a) - R f(a) = (W R - R W) a =: r; of |r|^2 the gradient by W is
    # 2 (r (R a)^T - R^T r a^T).
    apart = torch.einsum("nij,nj->ni", w @ turns - turns @ w, a)
    turned = torch.einsum("nij,nj->ni", turns, a)
    back = torch.einsum("nji,nj->ni", turns, apart)
    gradient = torch.einsum("ni,nj->ij", apart, turned) - torch.einsum("ni,nj->ij", back, a)
    # Sums of some twenty products of numbers of order one in float64.
    assert float(found.detach()) == pytest.approx(
        weight * float(apart.square().sum()) / count, rel=1e-12
    )
    (by_autograd,) = torch.autograd.grad(found, [model.weight])
    torch.testing.assert_close(by_autograd, 2 * weight / count * gradient, rtol=1e-11, atol=1e-11)


def test_on_augmented_samples_it_is_twice_the_equivariance_error() -> None:
    model = Matrix()
    arm = arm_of(model)
    loss = RotatedCopies(arm, seed=0)
    split = ToySplit(64, 1)
    batches = Batches(arm.task, split, arm.recipe, {}, 0, arm.device)
    drawn = torch.stack(
        [penalty_of(loss.at(64 * k, 64), arm, *batches.at(64 * k, 64)) for k in range(300)]
    ).detach()
    # Over rotations R^T W R has the mean tr W / 3, and its square the mean |W|^2 / 3.
    w = model.weight.detach()
    error = (w.square().sum() / 3 - (w.trace() / 3) ** 2) * split.a.double().square().sum(1).mean()
    # Five standard errors of a mean over independent draws.
    assert abs(float(drawn.mean() - 2 * error)) < 5 * float(drawn.std()) / len(drawn) ** 0.5
    assert float(error) > 0.1


@pytest.mark.parametrize("group", ["so3", "octahedral", None])
def test_an_equivariant_network_is_not_penalised(group: Group | None) -> None:
    arm = arm_of(Cross(), group=group)
    inputs, targets = vectors(5)
    copy = RotatedCopies(arm, seed=0).at(0, 5)
    # The square of rounding of products of numbers of order one.
    assert float(penalty_of(copy, arm, inputs, targets).detach()) < 1e-28


def test_the_group_is_the_one_that_the_arm_is_judged_under() -> None:
    cube = RotatedCopies(arm_of(Cross(), group="octahedral"), seed=0).at(0, 40)._elements
    every = octahedral_rotations(torch.float64)
    assert all(bool((each == every).flatten(1).all(1).any()) for each in cube)
    assert len(torch.unique(cube, dim=0)) > 5
    # Of two vectors that are mirrored the product is not: half of the elements see it.
    mirrored = arm_of(Cross(), group="o3")
    copy = RotatedCopies(mirrored, seed=0).at(0, 40)
    assert set(torch.linalg.det(copy._elements).round().tolist()) == {-1.0, 1.0}
    assert float(penalty_of(copy, mirrored, *vectors(40)).detach()) > 0.1


def test_elements_are_a_function_of_the_seed_and_the_position() -> None:
    loss = RotatedCopies(arm_of(Cross()), seed=1)
    first = loss.at(8, 4)._elements
    assert torch.equal(first, RotatedCopies(arm_of(Cross()), seed=1).at(8, 4)._elements)
    for other in (loss.at(12, 4), RotatedCopies(arm_of(Cross()), seed=2).at(8, 4)):
        assert not torch.equal(first, other._elements)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UsageError, match="weight -1 would reward"):
        toy_trainer(symmetry_loss=-1.0)


def test_a_step_descends_on_the_objective_and_the_penalty() -> None:
    options: dict[str, Any] = {
        "optimizer": "sgd",
        "weight_decay": 0.0,
        "clip_norm": None,
        "warmup_steps": 0,
        "learning_rate": 0.01,
        "augmentation": "haar",
        "symmetry_loss": 3.0,
    }
    trainer = toy_trainer(model=Matrix(), **options)
    arm, count = trainer.arm, trainer.arm.recipe.batch_size
    weight = arm.model.get_parameter("weight")
    inputs, targets = trainer.batches.at(0, count)
    outputs = arm.outputs(inputs, targets)
    copy = RotatedCopies(arm, trainer.seed).at(0, count)
    loss = arm.task.objective(outputs, targets, inputs) + penalty_of(copy, arm, inputs, targets)
    (gradient,) = torch.autograd.grad(loss, [weight])
    before = weight.detach().clone()
    with trainer.clock.running():
        trainer.step(trainer.clock)
    # The same float32 inputs and float64 weights: rounding of the same sums in another order.
    torch.testing.assert_close(weight.detach(), before - 0.01 * gradient, rtol=1e-12, atol=1e-12)
    assert float(gradient.norm()) > 0.1


def test_a_step_predicts_twice_and_otherwise_once() -> None:
    def calls(**recipe: Any) -> float:
        trainer = toy_trainer(model=ToyNet(), **recipe)
        with trainer.clock.running():
            for _ in range(3):
                trainer.step(trainer.clock)
        return float(trainer.arm.model.get_buffer("calls"))

    assert (calls(), calls(symmetry_loss=1.0)) == (3, 6)


def test_other_arms_draw_what_they_drew_before() -> None:
    """The penalty takes nothing from the streams of rotations and noise."""
    with_it = toy_trainer(augmentation="haar", symmetry_loss=1.0)
    without = toy_trainer(augmentation="haar")
    with with_it.clock.running():
        with_it.step(with_it.clock)
    for place in (0, 8):
        first, second = with_it.batches.at(place, 8), without.batches.at(place, 8)
        assert torch.equal(first[0]["a"], second[0]["a"])


def trainer_of(folder: Path, pair: str, arm: str = "symmetry-loss") -> Trainer:
    return build_trainer(dev_job(folder, pair, arm))


@pytest.mark.parametrize("pair", SHIPPED)
def test_the_penalty_of_a_shipped_arm_is_of_the_board_metric(tmp_path: Path, pair: str) -> None:
    trainer = trainer_of(tmp_path, pair)
    arm, count = trainer.arm, trainer.arm.recipe.batch_size
    inputs, targets = trainer.batches.at(count, count)
    noise = torch.Generator().manual_seed(0)
    name = arm.task.prediction
    # Untrained networks of two tasks predict zero, which nothing turns.
    with torch.no_grad():
        for parameter in arm.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)
    copy = RotatedCopies(arm, trainer.seed).at(count, count)
    found = penalty_of(copy, arm, inputs, targets)
    found.backward()  # type: ignore[no-untyped-call]
    reached = [each.grad.norm() for each in arm.model.parameters() if each.grad is not None]
    assert sum(reached) > 0
    assert float(found.detach()) > 0
    # A prediction that is off everywhere by one has the board metric of its components.
    everything = {**inputs, **targets}
    ones = metric_of(arm.task, torch.ones_like(targets[name]), everything)
    expected = {"forces": 3.0, "x1": 3.0, "density": 1.0}[name]
    assert float(ones) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("arm", ["symmetry-loss", "equigrad"])
def test_shipped_arms_train_with_it(tmp_path: Path, arm: str) -> None:
    trainer = trainer_of(tmp_path, "forcefield/vector", arm)
    weights = [each.detach().clone() for each in trainer.arm.model.parameters()]
    with trainer.clock.running():
        trainer.step(trainer.clock)
    moved = zip(weights, trainer.arm.model.parameters(), strict=True)
    assert any(not torch.equal(before, after) for before, after in moved)
    assert trainer.watch.verdict(1) is None


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "kind"), KINDS)
def test_the_gradients_of_the_ranks_add_up_to_that_of_one_device(
    tmp_path: Path, pair: str, kind: str
) -> None:
    trainer = trainer_of(tmp_path, pair, kind)
    arm, count = trainer.arm, trainer.arm.recipe.batch_size
    parameters = list(arm.model.parameters())
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.1 * torch.randn(parameter.shape, generator=noise)

    def gradient(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pieces = [
            torch.zeros_like(each) if part is None else part
            for each, part in zip(parameters, found, strict=True)
        ]
        return torch.cat([piece.reshape(-1) for piece in pieces]).double()

    symmetry = symmetry_loss_of(arm, trainer.seed)
    assert symmetry is not None
    penalised = symmetry.at(count, count)
    expected = gradient(penalty_of(penalised, arm, *trainer.batches.at(count, count)))
    assert expected.norm() > 0

    def work(ranks: Ranks) -> Tensor:
        batches = Batches(arm.task, arm.split, arm.recipe, arm.requires, trainer.seed, arm.device)
        shards = Shards(arm.task, batches, arm.requires, ranks)
        shard = shards.at(count, count)
        inputs, targets = shard.own
        own = arm.outputs(inputs, targets)
        second = penalised.outputs(inputs, targets, shard.rows["graph"])
        outputs, seconds = (shards.outputs(shard, each) if each else {} for each in (own, second))
        return gradient(penalised.penalty(outputs, seconds, *shard.whole))

    gradients = on_ranks(2, work)
    # Float32 sums in another order, as without the penalty.
    assert (sum(gradients) - expected).norm() < 1e-4 * expected.norm()
