"""Landscapes on a denoising task whose every Hessian is known, and on a network's, where only what
must hold does."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_task import Central, Clouds, Raw, clouds

from equivbench.errors import FailedError, UsageError
from equivbench.specs import Field
from equivbench.studies.landscape import analysis as landscape_draws
from equivbench.studies.landscape.analysis import Draws, DrawSize
from equivbench.studies.landscape.measuring import (
    DRAWS,
    FIXED,
    REPEAT,
    measure_landscape,
    natural_radius,
)
from equivbench.studies.run import FixedLoss
from equivbench.tasks.base import Task

SIGMA = 0.8
ROUNDING = 1e-10


class Denoise(Task):
    """Find x from x + SIGMA n."""

    name = "toy-denoise"
    fields = (
        Field("x", ("samples", 3), "float32", "1o", "graph", "1", "output"),
        Field("n", ("samples", 3), "float32", "1o", "graph", "1", "noise"),
        Field("a", ("samples", 3), "float32", "1o", "graph", "1", "derived"),
    )
    prediction = "x"
    index_field = None
    board_unit = "1"

    def noise(self, batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        return {"n": torch.randn(batch["x"].shape, generator=generator)}

    def assemble(
        self,
        batch: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        requires: Mapping[str, float],
    ) -> Any:
        return {"a": batch["x"] + SIGMA * noise["n"]}, {"x": batch["x"]}

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return (outputs["x"] - targets["x"]).square().sum(1).mean()

    def samples_in(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["x"])

    def baseline(self, split: Any) -> float:
        return 3.0


class Points:
    """Normal points, each a group of its own."""

    def __init__(self, count: int) -> None:
        self.x = torch.randn(count, 3, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self))

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[indices]}


class Matrix(nn.Module):
    """p = A a: nine parameters, of which one combination, the trace, respects the symmetry."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.double())

    def forward(self, a: Tensor) -> dict[str, Tensor]:
        return {"x": a @ self.matrix.T}


OPTIMUM = torch.eye(3) / (1 + SIGMA**2)


def denoising(samples: int, rotations: int, seed: int = 0) -> Any:
    make = functools.partial(
        FixedLoss, Denoise(), Points(400), requires={}, group="octahedral", precision="float64"
    )
    draws = Draws(make, seed)
    return lambda index: draws.draw(index, DrawSize(samples, rotations, 9))


def power(loss: FixedLoss) -> float:
    """Mean |a|^2 of the noisy inputs."""
    (draw, *_) = loss.chunks[0].draws
    return float(draw.inputs["a"].square().sum(1).mean())


def test_the_hessians_are_those_in_closed_form() -> None:
    # Over the whole cube group the mean of a a^T is |a|^2 / 3, and the twirl of A is trace(A) / 3:
    # the total error curves by c = 2/3 <|a|^2> in all nine directions, the twirled one along the
    # identity alone, the equivariance error in the other eight.
    draw = denoising(samples=12, rotations=24)
    found = measure_landscape(
        Matrix(OPTIMUM + 0.1 * torch.diag(torch.tensor([1.0, -1, 0]))),
        draw,
        along="twirled",
        points=6,
    )
    c, again = 2 / 3 * power(draw(FIXED)), 2 / 3 * power(draw(REPEAT))
    assert c != again
    known = {"total": (c, c, 9 * c), "twirled": (c, 0, c), "equivariance": (c, 0, 8 * c)}
    for part, (largest, smallest, trace) in known.items():
        shape = found.shapes[part]
        assert shape.spectrum is not None
        assert shape.trace is not None
        assert shape.again is not None
        assert shape.spectrum.largest[0] == pytest.approx(largest, rel=ROUNDING)
        assert shape.spectrum.smallest[0] == pytest.approx(smallest, rel=ROUNDING, abs=ROUNDING)
        assert shape.again[0][0] == pytest.approx(largest * again / c, rel=ROUNDING)
        value, error = shape.trace
        assert (
            abs(value - trace) <= 5 * error + ROUNDING
        )  # 8 probes: Student's t of 5 is one in 600
    twirled = found.shapes["twirled"]
    assert twirled.spectrum is not None
    np.testing.assert_allclose(
        np.abs(twirled.spectrum.vectors[0]), np.eye(3).reshape(-1) / np.sqrt(3), atol=1e-8
    )
    # In the plane of the identity and one other direction: each part in one of them, the total in
    # both.
    np.testing.assert_allclose(found.shapes["total"].fit.curvatures, (c, c), rtol=1e-8)
    np.testing.assert_allclose(twirled.fit.curvatures, (c, 0), rtol=1e-8, atol=1e-8)
    assert found.shapes["total"].fit.condition == pytest.approx(1, rel=1e-7)
    for shape in found.shapes.values():
        assert shape.fit.r2 == pytest.approx(1, abs=1e-9)


def test_fixed_draws_are_smooth_near_a_minimum_and_fresh_ones_are_not() -> None:
    found = measure_landscape(
        Matrix(OPTIMUM), denoising(samples=4, rotations=2), along="total", points=9
    )
    for part in ("total", "twirled"):
        shape = found.shapes[part]
        assert shape.fit.r2 is not None
        assert shape.fresh_r2 is not None
        assert shape.fit.r2 >= 0.9
        assert (
            shape.fresh_r2 < 0.5
        )  # four points and their noise make the error uncertain by half of itself


def test_enough_samples_repeat() -> None:
    found = measure_landscape(
        Matrix(OPTIMUM), denoising(samples=200, rotations=4), along="total", points=6
    )
    repeated = found.shapes["total"].repeated
    assert repeated is not None
    assert (
        repeated > 0.9
    )  # 200 samples leave noise of some 5% on the minimum's place, in units of the radius


def of_clouds(count: int, seed: int = 0) -> Draws:
    split = clouds(count, points=4)
    return Draws(functools.partial(FixedLoss, Clouds(), split, requires={}), seed)


def measured(model: nn.Module, **options: Any) -> Any:
    draws = of_clouds(16, options.pop("draws_seed", 0))
    return measure_landscape(
        model,
        lambda index: draws.draw(index, DrawSize(4, 2, 6)),
        points=6,
        rounding=1e-9,
        **options,
    )


def test_the_same_seed_is_identical_and_leaves_no_trace() -> None:
    model = Raw(points=4, width=8)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second, other = measured(model), measured(model), measured(model, draws_seed=1)
    for part in ("total", "twirled", "equivariance"):
        assert np.array_equal(first.grids[part], second.grids[part])
        assert not np.array_equal(first.grids[part], other.grids[part])
        shapes = first.shapes[part], second.shapes[part]
        assert np.array_equal(shapes[0].spectrum.vectors, shapes[1].spectrum.vectors)
        assert [(each.trace, each.fit, each.fresh_r2, each.repeated) for each in shapes[:1]] == [
            (each.trace, each.fit, each.fresh_r2, each.repeated) for each in shapes[1:]
        ]
    np.testing.assert_allclose(
        first.grids["total"], first.grids["twirled"] + first.grids["equivariance"], rtol=1e-12
    )
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_dropout_is_off() -> None:
    plain, dropped = Raw(points=4, width=8), Raw(points=4, width=8)
    dropped.layers = nn.Sequential(
        dropped.layers[0], dropped.layers[1], nn.Dropout(0.5), dropped.layers[2]
    )
    dropped.train()
    assert np.array_equal(measured(plain).grids["total"], measured(dropped).grids["total"])


def test_chosen_layers_alone_are_varied() -> None:
    model = Raw(points=4, width=8)
    assert measured(model, layers="layers.2.*", repeat=False).size == 8 * 12 + 12
    with pytest.raises(UsageError, match=r"did you mean layers\.2\."):
        measured(model, layers="layer2.*")


def test_an_equivariant_models_equivariance_error_is_rounding_and_has_no_hessian() -> None:
    model = Central(points=4, width=8)
    shape = measured(model).shapes["equivariance"]
    assert (shape.spectrum, shape.trace, shape.again, shape.fresh_r2, shape.repeated) == (
        None,
        None,
        None,
        None,
        None,
    )
    with pytest.raises(UsageError, match="rounding alone"):
        measured(model, along="equivariance")


def test_without_a_repeat_one_draw_is_all() -> None:
    asked = []
    draws = of_clouds(16)

    def draw(index: int) -> FixedLoss:
        asked.append(index)
        return draws.draw(index, DrawSize(4, 2, 6))

    found = measure_landscape(Raw(points=4, width=8), draw, points=6, repeat=False)
    assert asked == [FIXED]
    assert all(
        (shape.again, shape.fresh_r2, shape.repeated) == (None, None, None)
        for shape in found.shapes.values()
    )


def test_the_natural_radius_changes_the_error_by_half() -> None:
    radius = natural_radius(3.0, -6.0, np.ones(100))
    assert 6.0 * radius**2 / 2 == pytest.approx(1.5)
    assert natural_radius(3.0, 0.0, np.ones(100)) == natural_radius(3.0, 1e-9, np.ones(100)) == 10


def test_a_slice_that_is_not_finite_is_said_and_the_weights_are_put_back() -> None:
    model = Matrix(OPTIMUM)
    with pytest.raises(FailedError, match="smaller --radius"):
        measure_landscape(model, denoising(4, 2), points=6, radius=1e200, repeat=False)
    assert torch.equal(model.matrix.detach(), OPTIMUM.double())


class Valley(Matrix):
    """Flat to second order in its first parameter, steep to fourth: p = A a + (A_00 - 1)^2 c a."""

    def forward(self, a: Tensor) -> dict[str, Tensor]:
        return {"x": (self.matrix[1, 1] + 10 * (self.matrix[0, 0] - OPTIMUM[0, 0]) ** 2) * a}


def test_a_slice_does_not_reach_beyond_what_curvature_describes() -> None:
    model, draw = Valley(OPTIMUM), denoising(100, 4)
    found = measure_landscape(model, draw, layers="matrix", points=7, repeat=False)
    value = found.shapes["total"].value
    for row in (found.grids["total"][3], found.grids["total"][:, 3]):
        assert np.abs(row - value).max() <= value
    # Without curvature the length of the weights would be the radius, and ten of them squared the
    # factor of a.
    assert found.plane.axes[1][-1] < float(OPTIMUM.norm()) / 2


@pytest.mark.parametrize(
    "options", [{"points": 5}, {"points": 32}, {"radius": 0.0}, {"radius": float("nan")}]
)
def test_numbers_that_do_not_fit_are_refused_before_any_work(options: dict[str, Any]) -> None:
    def draw(index: int) -> FixedLoss:
        raise AssertionError("it began")

    with pytest.raises(UsageError, match=r"points along each axis|positive number"):
        measure_landscape(Matrix(OPTIMUM), draw, **options)


def test_what_is_affordable_is_counted_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape_draws, "WORK", 1e6)
    draws = of_clouds(400)

    def size(width: int) -> DrawSize:
        return draws.affordable(Raw(points=4, width=width), 400)

    # Products with matrices of 16 by w and of w by 12: 56 w operations for each sample and
    # rotation.
    assert size(100) == DrawSize(samples=int(1e6 // (4 * 5_600)), rotations=4, points=11)
    assert size(8) == DrawSize(samples=400, rotations=4, points=11)
    assert size(8_000) == DrawSize(samples=1, rotations=4, points=11)
    assert size(16_000) == DrawSize(samples=1, rotations=2, points=11)
    assert size(32_000) == DrawSize(samples=1, rotations=2, points=9)


def test_seeds_share_no_draw() -> None:
    numbers = [seed * DRAWS + index for seed in range(3) for index in range(DRAWS)]
    assert len(set(numbers)) == len(numbers)
