"""A batch shared among ranks: each has its own samples as they are in the whole batch, and the sum
of the gradients is that of one device, for every task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dev_jobs import dev_job
from thread_ranks import CPU, on_ranks
from torch import Tensor
from toy_training import toy_trainer

from equivbench.errors import FailedError, UsageError
from equivbench.measure.evaluator import Evaluator
from equivbench.ranks import Ranks
from equivbench.training.acts import HandInPrints
from equivbench.training.assembly import build_trainer
from equivbench.training.data import Batches
from equivbench.training.follower import Follower
from equivbench.training.loop import Trainer
from equivbench.training.shards import GradientSum, Shards

CASES = [
    ("forcefield/vector", "augmented", "direct"),
    ("forcefield/tied-head", "equivariant", "direct"),
    ("forcefield/vector", "equivariant", "conservative"),
    ("flow/vector-head", "augmented", None),
    ("voxel/octahedral", "equivariant", None),
]
COUNTS = (2, 3)


def trainer_of(folder: Path, pair: str, arm: str, forces: str | None) -> Trainer:
    variant = {} if forces is None else {"forces": forces}
    return build_trainer(dev_job(folder, pair, arm, variant=variant))


def gradient(loss: Tensor, trainer: Trainer) -> Tensor:
    """All parameters' gradients in one piece, zeros where the loss does not reach one."""
    parameters = list(trainer.arm.model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pieces = [
        torch.zeros_like(each) if part is None else part
        for each, part in zip(parameters, found, strict=True)
    ]
    return torch.cat([piece.reshape(-1) for piece in pieces]).double()


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "arm", "forces"), CASES)
def test_the_gradients_of_the_ranks_add_up_to_that_of_one_device(
    tmp_path: Path, pair: str, arm: str, forces: str | None
) -> None:
    trainer = trainer_of(tmp_path, pair, arm, forces)
    task, model, count = trainer.arm.task, trainer.arm.module, trainer.arm.recipe.batch_size
    inputs, targets = trainer.batches.at(count, count)
    loss = task.objective(model(**inputs), targets, inputs)
    expected = gradient(loss, trainer)
    assert expected.norm() > 0

    for ranks_in_all in COUNTS:

        def work(ranks: Ranks) -> tuple[float, Tensor]:
            arm = trainer.arm
            batches = Batches(task, arm.split, arm.recipe, arm.requires, trainer.seed, arm.device)
            shards = Shards(task, batches, arm.requires, ranks)
            shard = shards.at(count, count)
            own, _ = shard.own
            outputs = shards.outputs(shard, model(**own))
            all_inputs, all_targets = shard.whole
            for name, target in all_targets.items():
                assert torch.equal(target, targets[name])
            found = task.objective(outputs, all_targets, all_inputs)
            return float(found.detach()), gradient(found, trainer)

        losses, gradients = zip(*on_ranks(ranks_in_all, work), strict=True)
        assert len(set(losses)) == 1, "every rank has the same loss, to the bit"
        assert losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
        assert (sum(gradients) - expected).norm() < 1e-4 * expected.norm()


def test_a_rank_has_its_own_molecules_and_the_edges_among_them(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, *CASES[0])
    count = trainer.arm.recipe.batch_size
    inputs, targets = trainer.batches.at(0, count)
    edges = inputs["pos"][inputs["edge_index"][0]] - inputs["pos"][inputs["edge_index"][1]]

    def work(ranks: Ranks) -> Any:
        shard = Shards(trainer.arm.task, trainer.batches, trainer.arm.requires, ranks).at(0, count)
        own, own_targets = shard.own
        assert own["batch"].tolist()[0] == 0
        assert len(own_targets["energy"]) == int(own["batch"].max()) + 1
        source, target = own["edge_index"]
        return own["z"], own["pos"], own_targets["energy"], own["pos"][source] - own["pos"][target]

    # One after the other: nothing is passed between ranks here.
    parts = [work(Ranks(number, [CPU] * 3)) for number in range(3)]
    joined = [torch.cat(part) for part in zip(*parts, strict=True)]
    for found, whole in zip(
        joined, (inputs["z"], inputs["pos"], targets["energy"], edges), strict=True
    ):
        assert torch.equal(found, whole)


def test_parts_are_equal_to_one_and_leave_nothing_out() -> None:
    for total in range(20):
        for count in range(1, 6):
            parts = [Ranks(each, [CPU] * count).part(total) for each in range(count)]
            assert [k for part in parts for k in range(total)[part]] == list(range(total))
            sizes = [len(range(total)[part]) for part in parts]
            assert max(sizes) - min(sizes) <= 1


def test_a_parameter_that_no_rank_reaches_has_no_gradient() -> None:
    """With one of zeros, weight decay would move it."""

    def work(ranks: Ranks) -> list[Tensor | None]:
        parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
        sum_of = GradientSum(parameters, ranks)
        for step in (1.0, 2.0):
            for each in parameters:
                each.grad = None
            parameters[0].grad = torch.full((2,), step)
            if ranks.number == 1:
                parameters[2].grad = torch.full((2,), 10 * step)
            sum_of.add_up()
        return [each.grad for each in parameters]

    for first, second, third in on_ranks(2, work):
        assert second is None
        assert first is not None
        assert third is not None
        assert (first.tolist(), third.tolist()) == ([4.0, 4.0], [20.0, 20.0])


@pytest.mark.slow
def test_a_test_set_that_ranks_judge_together_has_the_errors_of_one_device(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, *CASES[0])
    evaluator, module = trainer.arm.evaluator, trainer.arm.module
    assert isinstance(evaluator, Evaluator)
    assert evaluator.calls > 2
    alone = evaluator.evaluate(module, floor=False).to_record()

    def work(ranks: Ranks) -> Any:
        return evaluator._gathered(evaluator._caller(module), ranks)

    module.eval()
    with trainer.arm.without_gradients():
        found, nothing = on_ranks(2, work)
    assert nothing == []
    judged = evaluator._pass.joined(found)
    together = evaluator._measurement(judged, None, None).to_record()
    assert together == alone


def test_ranks_that_differ_end_the_run_and_the_tensor_is_named(tmp_path: Path) -> None:
    trainers = [toy_trainer(), toy_trainer()]
    with torch.no_grad():
        next(trainers[1].arm.model.parameters())[0, 0] += 1e-6

    def work(ranks: Ranks) -> str | None:
        trainer = trainers[ranks.number]
        trainer.ranks = ranks
        if ranks.number == 1:
            Follower(trainer, ranks, tmp_path).follow(HandInPrints())
            return None
        with pytest.raises(FailedError) as raised:
            trainer.compare_ranks()
        return str(raised.value)

    said, _ = on_ranks(2, work)
    assert said is not None
    assert "1 tensors of rank 1, such as model.layers.0.weight, are no longer those of" in said


def test_more_devices_than_samples_are_a_usage_error(tmp_path: Path) -> None:
    job = dev_job(tmp_path, recipe={"batch_size": 2})
    with pytest.raises(UsageError, match="--devices-per-arm 3: a training step of forcefield"):
        build_trainer(job, ranks=Ranks(0, [CPU] * 3))
