"""Samples judged at several points, inputs that are fed back, test sets too large to keep, floors
of grids: closed forms."""

from collections.abc import Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from equivbench.measure import rotated_set
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.verification import covers
from equivbench.specs import Field
from equivbench.tasks.base import Feedback, Task

TIMES = (0.0, 0.5, 1.0)
QUADRATURE = (0.5, 1.0, 1.5)


class Arrow(Task):
    """Predict the arrow y from s = t y + noise and an earlier guess of y, at three times t of
    unequal weight."""

    name = "toy-arrow"
    prediction = "y"
    index_field = None
    board_unit = "1"
    test_points = len(TIMES)
    feedback = Feedback(input="guess", output="y", probability=0.5)
    fields: ClassVar[tuple[Field, ...]] = (
        Field("y", ("samples", 3), "float32", "1o", "graph", "1", "output"),
        Field("s", ("samples", 3), "float32", "1o", "graph", "1", "derived"),
        Field("guess", ("samples", 3), "float32", "1o", "graph", "1", "derived"),
        Field("e", ("samples", 3), "float32", "1o", "graph", "1", "noise"),
        Field("t", ("samples",), "float32", "0e", "graph", "1", "noise"),
        Field("w", ("samples",), "float32", "0e", "graph", "1", "noise"),
    )

    def noise(self, batch: Mapping[str, Tensor], generator: torch.Generator):
        n = len(batch["y"])
        return {
            "t": torch.rand(n, generator=generator),
            "w": torch.ones(n),
            "e": torch.randn(n, 3, generator=generator),
        }

    def test_noise(self, batch: Mapping[str, Tensor], generator: torch.Generator):
        turns = len(batch["y"]) // len(TIMES)
        return {
            **self.noise(batch, generator),
            "t": torch.tensor(TIMES).repeat(turns),
            "w": torch.tensor(QUADRATURE).repeat(turns),
        }

    def assemble(
        self,
        batch: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        requires: Mapping[str, float],
    ):
        s = noise["t"][:, None] * batch["y"] + noise["e"]
        return {"s": s, "guess": torch.zeros_like(s), "t": noise["t"]}, {
            "y": batch["y"],
            "w": noise["w"],
        }

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return (targets["w"] * (outputs["y"] - targets["y"]).square().sum(-1)).mean()

    def samples_in(self, batch: Mapping[str, Tensor]) -> int:
        return len(batch["y"])

    def weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["w"]

    def strata(self, batch: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
        return tuple(f"t={t}" for t in TIMES), (2 * batch["t"]).long()

    def baseline(self, split: object) -> float:
        return 3.0


class Arrows:
    def __init__(self, count: int) -> None:
        self.y = torch.randn(count, 3, generator=torch.Generator().manual_seed(3))

    def __len__(self) -> int:
        return len(self.y)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self)) // 2

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        return {"y": self.y[indices]}


class Fixed(nn.Module):
    """a s + b guess, and optionally a constant that breaks the symmetry."""

    def __init__(self, a: float, b: float, constant: float = 0.0) -> None:
        super().__init__()
        self.a, self.b, self.constant = a, b, constant
        self.seen: list[float] = []

    def forward(self, s: Tensor, guess: Tensor, t: Tensor) -> dict[str, Tensor]:
        self.seen.append(float(guess.abs().sum()))
        return {"y": self.a * s + self.b * guess + self.constant}


def judge(model: nn.Module, count: int = 600, **options: object):
    return Evaluator(Arrow(), Arrows(count), requires={}, **options).evaluate(model)  # type: ignore[arg-type]


def test_every_sample_is_judged_at_every_point_with_its_weight() -> None:
    r = judge(Fixed(1.0, 0.0))
    # y - s = (1 - t) y - e: squared error 3 ((1 - t)^2 + 1) at time t, for unit normal y and e.
    expected = {f"t={t}": 3 * ((1 - t) ** 2 + 1) for t in TIMES}
    assert list(r.by) == list(expected)
    for name, value in expected.items():
        # 600 samples of about 3 degrees of freedom: a standard error of some 3.5%.
        assert r.by[name].total == pytest.approx(value, rel=0.15)
    weighted = sum(
        w * r.by[name].total for w, name in zip(QUADRATURE, expected, strict=True)
    ) / sum(QUADRATURE)
    assert r.total == pytest.approx(weighted, rel=1e-9)
    assert r.objective == pytest.approx(weighted, rel=1e-6)
    assert len(r.group_total) == 300


def test_feedback_is_the_unrotated_first_pass_rotated_with_the_sample() -> None:
    model = Fixed(0.5, 0.25)
    r = judge(model)
    assert r.verdict is not None
    assert r.verdict.holds
    # The first pass sees no guess and gives s/2, so the whole is s/2 + s/8.
    whole = judge(Fixed(0.625, 0.0))
    assert r.total == pytest.approx(whole.total, rel=1e-6)
    # One first pass a chunk, then one pass a draw; the first of each group of five has no guess.
    assert all((guess == 0) == (turn % 5 == 0) for turn, guess in enumerate(model.seen[:15]))
    # A constant c in the first pass is fed back rotated: only what the second pass adds anew breaks
    # the symmetry.
    broken = judge(Fixed(0.5, 0.25, constant=0.1))
    assert broken.equivariance == pytest.approx(0.1**2 * 3, rel=0.1)


def test_a_set_too_large_to_keep_is_assembled_alike_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = judge(Fixed(1.0, 0.3, 0.2), 50)
    monkeypatch.setattr(rotated_set, "KEPT_BYTES", 0)
    again = Evaluator(Arrow(), Arrows(50), requires={})
    for _ in range(2):
        r = again.evaluate(Fixed(1.0, 0.3, 0.2))
        assert (r.total, r.equivariance, r.floor, r.objective) == (
            kept.total,
            kept.equivariance,
            kept.floor,
            kept.objective,
        )


def test_the_floor_of_a_grid_is_the_error_of_the_linear_baseline_in_the_total_of_the_model() -> (
    None
):
    class Gridded(Arrow):
        name = "toy-gridded"
        interpolates = True

    split = Arrows(200)
    reference = Fixed(0.0, 0.0, constant=0.3)
    evaluator = Evaluator(Gridded(), split, requires={}, untrained=lambda: {"linear": reference})
    r = evaluator.evaluate(Fixed(1.0, 0.0, constant=0.1))
    v = evaluator.evaluate(reference).equivariance
    assert r.floor == pytest.approx(v / r.total, rel=1e-9)
    assert r.by["t=1.0"].floor == pytest.approx(
        evaluator.evaluate(reference).by["t=1.0"].equivariance / r.by["t=1.0"].total, rel=1e-9
    )
    assert r.verdict is not None
    assert r.verdict.holds  # a ninth of the reference's error
    r = evaluator.evaluate(Fixed(1.0, 0.0, constant=0.7))  # (7/3)^2 of it, above the allowed 4
    assert r.verdict is not None
    assert r.verdict.holds is False
    assert Evaluator(Gridded(), split, requires={}).evaluate(Fixed(1.0, 0.0)).floor is None
    # The inversion is exact on a grid, so what breaks it is told from rounding.
    for constant, holds in ((0.0, True), (0.1, False)):
        o3 = Evaluator(
            Gridded(), split, requires={}, untrained=lambda: {"linear": reference}, symmetry="o3"
        ).evaluate(Fixed(1.0, 0.0, constant=constant))
        assert o3.verdict is not None
        assert o3.verdict.holds is holds
        assert "inversion" in o3.verdict.reason
    # The cube's rotations alone do not verify more than themselves.
    for model, undecided in ((Fixed(1.0, 0.0), None), (Fixed(1.0, 0.0, constant=0.1), False)):
        so3 = Evaluator(Gridded(), split, requires={}, group="octahedral", symmetry="so3").evaluate(
            model
        )
        assert so3.verdict is not None
        assert so3.verdict.holds is undecided
    # Under the cube group nothing is interpolated: rounding is the floor.
    cube = Evaluator(Gridded(), split, requires={}, group="octahedral", rotations=24).evaluate(
        Fixed(1.0, 0.0)
    )
    assert cube.floor is not None
    assert cube.floor < 1e-10


def test_untrained_baselines() -> None:
    evaluator = Evaluator(
        Arrow(),
        Arrows(300),
        requires={},
        untrained=lambda: {"linear": Fixed(0.0, 0.0), "other": Fixed(1.0, 0.0)},
    )
    found = evaluator.baselines()
    assert found["zero"] == pytest.approx(evaluator.evaluate(Fixed(0.0, 0.0)).total, rel=1e-6)
    assert found["linear"] == pytest.approx(found["zero"], rel=1e-6)
    assert found["other"] == pytest.approx(evaluator.evaluate(Fixed(1.0, 0.0)).total, rel=1e-12)
    assert set(Evaluator(Arrow(), Arrows(4), requires={}).baselines()) == {"zero"}


def test_what_a_declaration_promises() -> None:
    assert [covers(symmetry, "so3") for symmetry in ("none", "octahedral", "so3", "o3")] == [
        False,
        False,
        True,
        True,
    ]
    assert [covers(symmetry, "octahedral") for symmetry in ("none", "octahedral", "so3", "o3")] == [
        False,
        True,
        True,
        True,
    ]


def test_a_finite_group_is_tested_in_random_poses_not_in_stored_ones() -> None:
    split = Arrows(400)
    split.y[:, 1:] = 0.0  # all stored along x
    seen: list[Tensor] = []

    class Looking(nn.Module):
        def forward(self, s: Tensor, guess: Tensor, t: Tensor) -> dict[str, Tensor]:
            seen.append(s)
            return {"y": s}

    class Noiseless(Arrow):
        name = "toy-noiseless"
        feedback = None

        def assemble(
            self,
            batch: Mapping[str, Tensor],
            noise: Mapping[str, Tensor],
            requires: Mapping[str, float],
        ):
            inputs, targets = super().assemble(batch, noise, requires)
            return {**inputs, "s": batch["y"]}, targets

    r = Evaluator(Noiseless(), split, requires={}, group="octahedral", rotations=24).evaluate(
        Looking(), floor=False
    )
    assert r.total == pytest.approx(0.0, abs=1e-12)
    # The first element is the identity; chunks are of 64 // 3 samples, 24 draws each.
    poses = torch.cat(seen[::24])
    along_x = poses[:, 0].square().sum() / poses.square().sum()
    # Heavy-tailed weights y^2 of 1,200 poses: a standard error of about .3 sqrt(3 / 1200) = .015.
    assert along_x == pytest.approx(1 / 3, abs=0.06)
