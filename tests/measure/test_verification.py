"""Verification of a symmetry: networks whose symmetry is known, the cost of it, grids."""

import math

import pytest
import torch
from known_symmetries import ANSWERS
from torch import Tensor, nn
from toy_task import Central, Clouds, Raw, clouds

import equivbench as eb
from equivbench.measure.evaluator import Evaluator
from equivbench.symmetry.wrappers import wrap

TASK = Clouds()


@pytest.mark.parametrize("name", ANSWERS)
def test_known_answers(name: str) -> None:
    answer, split = ANSWERS[name], clouds(60)
    for group, holds in (("so3", answer.so3), ("o3", answer.o3)):
        verdict = eb.measure_equivariance(
            answer.build(), TASK, split=split, rotations=2, group=group
        ).verdict
        assert verdict is not None
        assert verdict.holds is holds, verdict.reason
    assert answer.says in verdict.reason


def test_the_verdict_is_on_what_is_declared_whatever_is_measured() -> None:
    split, cross, raw = clouds(60), ANSWERS["cross product"].build(), Raw()
    cube = wrap("twirl-octahedral", raw, TASK.fields, TASK.index_field)
    for model, group, symmetry, holds in (
        (cross, "so3", "o3", False),
        (cross, "octahedral", "so3", True),
        (raw, "octahedral", "so3", False),
        (cube, "octahedral", "octahedral", True),
        (cube, "so3", "octahedral", True),
        (cube, "octahedral", "so3", False),
        (raw, "so3", "octahedral", False),
    ):
        r = eb.measure_equivariance(
            model, TASK, split=split, rotations=2, group=group, symmetry=symmetry
        )
        assert r.verdict is not None
        assert r.verdict.holds is holds, (group, symmetry, r.verdict.reason)
        assert f"under {symmetry}" in r.verdict.reason


def test_the_floor_of_coordinates_that_move_is_what_float32_leaves() -> None:
    r = eb.measure_equivariance(ANSWERS["residual"].build(), TASK, split=clouds(100))
    assert r.floor is not None
    assert r.floor == pytest.approx(r.share, rel=0.5)
    assert r.at_floor


@pytest.mark.parametrize("rotations", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_measurement_costs_at_most_a_fifth_more_than_its_rotations(
    rotations: int, dtype: torch.dtype
) -> None:
    class Counting(Central):
        passed = 0

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            Counting.passed += len(pos)
            return super().forward(z, pos, batch)

    split = clouds(150)
    r = eb.measure_equivariance(Counting().to(dtype), TASK, split=split, rotations=rotations)
    assert r.verdict is not None
    assert r.verdict.holds
    passes = Counting.passed / (6 * len(split))
    assert rotations < passes <= 1.2 * rotations


def test_what_few_probes_miss_is_looked_for_where_the_error_is() -> None:
    class Rare(Central):
        """Wrong for one cloud of two hundred."""

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            out = super().forward(z, pos, batch)["pull"]
            wrong = (z.reshape(-1, 6) == 0).all(1).repeat_interleave(6)
            return {"pull": torch.where(wrong[:, None], out + 1e-3, out)}

    split = clouds(200)
    split.z[123] = 0
    verdict = eb.measure_equivariance(Rare(), TASK, split=split).verdict
    assert verdict is not None
    assert verdict.holds is False


def test_samples_are_chosen() -> None:
    r = eb.measure_equivariance(Raw(), TASK, split=clouds(80), samples=20)
    assert r.group_weights.sum() == 20 * 6
    assert r.group_weights.tolist() == [6.0] * 20  # one of each group of four


def test_a_diverged_model_is_not_judged() -> None:
    class Diverged(Central):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": pos * math.nan}

    verdict = eb.measure_equivariance(Diverged(), TASK, split=clouds(10)).verdict
    assert verdict is not None
    assert (verdict.holds, "not finite" in verdict.reason) == (None, True)


def test_evaluations_without_a_floor_say_nothing() -> None:
    r = Evaluator(TASK, clouds(10), requires={}).evaluate(nn.Sequential(Raw())[0], floor=False)
    assert (r.floor, r.allowed, r.verdict) == (None, None, None)
    assert not r.at_floor
