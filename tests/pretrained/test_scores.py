"""A score on a grid split into what was not learned and what is the grid's, held against functions
of which that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from equivbench.errors import FailedError
from equivbench.pretrained.outcome import Asked, Outcome
from equivbench.pretrained.scores import HALF_CELL, BoundComplex, measure_scores, shipped_complex

Score = Callable[[NDArray[np.float64]], Any]
PK = 3.0
POINTS = np.random.default_rng(0).normal(size=(7, 3)) * [3.0, 2.0, 1.0]


class Scoring:
    """Answers like the process of a network whose affinity is ``score``."""

    name = "toy"

    def __init__(self, score: Score) -> None:
        self.score = score

    def ask(self, asked: dict[str, NDArray[Any]]) -> dict[str, Any]:
        assert asked["positions"].dtype == np.float32
        found = [self.score(each) for each in asked["positions"].astype(np.float64)]
        return {"affinity": np.asarray(found), "seconds": np.asarray(0.5)}


def measured(score: Score, poses: int = 6) -> Outcome:
    bound = BoundComplex("toy", "0" * 64, POINTS, {}, PK, "a test")
    process: Any = Scoring(score)
    return measure_scores(process, Asked(poses=poses), bound)


def cubic(x: NDArray[np.float64]) -> float:
    """The same under the 24 rotations of the cube, and under no others."""
    return float((x**4).sum() / 100)


def tilted(x: NDArray[np.float64]) -> float:
    """Of degree two, so that its mean over the 24 rotations is that over all."""
    return float((x[:, 0] ** 2).sum() / 10)


def test_what_the_cube_sees_was_not_learned() -> None:
    found = measured(tilted)
    assert found.equivariance > 0.01
    assert found.grid.learning == pytest.approx(found.equivariance, rel=1e-6)
    mean = (POINTS**2).sum() / 30
    assert found.twirled == pytest.approx((mean - PK) ** 2, rel=1e-5)
    assert found.total == pytest.approx(found.twirled + found.equivariance)


def test_what_the_cube_does_not_see_is_the_grids() -> None:
    found = measured(cubic)
    assert found.equivariance > 0.01
    assert found.grid.grid == pytest.approx(found.equivariance, rel=1e-6)
    assert found.floor < 1e-9


def test_an_invariant_score_has_neither() -> None:
    found = measured(lambda x: float((x**2).sum()))
    assert found.share < 1e-9


def test_translations_tell_the_grid_without_rotations() -> None:
    def offset(x: NDArray[np.float64]) -> float:
        # Which half of a cell the first coordinate of the first atom is in.
        return float(x[0, 0] / HALF_CELL % 2 < 1)

    assert measured(offset).grid.translation == pytest.approx(0.25)
    assert measured(cubic, poses=2).rotations == 48


@pytest.mark.parametrize("broken", [np.nan, np.ones(2)])
def test_what_is_no_score_is_one_sentence(broken: Any) -> None:
    with pytest.raises(FailedError, match="toy gives no finite number for each affinity"):
        measured(lambda x: broken)


def test_the_shipped_complex_is_a_pocket_about_its_ligand() -> None:
    found = shipped_complex()
    channels = found.atoms["channels"]
    ligand = found.positions[channels >= 14]
    assert np.abs(ligand.mean(0)).max() < 1e-3
    assert len(found.positions) == len(channels) == len(found.atoms["radii"])
    assert found.atoms["radii"].min() > 0.5
    assert 0 < found.affinity < 15
