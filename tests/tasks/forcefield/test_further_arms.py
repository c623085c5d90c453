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
from equivbench.registry import MODELS, resolve
from equivbench.specs import PRESETS
from equivbench.tasks.forcefield.networks.relaxed import build
from equivbench.tasks.forcefield.pairs import VECTOR
from equivbench.training.arm import resolve_arm

IN_FRAMES = ("frames", "stochastic-frames", "canonical")
PENALISED = ("symmetry-loss", "equigrad")
FREE = ("augmented", *PENALISED, "relaxed")
DEV = VECTOR.arm("relaxed").presets["dev"].config


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


@pytest.mark.parametrize("preset", PRESETS)
def test_the_relaxed_arm_has_the_equivariant_arm_s_parameters(preset: str) -> None:
    def parameters(arm: str) -> int:
        spec, sized = VECTOR.arm(arm), VECTOR.arm(arm).presets[preset]
        network = resolve(MODELS.get(spec.model).build)(sized.config)
        return sum(each.numel() for each in network.parameters())

    # As near as the pair's own match is stated.
    assert abs(parameters("relaxed") / parameters("equivariant") - 1) < 0.15


def outputs_at(relaxation: float) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = build({**DEV, "relaxation": relaxation}).double()
    outputs = model(**inputs_for(model, molecules()))
    return {name: output.detach() for name, output in outputs.items()}


def test_what_is_added_to_painn_is_the_pathway_on_the_scale_of_the_relaxation() -> None:
    none, some, more = (outputs_at(relaxation) for relaxation in (0.0, 0.1, 0.3))
    for name, without in none.items():
        # Float64 numbers of order one.
        torch.testing.assert_close(
            3 * (some[name] - without), more[name] - without, rtol=0, atol=1e-12
        )
        assert float((some[name] - without).abs().max()) > 1e-4


def test_without_relaxation_it_is_painn() -> None:
    torch.manual_seed(0)
    model = build({**DEV, "relaxation": 0.0})
    inputs = inputs_for(model, molecules(torch.float32))
    check(model, inputs, group="o3")
    for name, output in model.equivariant(**inputs).items():
        assert torch.equal(output, model(**inputs)[name])


def test_both_parts_see_the_same_neighbours() -> None:
    model = build(DEV)
    assert model.requires == model.equivariant.requires == model.free.requires
