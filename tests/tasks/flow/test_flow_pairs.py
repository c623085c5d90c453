"""The flow pairs are what their statements say."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from equivbench.budget import Budget
from equivbench.registry import resolve
from equivbench.specs import PRESETS, ArmSpec
from equivbench.tasks.flow.declarations import DATASETS, MODELS
from equivbench.tasks.flow.pairs import PAIRS, VECTOR_HEAD

EACH = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
SPECS = {spec.name: spec for spec in MODELS}


def build(arm: ArmSpec, preset: str) -> torch.nn.Module:
    """The network without memory behind its weights."""
    return _built(arm.model, preset)


@cache
def _built(name: str, preset: str) -> torch.nn.Module:
    arm = next(arm for pair in PAIRS for arm in pair.arms if arm.model == name)
    with torch.device("meta"):
        model: torch.nn.Module = resolve(SPECS[name].build)(arm.presets[preset].config)
    return model


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@EACH
def test_every_preset_is_complete(pair) -> None:
    assert tuple(pair.presets) == PRESETS
    for name, preset in pair.presets.items():
        assert preset.dataset in {spec.name for spec in DATASETS}
        Budget.parse(preset.budget)
        assert all(name in arm.presets for arm in pair.arms)


@EACH
def test_the_contestants_differ_in_symmetry_and_augmentation_only(pair) -> None:
    equivariant, augmented = pair.contestants
    assert (equivariant.name, augmented.name) == ("equivariant", "augmented")
    assert (SPECS[equivariant.model].symmetry, SPECS[augmented.model].symmetry) == ("so3", "none")
    for preset in PRESETS:
        first, second = equivariant.presets[preset].recipe, augmented.presets[preset].recipe
        assert (first.augmentation, second.augmentation) == ("none", "haar")
        tuned = {"learning_rate", "batch_size", "augmentation", "tuned_at", "tuning_log_sha256"}
        assert replace(first, **{name: getattr(second, name) for name in tuned}) == second
        configs = [arm.presets[preset].config for arm in pair.contestants]
        assert configs[0] == {**configs[0], **configs[1]}, (
            "every size that the plain network has is the equivariant one's too"
        )


@EACH
def test_the_statement_gives_the_parameters_that_are_built(pair) -> None:
    for preset in PRESETS:
        stated = pair.matching.measured[preset]
        for arm in pair.contestants:
            assert stated[f"{arm.name} parameters"] == parameters(build(arm, preset)), (
                preset,
                arm.name,
            )


def test_the_vector_heads_trunk_is_the_plain_networks() -> None:
    for preset in PRESETS:
        shapes = []
        for arm in VECTOR_HEAD.contestants:
            shapes.append(
                {
                    name: value.shape
                    for name, value in build(arm, preset).network.trunk.state_dict().items()
                }
            )
        assert shapes[0] == shapes[1]


@EACH
def test_paper_sizes_are_the_published_60_million_parameters(pair) -> None:
    for arm in pair.contestants:
        config = arm.presets["paper"].config
        assert (config["dim"], config["layers"], config["heads"], config["pair"]) == (
            512,
            10,
            8,
            256,
        )
        # 60M as published, to the figure given; frames carry their points on top.
        assert 55e6 < parameters(build(arm, "paper")) < 66e6
