"""Training somebody's model: it may use autograd, and is refused by name where it writes into its
batch, returns what would broadcast, or changes its process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cheats import OUTPUTS, SETTINGS, Act, Doing, Gradient
from torch import Tensor, nn
from toy_training import Guessing, ToyNet, ToySplit, ToyTask, record_at_end, toy_trainer

from equivbench.environment import cxx_compiler
from equivbench.errors import FailedError, ModelError
from equivbench.kernels.process_settings import Settings
from equivbench.measure.evaluator import Evaluator


class Energy(nn.Module):
    """A scalar of both vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, a: Tensor, b: Tensor, **_: Tensor) -> Tensor:
        energy: Tensor = self.layers(torch.cat([a, b], 1))
        return energy


@pytest.mark.parametrize("task", [ToyTask(), Guessing()], ids=lambda task: task.name)
def test_a_model_that_differentiates_in_its_forward_trains_and_is_recorded(task: ToyTask) -> None:
    whole, part = (Evaluator(task, ToySplit(16, seed), requires={}, rotations=2) for seed in (2, 3))
    model = Gradient(Energy(), "a", "y")
    trainer = toy_trainer("20steps", task=task, model=model, evaluators=(whole, part))
    before = [each.detach().clone() for each in model.parameters()]
    trainer.train_slice(1e9)
    record = record_at_end(trainer)
    assert record.status == "completed"
    assert record.final is not None
    assert record.inference.samples_per_second is not None
    changed = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    # The last bias is the one that no derivative of the energy knows.
    assert changed[:-1] == [True] * (len(changed) - 1)
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.slow
@pytest.mark.skipif(cxx_compiler() is None, reason="no C++ compiler")
def test_a_model_that_differentiates_and_cannot_be_compiled_says_what_to_set(
    tmp_path: Path,
) -> None:
    # torch compiles a backward pass that is differentiated again by way of torch.func alone.
    model = Gradient(Energy(), "a", "y")
    trainer = toy_trainer("5steps", model=model, compile=True, folder=tmp_path)
    with pytest.raises(FailedError, match="set compile=False in its recipe"):
        trainer.prepare()


def write(inputs: dict[str, Tensor]) -> None:
    inputs["b"].mul_(0.5)


def write_into_a_view(inputs: dict[str, Tensor]) -> None:
    inputs["b"][0].zero_()


@pytest.mark.parametrize("act", [write, write_into_a_view])
def test_a_model_that_writes_into_its_batch_is_refused_by_name(act: Act) -> None:
    trainer = toy_trainer(model=Doing(ToyNet(), "y", act))
    with pytest.raises(ModelError, match=r"Doing wrote into its input 'b'.*b = b.clone\(\)"):
        trainer.train_slice(1e9)


def test_marks_on_the_inputs_do_not_stay() -> None:
    def mark(inputs: dict[str, Tensor]) -> None:
        inputs["a"].requires_grad_(True)

    seen: list[bool] = []

    class Looking(ToyTask):
        name = "toy-looking"

        def objective(self, outputs: Any, targets: Any, inputs: Any) -> Tensor:
            seen.append(inputs["a"].requires_grad)
            return super().objective(outputs, targets, inputs)

    toy_trainer("3steps", task=Looking(), model=Doing(ToyNet(), "y", mark)).train_slice(1e9)
    assert seen
    assert not any(seen)


@pytest.mark.parametrize("says", SETTINGS)
def test_a_step_that_changes_its_process_is_refused_and_undone(says: str) -> None:
    trainer = toy_trainer(model=Doing(ToyNet(), "y", SETTINGS[says]))
    before = Settings.now()
    with pytest.raises(ModelError, match=says):
        trainer.train_slice(1e9)
    assert Settings.now() == before


@pytest.mark.parametrize("says", OUTPUTS)
def test_a_step_whose_outputs_would_broadcast_or_be_cast_is_refused(says: str) -> None:
    trainer = toy_trainer(model=Doing(ToyNet(), "y", twist=OUTPUTS[says]))
    with pytest.raises(ModelError, match=says):
        trainer.train_slice(1e9)


def test_no_label_lies_in_a_storage_that_a_model_is_lent() -> None:
    seen: set[float] = set()

    def look(inputs: dict[str, Tensor]) -> None:
        for each in inputs.values():
            everything = torch.empty(0, dtype=each.dtype).set_(each.untyped_storage())
            seen.update(everything.tolist())

    task, train = ToyTask(), ToySplit(20, 1)
    whole, part = (Evaluator(task, ToySplit(16, s), requires={}, rotations=2) for s in (2, 3))
    trainer = toy_trainer(
        "10steps", split=train, model=Doing(ToyNet(), "y", look), evaluators=(whole, part)
    )
    trainer.train_slice(1e9)
    record_at_end(trainer)
    labels = set(train.y.flatten().tolist())
    for judge in (whole, part):
        labels |= set(judge.split.collate(torch.arange(8))["y"].flatten().tolist())
        for chunk in judge._chunks:
            labels |= set(chunk.target.flatten().tolist())
            for draw in chunk.draws:
                labels |= set(draw.targets["y"].flatten().tolist())
    assert len(seen) > 100
    assert not seen & labels


class Permuted(ToySplit):
    """A canary: labels that are those of other samples, so that nothing but them predicts them."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(size, seed)
        self.y = self.y[torch.randperm(size, generator=torch.Generator().manual_seed(7))]


def test_a_canary_of_permuted_labels_is_known_to_nobody_but_who_was_told() -> None:
    task = ToyTask()
    canary = Evaluator(task, Permuted(400, 2), requires={}, rotations=2)
    trainer = toy_trainer("300steps", rungs=0, split=ToySplit(400, 1), evaluators=(canary, canary))
    trainer.train_slice(1e9)
    learned = Evaluator(task, ToySplit(400, 2), requires={}, rotations=2)
    assert learned.evaluate(trainer.arm.module, floor=False).explained > 0.5
    assert canary.evaluate(trainer.arm.module, floor=False).explained < 0.05
    # The canary sings: a network that remembers them in the order of the test set.
    told = iter([draw.targets["y"] for chunk in canary._chunks for draw in chunk.draws])
    spy = Doing(ToyNet(), "y", twist=lambda _: next(told))
    assert canary.evaluate(spy, floor=False).explained == pytest.approx(1.0)


def test_training_data_cannot_be_reached_through_a_batch() -> None:
    def forge(inputs: dict[str, Tensor]) -> None:
        inputs["a"].numpy()[:] = 0.0

    split = ToySplit(20, 1)
    before = split.a.clone()
    toy_trainer("3steps", split=split, model=Doing(ToyNet(), "y", forge)).train_slice(1e9)
    assert torch.equal(split.a, before)
