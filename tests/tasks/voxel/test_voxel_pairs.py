"""The declared voxel pairs are what their statements say."""

from dataclasses import replace

import pytest
import torch

from equivbench.budget import Budget
from equivbench.registry import resolve
from equivbench.specs import PRESETS
from equivbench.tasks.voxel.declarations import DATASETS, MODELS
from equivbench.tasks.voxel.pairs import OCTAHEDRAL, PAIRS

EACH = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])
SPECS = {model.name: model for model in MODELS}


def parameters(arm, preset: str) -> int:
    config = arm.presets[preset].config
    build = resolve(SPECS[arm.model].build)
    # e3nn builds its tables on the CPU; the largest plain networks need no memory here.
    with torch.device("meta" if arm.model == "unet" else "cpu"):
        return sum(parameter.numel() for parameter in build(config).parameters())


@EACH
def test_every_preset_is_complete(pair) -> None:
    assert tuple(pair.presets) == PRESETS
    for name, preset in pair.presets.items():
        assert preset.dataset in {dataset.name for dataset in DATASETS}
        Budget.parse(preset.budget)
        assert all(name in arm.presets for arm in pair.arms)


@EACH
def test_the_contestants_differ_in_symmetry_and_augmentation_only(pair) -> None:
    equivariant, augmented = pair.contestants
    assert (
        SPECS[equivariant.model].symmetry
        == {"octahedral": "octahedral", "steerable": "so3"}[pair.name]
    )
    assert SPECS[augmented.model].symmetry == "none"
    for preset in PRESETS:
        first, second = equivariant.presets[preset].recipe, augmented.presets[preset].recipe
        assert (first.augmentation, second.augmentation) == ("none", "haar")
        tuned = {"learning_rate", "batch_size", "augmentation", "tuned_at", "tuning_log_sha256"}
        assert replace(first, **{name: getattr(second, name) for name in tuned}) == second
        assert (
            pair.presets[preset].group
            == {"octahedral": "octahedral", "steerable": "so3"}[pair.name]
        )


@EACH
@pytest.mark.parametrize("preset", ["dev", "small", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_statement_gives_the_parameters_that_are_built(pair, preset) -> None:
    stated = pair.matching.measured[preset]
    matched = [arm for arm in pair.arms if f"{arm.name} parameters" in stated]
    assert matched[:2] == list(pair.contestants)
    for arm in matched:
        assert stated[f"{arm.name} parameters"] == parameters(arm, preset), arm.name


def test_the_third_arm_has_the_equivariant_arm_s_parameters() -> None:
    for stated in OCTAHEDRAL.matching.measured.values():
        assert (
            abs(stated["parameter-matched parameters"] / stated["equivariant parameters"] - 1)
            < 0.15
        )
