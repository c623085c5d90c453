"""The further arms of ``forcefield/vector``: which of them are equivariant, which are not, and what
each has of the plain arm and of the equivariant one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dev_jobs import dev_job
from molecules import inputs_for, molecules
from torch import Tensor, nn

import equivbench as eb
from equivbench.specs import PRESETS
from equivbench.tasks.forcefield.networks.relaxed import build
from equivbench.tasks.forcefield.pairs import VECTOR
from equivbench.training.arm import resolve_arm

IN_FRAMES = ("frames", "stochastic-frames", "canonical")
PENALISED = ("symmetry-loss", "equigrad")
FREE = ("augmented", *PENALISED, "relaxed")


def module_of(folder: Path, arm: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """The untrained module of the arm, and molecules as its inputs."""
    declared = resolve_arm(dev_job(folder, "forcefield/vector", arm))
    model = declared.build_model(0)
    return declared.wrapped(model), inputs_for(model, molecules(torch.float32))


def check(module: nn.Module, inputs: dict[str, Tensor], group: str = "so3") -> None:
    eb.assert_equivariant(
        module,
        inputs,
        {"pos": "1o"},
        {"forces": "1o", "energy": "0e"},
        group=group,  # type: ignore[arg-type]
    )


def test_the_arms_are_those_that_are_looked_at_here() -> None:
    assert {arm.name for arm in VECTOR.arms} == {"equivariant", *IN_FRAMES, *FREE}
    assert [arm.name for arm in VECTOR.contestants] == ["equivariant", "augmented"]


@pytest.mark.parametrize("arm", ["equivariant", *IN_FRAMES])
def test_arms_in_frames_are_equivariant_under_rotations(tmp_path: Path, arm: str) -> None:
    check(*module_of(tmp_path, arm))


@pytest.mark.parametrize("arm", IN_FRAMES)
def test_arms_in_frames_are_not_under_reflections(tmp_path: Path, arm: str) -> None:
    """Their frames are proper."""
    with pytest.raises(AssertionError, match="with proper rotations, and not with reflections"):
        check(*module_of(tmp_path, arm), group="o3")


@pytest.mark.parametrize("arm", FREE)
def test_the_others_are_not(tmp_path: Path, arm: str) -> None:
    with pytest.raises(AssertionError, match="forces"):
        check(*module_of(tmp_path, arm))


@pytest.mark.parametrize("preset", PRESETS)
def test_arms_of_the_plain_trunk_are_the_augmented_arm_but_for_what_they_are_named_for(
    preset: str,
) -> None:
    plain = VECTOR.arm("augmented").presets[preset]
    for name in (*IN_FRAMES, *PENALISED):
        arm = VECTOR.arm(name)
        recipe = arm.presets[preset].recipe
        assert (arm.model, arm.presets[preset].config) == ("plain-vectors", plain.config)
        assert (recipe.learning_rate, recipe.batch_size) == (
            plain.recipe.learning_rate,
            plain.recipe.batch_size,
        )
        assert recipe.augmentation == ("haar" if name in PENALISED else "none")
        assert recipe.tuned_at is None
        assert (recipe.symmetry_loss > 0) == (name in PENALISED)
        assert arm.wrapper == (None if name in PENALISED else name)


def test_without_relaxation_the_relaxed_network_is_equivariant() -> None:
    torch.manual_seed(0)
    model = build({**VECTOR.arm("relaxed").presets["dev"].config, "relaxation": 0.0})
    check(model, inputs_for(model, molecules(torch.float32)), group="o3")
