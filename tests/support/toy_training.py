"""A toy task, network and evaluator for the tests of training: small enough that a step takes well
under a millisecond."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from equivbench.budget import Budget
from equivbench.measure.caller import evaluating
from equivbench.measure.measurement import Measurement
from equivbench.records.schema import Rung, RunRecord, TracePoint
from equivbench.request import RunRequest
from equivbench.specs import (
    ArmPreset,
    ArmSpec,
    Field,
    MatchSpec,
    ModelSpec,
    PairPreset,
    PairSpec,
    Recipe,
    Symmetry,
)
from equivbench.tasks.base import Card, Feedback, Task
from equivbench.training.arm import Arm, ArmEvaluator, ResolvedArm
from equivbench.training.checkpoint import Keeper
from equivbench.training.clock import Clock
from equivbench.training.data import generator, seed_global
from equivbench.training.job import Job
from equivbench.training.loop import Trainer
from equivbench.training.record import make_record

Batch = Mapping[str, Tensor]


class ToySplit:
    """Vectors ``a``, ``b`` and the target ``y`` = a x b."""

    def __init__(self, size: int, seed: int) -> None:
        self.a, self.b = torch.randn(2, size, 3, generator=generator(seed, "toy"))
        self.y = torch.linalg.cross(self.a, self.b)
        self.collated: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.a)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self)) // 2

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        self.collated.append(indices.tolist())
        return {"a": self.a[indices], "b": self.b[indices], "y": self.y[indices]}


class ToyTask(Task):
    """Learn the cross product."""

    name = "toy-cross"
    fields: tuple[Field, ...] = (
        Field("a", ("n", 3), "float32", "1o", "graph", "1", "sample"),
        Field("b", ("n", 3), "float32", "1o", "graph", "1", "sample"),
        Field("y", ("n", 3), "float32", "1o", "graph", "1", "output"),
    )
    prediction = "y"
    index_field = None
    board_unit = "1"

    def assemble(self, batch: Batch, noise: Batch, requires: Mapping[str, float]) -> Any:
        return {"a": batch["a"], "b": batch["b"]}, {"y": batch["y"]}

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        return (outputs["y"] - targets["y"]).square().sum(1).mean()

    def samples_in(self, batch: Batch) -> int:
        return len(batch["a"])

    def baseline(self, split: Any) -> float:
        return float(split.y.square().sum(1).mean())


class Guessing(ToyTask):
    """The toy task with an input that is the network's own earlier output."""

    name = "toy-guessing"
    fields = (*ToyTask.fields, Field("c", ("n", 3), "float32", "1o", "graph", "1", "derived"))
    feedback = Feedback("c", "y", 0.5)

    def assemble(self, batch: Batch, noise: Batch, requires: Mapping[str, float]) -> Any:
        inputs, targets = super().assemble(batch, noise, requires)
        return {**inputs, "c": torch.zeros_like(inputs["a"])}, targets


class ToyNet(nn.Module):
    """A plain network on the concatenated vectors."""

    def __init__(self, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, 3)
        )
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        if self.training:
            self.calls += 1
        return {"y": self.layers(torch.cat([a, b], 1))}


class ToyEvaluator:
    """Mean squared error on a fixed split; ``cost`` advances a fake time."""

    def __init__(self, split: ToySplit, spend: Callable[[], None] = lambda: None) -> None:
        self.split = split
        self.spend = spend
        self.weights: list[Tensor] = []

    def evaluate(self, model: nn.Module, floor: bool) -> Measurement:
        self.spend()
        self.weights.append(next(model.parameters()).detach().clone())
        with evaluating(model):
            found = model(a=self.split.a, b=self.split.b)["y"].detach()
            errors = (found - self.split.y).square().sum(1)
        total = float(errors.double().mean())
        explained = 1 - total / ToyTask().baseline(self.split)
        return Measurement(
            total=total,
            twirled=total,
            equivariance=0.0,
            share=0.0,
            floor=0.0 if floor else None,
            compare_untrained=lambda: total / ToyTask().baseline(self.split),
            group_weights=torch.ones(len(errors)),
            group_total=errors.double(),
            group_equivariance=torch.zeros_like(errors.double()),
            objective=total,
            explained=explained,
            samples=len(errors),
            rotations=1,
            group="so3",
            allowed=None,
        )

    def check(self, model: nn.Module) -> None:
        pass

    def baselines(self) -> dict[str, float]:
        return {"zero": ToyTask().baseline(self.split)}


class FakeTime:
    """A clock's ``now`` that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class SlowTask(ToyTask):
    """The toy task on a fake time: assembling a batch takes ``data`` seconds, the objective
    ``train``."""

    name = "slow-toy"

    def __init__(self, time: FakeTime, data: float, train: float) -> None:
        self.time, self.data, self.train = time, data, train

    def assemble(self, batch: Batch, noise: Batch, requires: Mapping[str, float]) -> Any:
        self.time.advance(self.data)
        return super().assemble(batch, noise, requires)

    def objective(self, outputs: Batch, targets: Batch, inputs: Batch) -> Tensor:
        self.time.advance(self.train)
        return super().objective(outputs, targets, inputs)


RECIPE = Recipe(
    learning_rate=1e-2, batch_size=8, augmentation="haar", warmup_steps=5, clip_norm=1.0
)
JOB = Job(
    pair="toy-cross/toys",
    arm="augmented",
    request=RunRequest(preset="dev", out="results"),
    budget="20steps",
    seed=0,
    run_id="dev-seed0",
    created="2026-01-01T00:00:00+00:00",
    command="equivbench run toy-cross/toys",
    state_dir="state",
)


def declared(task: Task, recipe: Recipe, symmetry: Symmetry = "none") -> ResolvedArm:
    """The declarations of an arm that trains the toy network."""
    arm = ArmSpec("augmented", "toy-net", {"dev": ArmPreset({}, recipe)})
    preset = PairPreset("toy", "20steps", rungs=2)
    pair = PairSpec(
        "toys", task.name, "toys", (arm,), MatchSpec("nothing", "none"), {"dev": preset}
    )
    return ResolvedArm(
        pair=pair,
        pair_preset=preset,
        arm=arm,
        spec=ModelSpec("toy-net", task.name, symmetry, lambda config: ToyNet()),
        config={},
        recipe=recipe,
        variant={},
        task=task,
    )


def toy_trainer(
    budget: str = "40steps",
    *,
    folder: Path | None = None,
    seed: int = 0,
    task: Task | None = None,
    model: nn.Module | None = None,
    split: Any = None,
    evaluators: tuple[ArmEvaluator, ArmEvaluator] | None = None,
    symmetry: Symmetry = "none",
    clock: Clock | None = None,
    rungs: int = 2,
    traced: bool = True,
    spend: Callable[[], None] = lambda: None,
    snapshots: bool = False,
    **recipe: Any,
) -> Trainer:
    """A trainer of the toy network; recipe fields by keyword. ``evaluators``: of the test set and
    the part of it that is read on the way."""
    whole, part = evaluators or (
        ToyEvaluator(ToySplit(16, 2), spend),
        ToyEvaluator(ToySplit(8, 3), spend),
    )
    seed_global(seed, "init")
    model = ToyNet() if model is None else model
    chosen = dataclasses.replace(RECIPE, **recipe)
    arm = Arm(
        declared=declared(task or ToyTask(), chosen, symmetry),
        card=Card("toy", "1", "0" * 64, {"train": 20, "validation": 2, "test": 60}),
        split=split or ToySplit(20, 1),
        model=model,
        module=model,
        recipe=chosen,
        evaluator=whole,
        part_evaluator=part,
        further_evaluators=lambda: {
            "further": part if evaluators else ToyEvaluator(ToySplit(8, 4))
        },
        device=torch.device("cpu"),
        evaluated_at_once=16,
    )
    return Trainer(
        arm,
        Budget.parse(budget),
        rungs=rungs,
        traced=traced,
        seed=seed,
        clock=clock or Clock(),
        job=msgspec.to_builtins(JOB),
        identity={"model": "toy"},
        folder=folder,
        snapshots=snapshots,
    )


def judged_weights(trainer: Trainer, *, part: bool = False) -> list[Tensor]:
    """The first parameter as it was at each evaluation of a toy trainer, on the test set or the
    part of it that is read on the way."""
    evaluator = trainer.arm.part_evaluator if part else trainer.arm.evaluator
    assert isinstance(evaluator, ToyEvaluator)
    return evaluator.weights


def total(point: TracePoint | Rung) -> float:
    """The board metric of one evaluation on the way."""
    assert point.test.total is not None
    return point.test.total


def keeper_of(trainer: Trainer) -> Keeper:
    """What keeps a trainer that was given a folder."""
    assert trainer.keeper is not None
    return trainer.keeper


def record_at_end(trainer: Trainer) -> RunRecord:
    """The record of a completed run, measured as quickly as possible."""
    return make_record(JOB, trainer, [], None, inference_seconds=0.0)


def record_so_far(trainer: Trainer) -> RunRecord:
    """The record of a run that is stopped here."""
    return make_record(JOB, trainer, [], None, interrupted=True)


def run_and_kill(trainer: Trainer, step: int) -> None:
    """Train and die at ``step``: nothing in the loop handles the exception, so nothing is saved on
    the way out."""
    real = trainer.step

    def step_or_die(clock: Clock, rate_factor: float = 1.0) -> None:
        if trainer.facts.step == step:
            raise KeyboardInterrupt
        real(clock, rate_factor)

    trainer.step = step_or_die  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.train_slice(1e9)
