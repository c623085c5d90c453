"""Structure statistics on chains whose values are known in closed form, and on the shipped
chains."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from equivbench.errors import UsageError
from equivbench.measure.equivariance import default_dataset
from equivbench.studies.flow_samples.structure import (
    Array,
    Mask,
    clash_counts,
    quadruplets,
    structure_statistics,
)
from equivbench.symmetry.rotations import random_rotations


def helix(residues: int, turn: float = 100.0, rise: float = 1.5, radius: float = 2.3) -> Array:
    """[1, residues, 3] A: a right-handed helix; by default the CAs of an alpha helix."""
    k = np.arange(residues)
    angle = np.radians(turn) * k
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), rise * k], axis=-1)[None]


def line(residues: int) -> Array:
    """[1, residues, 3]: bonds of 3.8 A along x."""
    return np.stack([3.8 * np.arange(residues), np.zeros(residues), np.zeros(residues)], axis=-1)[
        None
    ]


def whole(positions: Array) -> Mask:
    return np.ones(positions.shape[:2], dtype=bool)


def test_an_alpha_helix_is_right_handed_and_its_mirror_image_exactly_left_handed() -> None:
    chain = helix(30)
    right, left = (structure_statistics(each, whole(each)) for each in (chain, -chain))
    assert (right.helix_right, right.helix_left) == (1.0, 0.0)
    assert (left.helix_right, left.helix_left) == (0.0, 1.0)
    assert right.chirality > 0.5
    # Signs of floating-point numbers change without rounding.
    assert left.chirality == -right.chirality
    same = (
        "bond_mean",
        "bond_std",
        "bond_near",
        "clashes",
        "clashing",
        "radius",
        "relative_radius",
    )
    assert all(getattr(left, name) == getattr(right, name) for name in same)
    bond = math.hypot(2 * 2.3 * math.sin(math.radians(50)), 1.5)
    assert right.bond_mean == pytest.approx(bond, rel=1e-12)
    assert right.bond_std == pytest.approx(0, abs=1e-12)
    assert (right.bond_near, right.clashes) == (1.0, 0.0)


def test_dihedrals_of_a_helix_have_their_closed_form() -> None:
    turn, rise, radius = math.radians(100), 1.5, 2.3
    angles, spans, _ = quadruplets(helix(12), whole(helix(12)))
    # For residues at angles k turn: b1 . (b2 x b3) and (b1 x b2) . (b2 x b3) from the chord c, the
    # rise and the turn.
    chord = 2 * radius * math.sin(turn / 2)
    bond = math.hypot(chord, rise)
    cross = chord**2 * math.sin(turn)
    triple = rise * chord**2 * (2 * math.sin(turn) - math.sin(2 * turn))
    cosine = (
        chord**2 * rise**2 * ((math.cos(turn) - 1) ** 2 + math.sin(turn) ** 2) * math.cos(turn)
        + cross**2
    )
    np.testing.assert_allclose(angles, math.degrees(math.atan2(bond * triple, cosine)), rtol=1e-10)
    np.testing.assert_allclose(
        spans, math.hypot(2 * radius * math.sin(1.5 * turn), 3 * rise), rtol=1e-12
    )
    assert abs(angles[0] - 50) < 2


def test_a_line_has_its_radius_and_no_hand() -> None:
    chain = line(21)
    found = structure_statistics(chain, whole(chain))
    assert found.radius == pytest.approx(3.8 * math.sqrt((21**2 - 1) / 12), rel=1e-12)
    assert found.relative_radius == pytest.approx(found.radius / (2.2 * 21**0.38), rel=1e-12)
    assert (found.helix_right, found.helix_left, found.chirality) == (0.0, 0.0, 0.0)
    assert (found.bond_near, found.clashing) == (1.0, 0.0)


def test_clashes_are_counted_once_and_not_between_neighbours() -> None:
    chain = line(8)
    chain[0, 7] = chain[0, 0] + [0.0, 2.9, 0.0]
    assert clash_counts(chain, whole(chain)).tolist() == [1]
    assert structure_statistics(chain, whole(chain)).clashes == pytest.approx(100 / 8)
    chain[0, 7] = chain[0, 0] + [0.0, 3.1, 0.0]
    assert clash_counts(chain, whole(chain)).tolist() == [0]
    # All in one point: each pair of residues three or more apart, 5 + 4 + 3 + 2 + 1.
    assert clash_counts(np.zeros((1, 8, 3)), np.ones((1, 8), dtype=bool)).tolist() == [15]


def test_statistics_ignore_place_orientation_and_padding_and_pool_the_chains() -> None:
    generator = np.random.default_rng(0)
    chains = np.full((2, 40, 3), np.nan)
    mask = np.arange(40) < np.array([40, 25])[:, None]
    for chain, length in enumerate((40, 25)):
        chains[chain, :length] = np.cumsum(generator.normal(size=(length, 3)), axis=0)
    found = structure_statistics(chains, mask)
    rotation = random_rotations(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[
        0
    ].numpy()
    moved = structure_statistics(chains @ rotation.T + [3.0, -50.0, 8.0], mask)
    for name, value in dataclasses.asdict(found).items():
        # Positions of order 50 A in float64, whose differences lose two digits.
        assert getattr(moved, name) == pytest.approx(value, rel=1e-9), name
    alone = [
        structure_statistics(chains[i : i + 1, : mask[i].sum()], mask[i : i + 1, : mask[i].sum()])
        for i in range(2)
    ]
    assert found.residues == 65
    assert found.bond_mean == pytest.approx(
        (39 * alone[0].bond_mean + 24 * alone[1].bond_mean) / 63, rel=1e-12
    )
    assert found.chirality == pytest.approx(
        (37 * alone[0].chirality + 22 * alone[1].chirality) / 59, rel=1e-12
    )
    assert found.radius == pytest.approx((alone[0].radius + alone[1].radius) / 2, rel=1e-12)


def test_chains_too_short_for_a_statistic_have_none_of_it() -> None:
    single = structure_statistics(np.zeros((1, 1, 3)), np.ones((1, 1), dtype=bool))
    assert math.isnan(single.bond_mean)
    assert math.isnan(single.chirality)
    assert (single.radius, single.clashes) == (0.0, 0.0)


def test_positions_that_are_no_numbers_are_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match="not finite"):
        structure_statistics(np.full((1, 5, 3), np.nan), whole(line(5)))


def test_the_shipped_chains_look_like_proteins() -> None:
    data = default_dataset("flow").load()
    batch = data.train.collate(torch.arange(len(data.train)))
    found = structure_statistics(10 * batch["x1"].double().numpy(), batch["mask"].numpy())
    # Measured when the set was made: 3.80-3.82 +- .05 A, 35-47% in helices (DSSP, which also counts
    # their ends).
    assert 3.79 < found.bond_mean < 3.83
    assert found.bond_std < 0.1
    assert found.bond_near > 0.97
    assert 0.25 < found.helix_right < 0.5
    assert found.helix_left < 0.02
    assert found.chirality > 0.1
    assert found.clashes < 0.1
    assert 0.9 < found.relative_radius < 1.4
