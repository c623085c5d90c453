"""Handedness by its closed form, in a task of point clouds; the flow task's models have their own
tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_task import Central, Clouds, CloudSplit, Raw, clouds, pull

from equivbench.studies.handedness.measuring import handedness

ODD = 0.05


def axial(pos: Tensor, z: Tensor) -> Tensor:
    """A field that is left as it is by x -> -x: cross products of two sums of relative vectors."""
    apart = pos[:, None] - pos[:, :, None]
    first = (z[:, None, :, None] * apart).sum(2)
    return torch.linalg.cross(first, (apart * apart.square().sum(-1, keepdim=True)).sum(2))


class Handed(Central):
    """Central forces and a parity-odd part."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        shape = (-1, self.points)
        odd = axial(pos.reshape(*shape, 3), z.reshape(shape)).flatten(0, 1)
        return {"pull": super().forward(z, pos, batch)["pull"] + ODD * odd}


def test_the_difference_has_its_closed_form() -> None:
    split = clouds(60)
    found = handedness(Handed(), Clouds(), split, requires={}, seed=3)
    batch = split.collate(torch.arange(len(split)))
    z, pos = batch["z"], batch["pos"].double()
    shape = (-1, 6)
    with torch.no_grad():
        even = Central().double()(z, pos, batch["batch"])["pull"]
    even = even - pull(pos.reshape(*shape, 3), z.reshape(shape)).flatten(0, 1)
    odd = ODD * axial(pos.reshape(*shape, 3), z.reshape(shape)).flatten(0, 1)
    # |e + a|^2 on one side; on the other e changes sign and a does not. The network is in float32.
    assert found.native.total == pytest.approx(
        float((even + odd).square().sum(-1).mean()), rel=1e-5
    )
    difference = float(-4 * (even * odd).sum(-1).mean())
    assert found.difference == pytest.approx(difference, abs=1e-5 * found.native.total)
    assert found.ratio == pytest.approx(1 + found.difference / found.native.total, rel=1e-12)
    low, high = found.interval()
    assert low < found.ratio < high


def test_a_model_of_o3_has_one_loss_for_both() -> None:
    found = handedness(Central(), Clouds(), clouds(60), requires={})
    # Sums and products of the negatives are the negatives of sums and products: nothing is rounded
    # otherwise.
    assert found.ratio == pytest.approx(1, rel=1e-9)
    assert not found.told_apart()
    assert [comparison.ratio for comparison in found.by.values()] == pytest.approx(
        [1, 1, 1], rel=1e-9
    )


def test_a_model_without_symmetry_is_judged_on_the_same_rotations_on_both_sides() -> None:
    split = clouds(40)
    found = handedness(Raw(), Clouds(), split, requires={}, rotations=4)
    again = handedness(Raw(), Clouds(), split, requires={}, rotations=4)
    assert (found.ratio, found.interval()) == (again.ratio, again.interval())
    assert found.ratio != 1
    # It is of no hand: rotations turn what one side sees into what the other sees, in law.
    low, high = found.interval(0.999)
    assert low < 1 < high


def test_a_model_that_fails_on_one_hand_gets_a_clear_verdict() -> None:
    class Lefty(Central):
        """Half the truth for clouds of one hand; for those of the other a quarter, or .3 if their
        first point is of kind 1."""

        def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
            cloud, kind = pos.reshape(-1, self.points, 3), z.reshape(-1, self.points)
            wrong = torch.where(kind[:, 0] == 1, 0.3, 0.25)
            scale = torch.where(hands(cloud) > 0, 0.5, wrong)
            return {"pull": (scale[:, None, None] * pull(cloud, kind)).flatten(0, 1)}

    split = clouds(200)
    right = CloudSplit(split.pos * hands(split.pos)[:, None, None], split.z, split.per_group)
    found = handedness(Lefty(), Clouds(), right, requires={})
    low, high = found.interval()
    # Every cloud's own ratio is (1 - .25)^2 / (1 - .5)^2 = 2.25 or (1 - .3)^2 / (1 - .5)^2 = 1.96.
    assert 1.96 < low < found.ratio < high < 2.25
    assert found.told_apart()


def hands(cloud: Tensor) -> Tensor:
    """[clouds] the sign of the volume that the first four points span."""
    return torch.linalg.det(cloud[:, 1:4] - cloud[:, :1]).sign()
