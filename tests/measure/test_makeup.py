"""What an error is made of, on models whose parts are known in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_task import Central, Clouds, clouds

from equivbench.errors import UsageError
from equivbench.measure.equivariance import measure_equivariance
from equivbench.measure.measurement import Measurement
from equivbench.specs import Field
from equivbench.tasks.arrays import ArraySplit, ArrayTask

TASK, POINTS = Clouds(), 6
MATRIX = torch.tensor([[0.2, 0.6, 0.0], [-0.1, -0.4, 0.3], [0.1, 0.0, 0.5]], dtype=torch.float64)


class Made(nn.Module):
    """f(x_i) = A x_i + c x_i x v + b, where v is the cloud's sum of kinds times positions."""

    def __init__(self, matrix: Tensor, cross: float = 0.0, constant: float = 0.0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())
        self.cross, self.constant = cross, constant

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        out = pos @ self.matrix.T + self.constant
        if self.cross:
            out = out + self.cross * torch.linalg.cross(pos, partner(z, pos))
        return {"pull": out}


def partner(z: Tensor, pos: Tensor) -> Tensor:
    cloud = (z[:, None] * pos).reshape(-1, POINTS, 3).sum(1)
    return cloud.repeat_interleave(POINTS, 0)


def measured(model: nn.Module, count: int = 2, **options: Any) -> Measurement:
    return measure_equivariance(model, TASK, split=clouds(count), **options)


def means(count: int) -> tuple[float, float]:
    """Mean squares of x and of x cross v."""
    batch = clouds(count).collate(torch.arange(count))
    pos = batch["pos"].double()
    crossed = torch.linalg.cross(pos, partner(batch["z"], pos))
    return float(pos.square().sum(1).mean()), float(crossed.square().sum(1).mean())


def squares() -> tuple[float, float, float]:
    """Of the trace, the antisymmetric and the traceless symmetric part of the matrix, over 3."""
    trace = MATRIX.trace() / 3 * torch.eye(3).double()
    turned = (MATRIX - MATRIX.T) / 2
    stretched = MATRIX - trace - turned
    one, two, three = (float(part.square().sum()) / 3 for part in (trace, turned, stretched))
    return one, two, three


def test_a_quadrature_tells_the_irreps_of_two_structures_exactly() -> None:
    r = measured(Made(MATRIX), rotations="quadrature:4", by="irrep")
    x, _ = means(2)
    _, turned, stretched = squares()
    assert list(r.by) == ["l=1", "l=2", "higher"]
    # The model is in float64, its inputs are stored in float32 and rotated in float64.
    assert r.by["l=1"].equivariance == pytest.approx(turned * x, rel=1e-9)
    assert r.by["l=2"].equivariance == pytest.approx(stretched * x, rel=1e-9)
    assert abs(r.by["higher"].equivariance) < 1e-12
    assert sum(part.equivariance for part in r.by.values()) == pytest.approx(
        r.equivariance, rel=1e-12
    )
    for part in r.by.values():
        assert part.total == pytest.approx(r.total, rel=1e-12)
        assert part.total == pytest.approx(part.twirled + part.equivariance, rel=1e-12)
    assert r.doubled is not None
    assert r.doubled.agrees
    assert (r.doubled.degree, r.doubled.samples) == (8, 2)
    assert r.doubled.share == pytest.approx(r.share, rel=1e-9)
    assert r.rotations == 5 * 5 * 3


def test_independent_draws_tell_them_to_their_error() -> None:
    r = measured(Made(MATRIX), count=500, by="irrep")
    x, _ = means(500)
    _, turned, stretched = squares()
    for name, expected in (("l=1", turned * x), ("l=2", stretched * x)):
        part = r.by[name]
        spread = float(part.group_equivariance.std()) / len(part.group_equivariance) ** 0.5
        assert abs(part.equivariance - expected) < 5 * spread
        assert part.equivariance > 5 * spread
        low, high = part.interval(0.999)
        assert low < expected / r.total < high


@pytest.mark.parametrize("rotations", [6, "quadrature:4"])
def test_what_only_reflections_break_is_told_apart(rotations: int | str) -> None:
    count = 400 if rotations == 6 else 2
    r = measured(Made(MATRIX, cross=0.3), count, group="o3", rotations=rotations, by="irrep")
    x, crossed = means(count)
    _, turned, stretched = squares()
    assert r.proper is not None
    assert r.parity is not None
    wanted = {
        "parity": (r.parity, 0.09 * crossed),
        "proper": (r.proper, (turned + stretched) * x),
        "0o": (r.by["0o"], 0.09 * crossed),
        "1e": (r.by["1e"], turned * x),
        "2e": (r.by["2e"], stretched * x),
        "1o": (r.by["1o"], 0.0),
    }
    for part, expected in wanted.values():
        found = part.group_equivariance
        error = 1e-9 if isinstance(rotations, str) else 5 * float(found.std()) / len(found) ** 0.5
        assert abs(part.equivariance - expected) < error
    assert r.proper.share + r.parity.share == pytest.approx(r.share, rel=1e-12)
    # Rotations alone do not see the handedness.
    over_rotations = measured(Made(MATRIX, cross=0.3), 2, rotations="quadrature:4", group="so3")
    assert over_rotations.parity is None
    if isinstance(rotations, str):
        assert over_rotations.equivariance == pytest.approx(r.proper.equivariance, rel=1e-9)


def test_a_constant_is_a_vector_that_stays_behind() -> None:
    r = measured(Made(0 * MATRIX, constant=0.5), group="o3", rotations="quadrature:4", by="irrep")
    assert r.by["1o"].equivariance == pytest.approx(0.75, rel=1e-9)
    assert r.parity is not None
    assert abs(r.parity.equivariance) < 1e-12
    pair = measured(Made(MATRIX), group="o3", rotations=2)
    assert (pair.proper, pair.parity) == (None, None)


def test_the_irreps_of_the_cube() -> None:
    stretched = torch.diag(torch.tensor([0.3, -0.1, -0.2], dtype=torch.float64))
    r = measured(Made(stretched), group="octahedral", rotations=24, by="irrep")
    x, _ = means(2)
    assert list(r.by) == ["A2", "E", "T1", "T2"]
    assert r.by["E"].equivariance == pytest.approx(
        float(stretched.square().sum()) / 3 * x, rel=1e-9
    )
    assert r.by["E"].equivariance == pytest.approx(r.equivariance, rel=1e-9)
    with pytest.raises(UsageError, match="all 24 of them"):
        measured(Made(stretched), group="octahedral", rotations=8, by="irrep")


def test_a_degree_that_is_too_low_is_told() -> None:
    class Sharp(nn.Module):
        """A component squared: of degree 3 with the vector, so of 6 squared."""

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            return {"pull": pos[:, 2:] ** 2 * pos.new_ones(1, 3)}

    low = measured(Sharp(), rotations="quadrature:3").doubled
    assert low is not None
    assert not low.agrees
    high = measured(Sharp(), rotations="quadrature:6").doubled
    assert high is not None
    assert high.agrees
    # Rounding is no disagreement.
    held = measured(Central(), rotations="quadrature:3")
    assert held.doubled is not None
    assert held.doubled.agrees
    assert held.verdict is not None
    assert held.verdict.holds


def test_quarters_by_magnitude_hold_all_rows() -> None:
    r = measured(Made(MATRIX), count=40, by="magnitude")
    weights = [float(part.group_weights.sum()) for part in r.by.values()]
    assert len(r.by) == 4
    assert sum(weights) == 40 * POINTS
    assert max(weights) - min(weights) <= 2
    mean = sum(
        part.equivariance * weight for part, weight in zip(r.by.values(), weights, strict=True)
    ) / sum(weights)
    assert mean == pytest.approx(r.equivariance, rel=1e-12)
    edges = [tuple(map(float, name.split(" to "))) for name in r.by]
    assert [low for low, _ in edges][1:] == [high for _, high in edges][:-1]


class TwoKinds(nn.Module):
    """Of an output 1o + 2x0e the vector is scaled along x and the scalars are right."""

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        stretched = x * x.new_tensor([1.5, 1.0, 1.0])
        square = x.square().sum(-1, keepdim=True)
        return {"y": torch.cat([stretched, square, 2 * square], -1)}


def test_the_irreps_of_a_prediction_are_judged_apart() -> None:
    task, split = two_kinds()
    r = measure_equivariance(
        TwoKinds(), task, split=split, rotations="quadrature:4", by="component"
    )
    assert list(r.by) == ["1o", "2x0e"]
    assert sum(part.total for part in r.by.values()) == pytest.approx(r.total, rel=1e-9)
    assert r.by["1o"].equivariance == pytest.approx(r.equivariance, rel=1e-6)
    assert r.by["2x0e"].share < 1e-10


def two_kinds() -> tuple[Any, Any]:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    square = x.square().sum(-1, keepdim=True)

    class Kinds(Clouds):
        name = "toy-kinds"
        prediction = "y"
        index_field = None  # type: ignore[assignment]
        fields = (  # type: ignore[assignment]
            Field("x", ("rows", 3), "float32", "1o", "graph", "1", "sample"),
            Field("y", ("rows", 5), "float32", "1o + 2x0e", "graph", "1", "output"),
        )

        def assemble(self, batch: Any, noise: Any, requires: Any) -> Any:
            return {"x": batch["x"]}, {"y": batch["y"]}

        def objective(self, outputs: Any, targets: Any, inputs: Any) -> Tensor:
            return (outputs["y"] - targets["y"]).square().sum(-1).mean()

        def samples_in(self, batch: Any) -> int:
            return len(batch["x"])

        def strata(self, batch: Any) -> None:  # type: ignore[override]
            return None

        def baseline(self, split: Any) -> float:
            return 1.0

    class Rows:
        groups = torch.arange(5)

        def __len__(self) -> int:
            return 5

        def collate(self, indices: Tensor) -> dict[str, Tensor]:
            whole = {"x": x, "y": torch.cat([x, square, square], -1)}
            return {name: each[indices] for name, each in whole.items()}

    return Kinds(), Rows()


@pytest.mark.parametrize("text", ["quadrature", "quadrature:0", "quadrature:x", "many"])
def test_what_are_no_rotations_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="quadrature"):
        measured(Made(MATRIX), rotations=text)


def test_a_quadrature_of_the_cube_is_refused() -> None:
    with pytest.raises(UsageError, match="so3 and o3"):
        measured(Made(MATRIX), rotations="quadrature:4", group="octahedral")


class Weighed(ArrayTask, abstract=True):
    """Rows count by the size of the first coordinate."""

    def weights(self, batch: Any) -> Tensor:
        return batch["x"][:, :1, None].abs()


class Polarised(nn.Module):
    """x x^T, and |x|^2 along the first axis, whatever the orientation: a matrix of known trace."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        axis = x.new_tensor([1.0, 0.0, 0.0])
        along = x.square().sum(-1)[:, None, None] * axis[:, None] * axis
        return {"alpha": x[:, :, None] * x[:, None] + along}


@pytest.mark.parametrize("kind", [ArrayTask, Weighed])
def test_a_symmetric_matrix_is_split_into_its_trace_and_the_rest(kind: type[ArrayTask]) -> None:
    task = kind("polarisability", inputs={"x": "1o"}, target=("alpha", "ij=ji"))
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    split = ArraySplit({"x": x, "alpha": 2 * x[:, :, None] * x[:, None]}, torch.arange(40))
    r = measure_equivariance(Polarised(), task, split=split, by="component", rotations=6)
    assert list(r.by) == ["0e", "2e"]
    assert sum(part.total for part in r.by.values()) == pytest.approx(r.total, rel=1e-9)
    assert r.by["2e"].equivariance == pytest.approx(r.equivariance, rel=1e-6)
    # The trace is right, and so is its part of the error.
    assert r.by["0e"].total < 1e-10 * r.total
