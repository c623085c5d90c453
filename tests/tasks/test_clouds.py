"""Tasks on clouds of different sizes: what a batch holds, what is judged, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from equivbench.errors import FailedError, UsageError
from equivbench.measure.equivariance import measure_equivariance
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.clouds import CloudData, CloudSplit, CloudTask

INPUTS = {"charge": "0e", "pos": "1o"}
FORCES = CloudTask("toy-forces", inputs=INPUTS, target=("force", "1o"), units={"force": "N"})
DIPOLES = CloudTask("toy-dipoles", inputs=INPUTS, target=("dipole", "1o"), per="cloud")


def make(split: str, count: int = 40) -> dict[str, Tensor]:
    """Clouds of one to five points with the force on each point and the dipole of each cloud."""
    generator = torch.Generator().manual_seed(len(split))
    sizes = torch.randint(1, 6, (count,), generator=generator)
    charge, pos = torch.randn(int(sizes.sum()), 4, generator=generator).split([1, 3], dim=1)
    cloud = torch.repeat_interleave(sizes)
    dipole = torch.zeros(count, 3).index_add(0, cloud, charge * pos)
    return {"sizes": sizes, "charge": charge, "pos": pos, "force": charge * pos, "dipole": dipole}


class Pull(nn.Module):
    """A factor on charge x position of each point, or on its sum over each cloud, and a term along
    z that no rotation leaves alone."""

    def __init__(self, factor: float, of: str, tilt: float = 0.0) -> None:
        super().__init__()
        self.factor, self.of = factor, of
        self.tilt = nn.Parameter(torch.tensor([0.0, 0.0, tilt]))

    def forward(self, charge: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        found = self.factor * charge * pos
        if self.of == "dipole":
            found = pos.new_zeros(int(batch[-1]) + 1, 3).index_add(0, batch, found)
        return {self.of: found + self.tilt}


@given(chosen=st.lists(st.integers(0, 39), min_size=1, max_size=12))
def test_a_batch_holds_the_points_of_its_clouds_one_after_another(chosen: list[int]) -> None:
    made = make("test")
    data = CloudData("toy", make, per_cloud=["dipole"]).load()
    batch = data.test.collate(torch.tensor(chosen))
    clouds = made["pos"].split(made["sizes"].tolist())
    assert torch.equal(batch["pos"], torch.cat([clouds[each] for each in chosen]))
    assert torch.equal(batch["dipole"], made["dipole"][chosen])
    assert batch["batch"].tolist() == [
        place for place, each in enumerate(chosen) for _ in clouds[each]
    ]
    assert FORCES.samples_in(batch) == len(chosen)


@pytest.mark.parametrize(("task", "of"), [(FORCES, "force"), (DIPOLES, "dipole")])
def test_the_errors_are_those_of_the_closed_form(task: CloudTask, of: str) -> None:
    data = CloudData("toy", make, per_cloud=["dipole"]).load()
    power = float(make("test")[of].double().square().sum(1).mean())
    halved = measure_equivariance(Pull(0.5, of), task, data=data)
    # float32 predictions: their rounding is 6e-8 of a value.
    assert halved.total == pytest.approx(power / 4, rel=1e-5)
    assert halved.explained == pytest.approx(0.75, rel=1e-5)
    assert halved.share < 1e-11
    # A constant vector averages to nothing over rotations: all of its square is equivariance error.
    # 200 draws each of 40 clouds know it to within 1%.
    tilted = measure_equivariance(Pull(1.0, of, tilt=0.3), task, data=data, rotations=200)
    assert tilted.equivariance == pytest.approx(0.09, rel=0.01)


def test_a_target_is_one_of_points_or_of_clouds() -> None:
    with pytest.raises(UsageError, match="per is 'point' or 'cloud', not 'points'"):
        CloudTask("toy", inputs=INPUTS, target=("force", "1o"), per="points")  # type: ignore[arg-type]


def test_rotations_act_on_each_cloud_by_its_own() -> None:
    batch = CloudData("toy", make, per_cloud=["dipole"]).load().train.collate(torch.arange(5))
    rotations = random_rotations(5, dtype=torch.float64)
    moved = DIPOLES.rotate(batch, rotations, batch["batch"])
    expected = torch.einsum("pij,pj->pi", rotations[batch["batch"]], batch["pos"].double())
    torch.testing.assert_close(moved["pos"], expected.float())
    expected = torch.einsum("cij,cj->ci", rotations, batch["dipole"].double())
    torch.testing.assert_close(moved["dipole"], expected.float())
    assert torch.equal(moved["charge"], batch["charge"])
    assert FORCES.board_unit == "(N)^2"


def test_edges_are_pairs_of_one_cloud_within_the_cutoff() -> None:
    batch = CloudData("toy", make, per_cloud=["dipole"]).load().test.collate(torch.arange(12))
    inputs, _ = FORCES.assemble(batch, {}, {"edge_index": 1.5})
    apart = (batch["pos"][:, None] - batch["pos"]).norm(dim=-1)
    near = (apart < 1.5) & (batch["batch"][:, None] == batch["batch"]) & (apart > 0)
    found = torch.zeros_like(near)
    found[tuple(inputs["edge_index"])] = True
    assert torch.equal(found, near)
    with pytest.raises(UsageError, match="derived input of task toy-forces"):
        FORCES.assemble(batch, {}, {"edges": 5.0})
    nowhere = CloudTask("toy-nowhere", inputs={"charge": "0e"}, target=("force", "1o"))
    with pytest.raises(UsageError, match="no input pos"):
        nowhere.assemble(batch, {}, {"edge_index": 5.0})


def test_the_checksum_knows_sizes_and_groups_are_kept() -> None:
    def other(split: str) -> dict[str, Tensor]:
        made = make(split)
        swapped = made["sizes"].flip(0)
        return made | {"sizes": swapped}

    known = CloudData("toy", make, per_cloud=["dipole"])
    assert known.verify() == known.verify()
    assert known.verify() != CloudData("toy", other, per_cloud=["dipole"]).verify()
    assert known.path() == known.prepare()
    grouped = CloudData(
        "toy", lambda split: make(split) | {"groups": torch.arange(40) // 4}, ["dipole"]
    ).load()
    assert isinstance(grouped.test, CloudSplit)
    assert grouped.test.groups.tolist() == [k // 4 for k in range(40)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"pos": torch.zeros(3, 3)}, "a row for each of"),
        ({"dipole": torch.zeros(3, 3)}, "a row for each of"),
        ({"groups": torch.zeros(3, dtype=torch.int64)}, "a row for each of"),
        ({"sizes": torch.zeros(40, dtype=torch.int64)}, "an empty cloud"),
        ({"sizes": torch.zeros(0, dtype=torch.int64)}, "an empty cloud, or none"),
    ],
    ids=["points", "clouds", "groups", "empty cloud", "no cloud"],
)
def test_what_does_not_fit_is_refused(spoil: dict[str, Tensor], said: str) -> None:
    with pytest.raises(FailedError, match=f"train split .*{said}"):
        CloudData("toy", lambda split: make(split) | spoil, ["dipole"]).load()


def test_clouds_without_sizes_are_refused() -> None:
    def nameless(split: str) -> dict[str, Tensor]:
        made = make(split)
        del made["sizes"]
        return made

    with pytest.raises(FailedError, match="has no sizes"):
        CloudData("toy", nameless).load()
