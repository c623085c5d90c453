"""From a job to a trainer: names resolved, weights from the seed, the wrapper round the model, the
checkpoint found again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import torch
from torch import nn
from toy_training import ToyNet, ToySplit, ToyTask, record_at_end

from equivbench.errors import FailedError, UsageError
from equivbench.registry import PluginLoader, Registry
from equivbench.request import RunRequest
from equivbench.specs import (
    ArmPreset,
    ArmSpec,
    DatasetSpec,
    MatchSpec,
    ModelSpec,
    PairPreset,
    PairSpec,
    Recipe,
    TaskSpec,
)
from equivbench.symmetry.wrappers import Twirl
from equivbench.tasks.base import Card, TaskData
from equivbench.training import arm as resolving
from equivbench.training.arm import load_model
from equivbench.training.assembly import build_trainer
from equivbench.training.job import Job
from equivbench.training.loop import Trainer
from equivbench.training.record import make_record

RECIPE = Recipe(learning_rate=1e-2, batch_size=4, augmentation="haar", warmup_steps=2)


class OptionTask(ToyTask):
    name = "option-toy"
    options: ClassVar[dict[str, Any]] = {"sign": ("plain", "flipped")}

    def adapt(self, model: nn.Module, variant: Mapping[str, str]) -> nn.Module:
        return Flipped(model) if variant["sign"] == "flipped" else model


class Flipped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: -value for name, value in self.model(**inputs).items()}


class CrossNet(nn.Module):
    """Exactly equivariant: a learned multiple of the cross product."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.scale * torch.linalg.cross(a, b)}


class Source:
    def path(self) -> Path:
        return Path("option-toy")

    def prepare(self) -> Path:
        return self.path()

    def verify(self) -> str:
        return "a" * 64

    def load(self) -> TaskData:
        card = Card("option-toy", "1", "a" * 64, {"train": 20, "validation": 6, "test": 16})
        return TaskData(ToySplit(20, 1), ToySplit(6, 2), ToySplit(16, 3), card)


def arm(name: str, model: str, wrapper: str | None = None, **recipe: Any) -> ArmSpec:
    preset = ArmPreset(config={}, recipe=dataclasses.replace(RECIPE, **recipe))
    return ArmSpec(name, model, {"dev": preset}, wrapper)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = PairSpec(
        name="toys",
        task="option-toy",
        summary="two toys",
        arms=(
            arm("equivariant", "cross", augmentation="none"),
            arm("augmented", "plain"),
            arm("twirled", "plain", "twirl-2"),
            arm("liar", "lying"),
        ),
        matching=MatchSpec(what="nothing", target="none"),
        presets={"dev": PairPreset(dataset="option-toy", budget="12steps", rungs=2, rotations=2)},
    )
    tables: dict[str, list[Any]] = {
        "PAIRS": [pair],
        "TASKS": [TaskSpec("option-toy", "", OptionTask)],
        "DATASETS": [DatasetSpec("option-toy", "option-toy", "", Source)],
        "MODELS": [
            ModelSpec("plain", "option-toy", "none", lambda config: ToyNet()),
            ModelSpec("cross", "option-toy", "so3", lambda config: CrossNet()),
            ModelSpec("lying", "option-toy", "so3", lambda config: ToyNet()),
        ],
    }
    for table, values in tables.items():
        registry: Registry[Any] = Registry(table.lower()[:-1], type(values[0]), PluginLoader(()))
        for value in values:
            registry.add(value)
        monkeypatch.setattr(resolving, table, registry)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        pair="option-toy/toys",
        arm="augmented",
        request=RunRequest(preset="dev", out=str(tmp_path / "out")),
        budget="12steps",
        seed=3,
        run_id="dev-seed3",
        created="2026-01-01T00:00:00+00:00",
        command="",
        state_dir=str(tmp_path / "state"),
    )


def resumed(job: Job) -> Job:
    return msgspec.structs.replace(job, request=job.request.resuming())


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.arm.model.parameters()]


def test_a_job_survives_json(job: Job) -> None:
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


def test_initial_weights_are_a_function_of_the_seed(job: Job) -> None:
    torch.manual_seed(0)
    first = weights(build_trainer(job))
    torch.manual_seed(1)
    second = weights(build_trainer(job))
    other = weights(build_trainer(msgspec.structs.replace(job, seed=4)))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_building_is_on_the_clock_but_not_on_the_budget(job: Job) -> None:
    trainer = build_trainer(job)
    seconds = trainer.clock.seconds()
    assert seconds["evaluate"] > 0  # the test set is rotated and assembled once
    assert seconds["other"] > 0
    assert trainer.clock.spent == 0
    assert not trainer.clock.is_running


def test_a_whole_run_reports_what_it_is(job: Job) -> None:
    trainer = build_trainer(job)
    trainer.train_slice(1e9)
    record = make_record(job, trainer, [], None, inference_seconds=0.0)
    assert (record.model.name, record.model.symmetry, record.model.symmetry_verified) == (
        "plain",
        "none",
        None,
    )
    assert record.variant == {"sign": "plain"}
    assert record.dataset.sizes["train"] == 20
    assert [point.step for point in record.trace] == [1, 2, 5, 10]
    assert [rung.step for rung in record.rungs] == [3, 6, 12]
    assert record.final is not None
    assert record.final.floor is not None
    assert record.final.share is not None
    assert record.final.share > 1e-4


@pytest.mark.parametrize(("name", "verified"), [("equivariant", True), ("liar", False)])
def test_a_declared_symmetry_is_measured(job: Job, name: str, verified: bool) -> None:
    trainer = build_trainer(msgspec.structs.replace(job, arm=name))
    trainer.train_slice(1e9)
    record = make_record(job, trainer, [], None, interrupted=True)
    assert record.model.symmetry_verified is verified


def test_a_wrapped_arm_trains_the_plain_model_and_is_judged_wrapped(job: Job) -> None:
    trainer = build_trainer(msgspec.structs.replace(job, arm="twirled"))
    assert isinstance(trainer.arm.module, Twirl)
    assert isinstance(trainer.arm.model, ToyNet)
    trainer.train_slice(1e9)
    plain = build_trainer(msgspec.structs.replace(job, state_dir=job.state_dir + "2"))
    plain.train_slice(1e9)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer), weights(plain), strict=True))
    twirled, untwirled = (run.facts.final for run in (trainer, plain))
    assert twirled is not None
    assert untwirled is not None
    assert twirled.equivariance < untwirled.equivariance  # type: ignore[operator]
    # Averages of the model without its wrapper would be those of the plain arm.
    rates = [record_at_end(run).inference.twirl.keys() for run in (trainer, plain)]
    assert rates == [set(), {"2", "4", "8"}]


def test_resume_goes_on_and_without_it_the_run_starts_afresh(job: Job) -> None:
    trainer = build_trainer(job)
    trainer.train_slice(1e9)
    resume = resumed(job)
    assert build_trainer(resume).finished
    assert build_trainer(job).facts.step == 0
    assert build_trainer(resume).facts.step == 0


def test_an_extension_continues_a_finished_run_or_a_fresh_one(job: Job) -> None:
    build_trainer(job).train_slice(1e9)
    longer = msgspec.structs.replace(resumed(job), budget="24steps", extends="12steps")
    trainer = build_trainer(longer)
    assert (trainer.facts.step, trainer.finished, trainer.budget.text) == (10, False, "24steps")
    trainer.train_slice(1e9)
    fresh = build_trainer(
        msgspec.structs.replace(longer, request=job.request, state_dir=job.state_dir + "2")
    )
    fresh.train_slice(1e9)
    assert [(p.step, p.test) for p in fresh.trace] == [(p.step, p.test) for p in trainer.trace]
    assert [(r.budget, r.test) for r in fresh.facts.rungs] == [
        (r.budget, r.test) for r in trainer.facts.rungs
    ]
    assert [r.budget for r in fresh.facts.rungs] == [3, 6, 12, 24]
    assert make_record(longer, fresh, [], None, interrupted=True).budget.extends == 12
    assert build_trainer(longer).finished


def test_tune_overrides_the_recipe_and_judges_on_validation(job: Job) -> None:
    tuned = msgspec.structs.replace(
        job, recipe={"learning_rate": 0.5, "batch_size": 2}, split="validation"
    )
    trainer = build_trainer(tuned)
    assert (trainer.arm.recipe.learning_rate, trainer.arm.recipe.batch_size) == (0.5, 2)
    trainer.train_slice(1e9)
    make_record(tuned, trainer, [], None, inference_seconds=0.0)
    assert trainer.facts.trace == []
    (rung,) = trainer.facts.rungs
    assert rung.test.groups is not None
    assert len(rung.test.groups.weights) == 3  # the validation split's groups


def test_a_checkpoint_gives_its_model_back(job: Job) -> None:
    trainer = build_trainer(
        msgspec.structs.replace(job, arm="twirled", variant={"sign": "flipped"})
    )
    trainer.train_slice(1e9)
    path = trainer.save()
    model, task, found = load_model(path)
    assert (task.name, found.arm) == ("option-toy", "twirled")
    assert not model.training
    inputs, _ = trainer.batches.canonical(5)
    trainer.arm.module.eval()
    averaged, _, _ = load_model(path, weights="ema")
    with torch.no_grad():
        assert torch.equal(model(**inputs)["y"], trainer.arm.module(**inputs)["y"])
        with trainer.average.swapped_in():
            assert torch.equal(averaged(**inputs)["y"], trainer.arm.module(**inputs)["y"])
    with pytest.raises(FailedError, match="cannot read"):
        load_model(path.parent / "absent.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arm": "augmentd"}, "did you mean augmented"),
        (
            {"request": RunRequest(preset="tiny")},  # type: ignore[arg-type]
            "unknown preset of option-toy/toys 'tiny'",
        ),
        ({"pair": "option-toy/toy"}, "did you mean option-toy/toys"),
        ({"variant": {"sing": "plain"}}, "did you mean sign"),
        ({"variant": {"sign": "fliped"}}, "did you mean flipped"),
        ({"recipe": {"learning_rat": 1.0}}, "did you mean learning_rate"),
        ({"budget": "0s"}, "positive number of seconds"),
    ],
)
def test_unknown_names_are_usage_errors_with_the_close_matches(
    job: Job, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build_trainer(msgspec.structs.replace(job, **change))
    assert sentence in str(caught.value)


def test_another_recipe_does_not_go_on_from_this_ones_checkpoint(job: Job) -> None:
    build_trainer(job).train_slice(1e9)
    with pytest.raises(FailedError, match="differs in recipe"):
        build_trainer(msgspec.structs.replace(resumed(job), recipe={"learning_rate": 0.5}))


def test_a_job_may_depart_from_its_pair_in_data_size_and_name(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller = msgspec.structs.replace(job, fraction=0.5, labels={"sweep": "data", "value": "0.5"})
    trainer = build_trainer(smaller)
    assert 0 < len(trainer.arm.split) < 20
    trainer.train_slice(1e9)
    record = make_record(smaller, trainer, [], None, interrupted=True)
    assert record.dataset.sizes == {
        "train": len(trainer.arm.split),
        "validation": 6,
        "test": 16,
        "fraction": 500,
    }
    assert record.epochs == record.samples / len(trainer.arm.split)
    assert record.variant == {"sign": "plain", "sweep": "data", "value": "0.5"}
    with pytest.raises(UsageError, match="widht"):
        build_trainer(msgspec.structs.replace(job, config={"widht": 3}))


def test_other_data_or_labels_do_not_go_on_from_this_ones_checkpoint(job: Job) -> None:
    trainer = build_trainer(job)
    trainer.save()
    for change in ({"fraction": 0.5}, {"labels": {"sweep": "data", "value": "1"}}):
        with pytest.raises(FailedError):
            build_trainer(msgspec.structs.replace(resumed(job), **change))
