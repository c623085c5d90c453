"""A pair at another size: widths multiplied and rounded to what the network needs, everything else
as declared."""

import pytest

from equivbench.errors import UsageError
from equivbench.registry import MODELS, resolve
from equivbench.specs import PRESETS, ArmPreset, ArmSpec, Recipe
from equivbench.tasks.forcefield.pairs import PAIRS

ARMS = [pytest.param(arm, id=f"{pair.name}-{arm.name}") for pair in PAIRS for arm in pair.arms]


def arm(widths, **config) -> ArmSpec:
    return ArmSpec("toy", "toy", {"dev": ArmPreset(config, Recipe(1e-3, 8, "none"))}, None, widths)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0.5, 16), (1.5, 48), (0.6, 20), (0.01, 4), (2, 64), (0.5625, 20)],
    ids=["half", "more", "rounded", "at least one", "twice", "a tie goes up"],
)
def test_a_width_is_rounded_to_a_multiple_of_what_it_needs(factor: float, expected: int) -> None:
    assert arm({"width": "heads"}, width=32, heads=4, layers=2).resized("dev", factor) == {
        "width": expected
    }


def test_a_list_of_widths_is_multiplied_one_by_one_and_keeps_its_kind() -> None:
    assert arm({"channels": 4}, channels=(32, 16, 8)).resized("dev", 0.5) == {
        "channels": (16, 8, 4)
    }


def test_at_factor_one_nothing_changes() -> None:
    assert arm({"width": 8}, width=30).resized("dev", 1) == {}


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_positive(factor: float) -> None:
    with pytest.raises(UsageError, match="positive"):
        arm({"width": 1}, width=8).resized("dev", factor)


def test_an_arm_without_widths_has_one_size() -> None:
    with pytest.raises(UsageError, match="widths"):
        arm({}, width=8).resized("dev", 2)


@pytest.mark.parametrize("each", ARMS)
def test_declared_widths_are_in_every_preset_and_set_the_size(each: ArmSpec) -> None:
    build = resolve(MODELS.get(each.model).build)
    for preset in PRESETS:
        assert set(each.widths) <= set(each.presets[preset].config)
    config = each.presets["dev"].config
    counts = [
        sum(
            parameter.numel()
            for parameter in build({**config, **each.resized("dev", factor)}).parameters()
        )
        for factor in (0.5, 1, 2)
    ]
    assert counts == sorted(set(counts))
