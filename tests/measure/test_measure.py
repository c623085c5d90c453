"""Measuring models: known shares, the floor, verified and false declarations."""

import math

import pytest
import torch
from torch import Tensor, nn
from toy_task import Broken, Central, Clouds, CloudSplit, Raw, clouds

import equivbench as eb
from equivbench.errors import UsageError
from equivbench.measure.elements import elements_for
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.measurement import Measurement
from equivbench.measure.rotated_set import spread
from equivbench.symmetry.wrappers import wrap

TASK = Clouds()


class Linear(nn.Module):
    """f(x_i) = A x_i."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": pos @ self.matrix.T}


def evaluator(split: CloudSplit, **options: object) -> Evaluator:
    return Evaluator(TASK, split, requires={}, **options)  # type: ignore[arg-type]


def held(r: Measurement) -> bool:
    """Whether the symmetry under the group that was measured was found to hold."""
    return r.verdict is not None and r.verdict.holds is True


def test_linear_model_has_its_closed_form_share() -> None:
    split = clouds(1500)
    matrix = torch.tensor([[0.2, 0.1, 0.0], [-0.1, -0.4, 0.3], [0.1, 0.0, 0.5]])
    r = measure_equivariance(Linear(matrix), TASK, split=split, rotations=4)
    batch = split.collate(torch.arange(1500))
    x, y = batch["pos"].double(), batch["pull"].double()
    twirl = float(matrix.trace()) / 3
    m = (twirl * x - y).square().sum(-1).mean()
    v = (matrix.double().square().sum() / 3 - twirl**2) * x.square().sum(-1).mean()
    error = float(r.group_equivariance.std()) / math.sqrt(len(r.group_equivariance))
    assert abs(r.equivariance - float(v)) < 5 * error
    error = float((r.group_total - r.group_equivariance).std()) / math.sqrt(len(r.group_total))
    assert abs(r.twirled - float(m)) < 5 * error
    assert r.total == pytest.approx(r.twirled + r.equivariance, rel=1e-12)
    assert r.share == pytest.approx(r.equivariance / r.total, rel=1e-12)
    low, high = r.interval(0.999)
    assert low < float(v / (m + v)) < high
    # Here the objective is the board metric itself; float32 errors are averaged in batches.
    assert r.objective == pytest.approx(r.total, rel=1e-5)
    assert r.explained == pytest.approx(1 - r.total / TASK.baseline(split), rel=1e-9)


def test_whole_cube_group_is_exact_and_a_cube_symmetric_model_sits_at_its_floor() -> None:
    split = clouds(70)
    exact = measure_equivariance(Raw(), TASK, split=split, rotations=24, group="octahedral")
    sampled = measure_equivariance(Raw(), TASK, split=split, rotations=8, group="octahedral")
    assert sampled.share == pytest.approx(exact.share, rel=0.2)  # 420 rows of 8 draws
    assert not held(exact)
    symmetric = wrap("twirl-octahedral", Raw(), TASK.fields, TASK.index_field)
    r = measure_equivariance(symmetric, TASK, split=split, rotations=24, group="octahedral")
    assert held(r)
    assert r.floor is not None
    assert 0 < r.floor < 1e-10
    double = measure_equivariance(
        symmetric.double(), TASK, split=split, rotations=24, group="octahedral"
    )
    assert held(double)
    assert double.floor is not None
    assert 0 < double.floor < 1e-25
    symmetric.float()
    assert not held(measure_equivariance(symmetric, TASK, split=split, group="so3"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_equivariant_network_held(dtype: torch.dtype) -> None:
    r = measure_equivariance(Central().to(dtype), TASK, split=clouds(100))
    assert r.floor is not None
    # eps^2 for float32 is 1.4e-14, for float64 4.9e-32; conditioning adds up to a few orders.
    assert 0 < r.floor < (1e-10 if dtype == torch.float32 else 1e-27)
    assert r.share > 0
    assert held(r)


@pytest.mark.parametrize("relative", [1e-3, 1e-4])
def test_a_false_declaration_is_found(relative: float) -> None:
    r = measure_equivariance(Broken(Central(), relative), TASK, split=clouds(100))
    assert not held(r)
    # By far: at 1e-3 the share is ~1e-7, the bound ~1e-11.
    assert r.share > 1e-10


@pytest.mark.parametrize("name", ["frames", "canonical"])
def test_frames_are_verified_in_float32(name: str) -> None:
    split = clouds(40)
    model = wrap(name, Raw(), TASK.fields, TASK.index_field)
    r = measure_equivariance(model, TASK, split=split)
    assert held(r)


def test_a_constant_prediction_has_share_zero_or_all() -> None:
    class Constant(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": torch.full_like(pos, self.value)}

    r = measure_equivariance(Constant(0.0), TASK, split=clouds(20))
    assert (r.share, r.floor, r.explained) == (0.0, 0.0, pytest.approx(0.0, abs=1e-12))
    assert r.at_floor
    assert not held(measure_equivariance(Constant(1.0), TASK, split=clouds(20)))


def test_bfloat16_floor_is_seen() -> None:
    r = evaluator(clouds(64), precision="bf16").evaluate(Central(), floor=True)
    # eps^2 of bfloat16 is 6e-5.
    assert r.floor is not None
    assert 1e-7 < r.floor < 1e-1
    assert held(r)


def test_by_splits_rows_into_strata() -> None:
    split = clouds(60)
    r = measure_equivariance(Raw(), TASK, split=split)
    assert list(r.by) == ["one", "two", "three"]
    rows = {
        name: int((split.z == kind).sum()) for name, kind in (("one", 1), ("two", 2), ("three", 3))
    }
    for quantity in ("total", "twirled", "equivariance"):
        mean = sum(getattr(part, quantity) * rows[name] for name, part in r.by.items()) / sum(
            rows.values()
        )
        assert mean == pytest.approx(getattr(r, quantity), rel=1e-12)
    for part in r.by.values():
        low, high = part.interval()
        assert low < part.share < high
        assert part.floor is not None
        assert part.floor > 0


def test_groups_are_means_that_add_up() -> None:
    split = clouds(50, per_group=7)
    r = evaluator(split).evaluate(Raw(), floor=False)
    assert r.group_weights.tolist() == [42.0] * 7 + [6.0]
    assert float((r.group_weights * r.group_total).sum() / r.group_weights.sum()) == pytest.approx(
        r.total, rel=1e-12
    )
    assert float(
        (r.group_weights * r.group_equivariance).sum() / r.group_weights.sum()
    ) == pytest.approx(r.equivariance, rel=1e-12)
    assert (r.floor, r.allowed) == (None, None)
    assert not held(r)


def test_masked_rows_do_not_count() -> None:
    class Masked(Clouds):
        def weights(self, batch: dict[str, Tensor]) -> Tensor:
            return (batch["z"] == 2).double()

    class Spoilt(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
            return {
                "pull": self.model(**inputs)["pull"].masked_fill(
                    (inputs["z"] != 2)[:, None], math.nan
                )
            }

    split = clouds(40)
    whole = measure_equivariance(Raw(), TASK, split=split)
    masked = measure_equivariance(Spoilt(Raw()), Masked(), split=split)
    for name in ("total", "twirled", "equivariance", "share", "floor"):
        assert getattr(masked, name) == pytest.approx(getattr(whole.by["two"], name), rel=1e-9)


def test_noise_is_drawn_once_and_rotates_with_its_sample() -> None:
    from equivbench.specs import Field

    class Noisy(Clouds):
        fields: tuple[Field, ...] = (  # type: ignore[assignment]
            *Clouds.fields,
            Field("push", ("points", 3), "float32", "1o", "node", "1", "noise"),
        )

        def noise(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
            return {"push": torch.randn(batch["pos"].shape, generator=generator)}

        def assemble(self, batch, noise, requires):
            inputs, _ = super().assemble(batch, noise, requires)
            return {**inputs, "push": noise["push"]}, {"pull": batch["pull"] + noise["push"]}

    class Follows(nn.Module):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor, push: Tensor) -> dict[str, Tensor]:
            return {"pull": push}

    split = clouds(30)
    r = measure_equivariance(Follows(), Noisy(), split=split)
    # Only float32 rounding of the rotated noise is left.
    assert r.share < 1e-13
    assert r.total == pytest.approx(TASK.baseline(split), rel=1e-6)


def test_equal_seeds_give_equal_measurements_and_modes_are_put_back() -> None:
    split = clouds(30)
    model = nn.Sequential(Raw())
    model.forward = model[0].forward  # type: ignore[method-assign]
    model[0].train()
    model[0].layers.eval()
    model.training = False
    first = evaluator(split).evaluate(model)
    assert model[0].training
    assert not model.training
    assert not model[0].layers.training
    assert evaluator(split).evaluate(model).to_record() == first.to_record()
    assert evaluator(split, seed=1).evaluate(model).share != first.share
    # Rotations belong to samples, not to batches.
    assert evaluator(split, batch_size=7).evaluate(model).share == pytest.approx(
        first.share, rel=1e-5
    )


def test_dropout_is_off() -> None:
    class Dropping(Raw):
        def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
            return {
                "pull": torch.nn.functional.dropout(
                    super().forward(**inputs)["pull"], 0.5, self.training
                )
            }

    assert (
        measure_equivariance(Dropping(), TASK, split=clouds(20)).share
        == measure_equivariance(Raw(), TASK, split=clouds(20)).share
    )


def test_inner_derivatives_work() -> None:
    class Conservative(nn.Module):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": -torch.func.grad(lambda p: (p.square().sum(1) ** 2).sum())(pos)}

    assert held(measure_equivariance(Conservative(), TASK, split=clouds(20)))


def test_a_diverged_model_gives_nulls_not_numbers() -> None:
    r = measure_equivariance(Linear(torch.full((3, 3), math.nan)), TASK, split=clouds(10))
    record = r.to_record()
    assert (record.total, record.share, record.objective, record.floor) == (None, None, None, None)
    assert math.isnan(r.total)
    assert not held(r)


def test_samples_are_spread_over_groups() -> None:
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 3])
    assert sorted(groups[spread(groups, 4)].tolist()) == [0, 1, 2, 3]
    assert sorted(groups[spread(groups, 7)].tolist()) == [0, 0, 1, 1, 2, 2, 3]
    assert len(set(groups[spread(groups, 2)].tolist())) == 2
    assert torch.equal(spread(groups, None), torch.arange(10))
    assert torch.equal(spread(groups, 99), torch.arange(10))
    assert (
        evaluator(clouds(40, per_group=4), samples=10).evaluate(Raw()).group_weights.tolist()
        == [6.0] * 10
    )


def test_draws_are_haar_or_different_ones_of_the_cube() -> None:
    haar = elements_for("so3", 3, 5, 0)
    assert haar.matrices.shape == (3, 5, 3, 3)
    assert haar.drawn_from is None
    cube = elements_for("octahedral", 30, 5, 0)
    assert cube.matrices.shape == (24, 5, 3, 3)
    assert cube.drawn_from == 24
    drawn = elements_for("octahedral", 4, 500, 0)
    assert drawn.drawn_from == 24
    some = drawn.matrices
    for sample in some.unbind(1)[:50]:
        assert len(torch.unique(sample, dim=0)) == 4
    elements, counts = torch.unique(some.flatten(0, 1), dim=0, return_counts=True)
    assert len(elements) == 24
    # Five standard deviations of 2,000 draws of one in 24.
    assert float((counts - 2000 / 24).abs().max()) < 5 * (2000 / 24) ** 0.5


@pytest.mark.usefixtures("unchecked_types")
def test_usage_errors_are_sentences() -> None:
    split = clouds(10)

    class Wrong(nn.Module):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> object:
            return {"energy": pos}

    class Flat(nn.Module):
        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> object:
            return {"pull": pos.sum()}

    class Other(nn.Module):
        def forward(self, coordinates: Tensor) -> object:
            return {"pull": coordinates}

    with pytest.raises(UsageError, match=r"outputs energy.*needs a mapping with 'pull'"):
        measure_equivariance(Wrong(), TASK, split=split)
    with pytest.raises(UsageError, match="shape"):
        measure_equivariance(Flat(), TASK, split=split)
    with pytest.raises(UsageError, match="cannot be called with the inputs z, pos, batch"):
        measure_equivariance(Other(), TASK, split=split)
    with pytest.raises(UsageError, match="at least 2 rotations"):
        measure_equivariance(Raw(), TASK, split=split, rotations=1)
    with pytest.raises(UsageError, match="not one of so3, o3, octahedral"):
        measure_equivariance(Raw(), TASK, split=split, group="o(3)")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no data set is registered"):
        measure_equivariance(Raw(), TASK)
    with pytest.raises(UsageError, match="unknown task"):
        measure_equivariance(Raw(), "forcefeild")
    with pytest.raises(UsageError, match="is empty"):
        evaluator(clouds(0))


def test_public_name() -> None:
    assert eb.measure_equivariance is measure_equivariance
