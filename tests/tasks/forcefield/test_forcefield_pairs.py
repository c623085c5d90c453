"""The declared pairs are what their statements say."""

from dataclasses import replace

import pytest

from equivbench.budget import Budget
from equivbench.registry import DATASETS, MODELS, resolve
from equivbench.specs import PRESETS
from equivbench.tasks.forcefield.pairs import PAIRS, SO2_CONVOLUTION, TIED_HEAD, VECTOR

EACH = pytest.mark.parametrize("pair", PAIRS, ids=[pair.name for pair in PAIRS])


def parameters(pair_arm, preset: str) -> int:
    return sum(
        p.numel()
        for p in resolve(MODELS.get(pair_arm.model).build)(
            pair_arm.presets[preset].config
        ).parameters()
    )


@EACH
def test_every_preset_is_complete(pair) -> None:
    assert tuple(pair.presets) == PRESETS
    for name, preset in pair.presets.items():
        assert DATASETS.get(preset.dataset).task == pair.task
        Budget.parse(preset.budget)
        assert all(name in arm.presets for arm in pair.arms)


@EACH
def test_the_contestants_come_first_and_differ_in_symmetry_and_augmentation_only(pair) -> None:
    equivariant, augmented = pair.arms[:2]
    assert (equivariant.name, augmented.name) == ("equivariant", "augmented")
    symmetry = MODELS.get(equivariant.model).symmetry
    assert symmetry in ("o3", "so3", "octahedral")
    # Frames of the cube are not all frames: both arms see rotated samples.
    trained = "haar" if symmetry == "octahedral" else "none"
    assert MODELS.get(augmented.model).symmetry == "none"
    for preset in PRESETS:
        first, second = equivariant.presets[preset].recipe, augmented.presets[preset].recipe
        assert (first.augmentation, second.augmentation) == (trained, "haar")
        tuned = {"learning_rate", "batch_size", "augmentation", "tuned_at", "tuning_log_sha256"}
        assert replace(first, **{name: getattr(second, name) for name in tuned}) == second


@EACH
def test_the_statement_gives_the_parameters_that_are_built(pair) -> None:
    for preset in PRESETS:
        stated = pair.matching.measured[preset]
        for arm in pair.arms[:2]:
            assert stated[f"{arm.name} parameters"] == parameters(arm, preset), (preset, arm.name)


@pytest.mark.parametrize(
    "pair", [VECTOR, TIED_HEAD, SO2_CONVOLUTION], ids=["vector", "tied-head", "so2-convolution"]
)
def test_parameters_agree_within_the_stated_15_percent(pair) -> None:
    for preset in PRESETS:
        first, second = (parameters(arm, preset) for arm in pair.arms[:2])
        assert abs(first / second - 1) < 0.15


def test_only_two_rows_differ_in_tied_head() -> None:
    for preset in PRESETS:
        first, second = (parameters(arm, preset) for arm in TIED_HEAD.arms)
        assert second - first == 2 * TIED_HEAD.arms[0].presets[preset].config["hidden"]
