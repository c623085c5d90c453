"""Distances of folds: a rotated copy is found, a mirror image is not, and no rotation gives less
than the one that is chosen."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from structure_files import trace

from equivbench.tasks.flow.folds import (
    NEAREST,
    SuperposedOnto,
    centred,
    nearest,
    rotation_onto,
    tm_score,
)

LENGTH = 64
FOLDS = np.stack([trace(LENGTH, seed) for seed in range(30)])
MIRROR = np.diag([1.0, 1.0, -1.0])


def turned(ca: np.ndarray, seed: int) -> np.ndarray:
    """``ca`` rotated and moved far from where it was."""
    rotation = Rotation.random(random_state=seed).as_matrix()
    return np.asarray(ca @ rotation.T + [30.0, -7.0, 100.0])


def test_a_rotated_and_moved_copy_is_at_no_distance() -> None:
    distances = SuperposedOnto(FOLDS).rmsd(turned(FOLDS[7], 0))
    # A difference of squares of some 64 * 100 A^2, in float64, over 64, under a root.
    assert distances[7] < 1e-5
    assert distances.argmin() == 7
    assert tm_score(turned(FOLDS[7], 0), FOLDS[7]) == pytest.approx(1, abs=1e-9)


def test_a_mirror_image_is_another_fold() -> None:
    image = turned(FOLDS[7] @ MIRROR, 1)
    assert SuperposedOnto(FOLDS).rmsd(image)[7] > 2
    assert tm_score(image, FOLDS[7]) < 0.6
    # The mirror of both is the same fold again.
    assert SuperposedOnto(FOLDS @ MIRROR).rmsd(image)[7] < 1e-5


def test_a_flat_backbone_is_its_own_mirror_image() -> None:
    flat = FOLDS[3] * [1.0, 1.0, 0.0]
    assert SuperposedOnto(flat[None]).rmsd(turned(flat @ np.diag([-1.0, 1.0, 1.0]), 2))[0] < 1e-5


def test_the_distance_is_that_after_the_chosen_rotation_and_no_other_gives_less() -> None:
    one, others = centred(FOLDS[0]), centred(FOLDS)
    distances = SuperposedOnto(others).rmsd(one)
    for other, distance in zip(others[1:], distances[1:], strict=True):
        rotation = rotation_onto(one, other)
        assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1)
        apart = np.sqrt(np.square(one @ rotation.T - other).sum(1).mean())
        assert apart == pytest.approx(distance, rel=1e-9)
        nearby = Rotation.random(50, random_state=3).as_matrix()
        nearby = np.concatenate(
            [
                nearby,
                Rotation.from_rotvec(0.05 * np.random.default_rng(0).normal(size=(50, 3)))
                .as_matrix() @ rotation,
            ]
        )  # fmt: skip
        any_other = np.sqrt(np.square(one @ nearby.transpose(0, 2, 1) - other).sum(2).mean(1))
        assert any_other.min() >= distance * (1 - 1e-12)


def test_the_nearest_of_many_is_found_however_it_lies_and_unrelated_ones_are_far() -> None:
    noise = 0.3 * np.random.default_rng(1).normal(size=(LENGTH, 3))
    asked = np.stack([turned(FOLDS[11] + noise, 4), trace(LENGTH, 900)])
    assert len(FOLDS) > NEAREST
    found = nearest(asked, FOLDS)
    # Noise of .3 A a coordinate is an RMSD of .5 A, a little less after superposition.
    assert 0.4 < found.rmsd[0] < 0.6
    assert found.tm[0] > 0.9
    assert found.rmsd[1] > 4
    assert found.tm[1] < 0.5


def test_the_nearest_are_not_those_of_the_mirrored_set() -> None:
    found = nearest(np.stack([turned(FOLDS[11], 5)]), FOLDS @ MIRROR)
    assert found.rmsd[0] > 2
    assert found.tm[0] < 0.6
