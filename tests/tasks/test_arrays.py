"""Tasks on plain arrays: what they declare, judge and refuse."""

import pytest
import torch
from torch import nn

from equivbench.errors import FailedError, UsageError
from equivbench.measure.equivariance import measure_equivariance
from equivbench.symmetry.rotations import random_rotations
from equivbench.tasks.arrays import ArrayData, ArrayTask

TASK = ArrayTask("toy-arrays", inputs={"x": "1o", "q": "0e"}, target=("y", "1o"), units={"y": "m"})


def make(split: str, count: int = 40) -> dict[str, torch.Tensor]:
    x, q = torch.randn(count, 4, generator=torch.Generator().manual_seed(len(split))).split(
        [3, 1], dim=1
    )
    return {"x": x, "q": q, "y": q * x}


class Times(nn.Module):
    """y = a q x, and a term along z that no rotation leaves alone."""

    def __init__(self, factor: float, tilt: float = 0.0) -> None:
        super().__init__()
        self.factor, self.tilt = factor, nn.Parameter(torch.tensor([0.0, 0.0, tilt]))

    def forward(self, x, q):
        return {"y": self.factor * q * x + self.tilt}


def test_the_errors_are_those_of_the_closed_form() -> None:
    data = ArrayData("toy", make).load()
    target = data.test.tensors["y"].double()  # type: ignore[attr-defined]
    halved = measure_equivariance(Times(0.5), TASK, data=data)
    power = float(target.square().sum(1).mean())
    # float32 predictions: their rounding is 6e-8 of a value.
    assert halved.total == pytest.approx(power / 4, rel=1e-6)
    assert halved.explained == pytest.approx(0.75, rel=1e-6)
    assert halved.share < 1e-12
    # A constant vector averages to nothing over rotations: all of its square is equivariance error.
    tilted = measure_equivariance(Times(1.0, tilt=0.3), TASK, data=data, rotations=200)
    # Relative error of a mean over 40 x 200 draws of |p - pbar|^2, which for 200 draws each is
    # within .5%.
    assert tilted.equivariance == pytest.approx(0.09, rel=0.01)


def test_rotations_act_as_declared() -> None:
    batch = make("train")
    rotation = random_rotations(1, dtype=torch.float64)
    moved = TASK.rotate(batch, rotation, None)
    torch.testing.assert_close(moved["y"], (batch["y"].double() @ rotation[0].T).float())
    assert torch.equal(moved["q"], batch["q"])
    assert TASK.board_unit == "(m)^2"


def test_the_checksum_knows_the_bytes_and_groups_are_kept() -> None:
    one, again = ArrayData("toy", make), ArrayData("toy", make)
    other = ArrayData(
        "toy", lambda split: {name: tensor + 1e-6 for name, tensor in make(split).items()}
    )
    assert one.verify() == again.verify() != other.verify()
    assert one.path() == one.prepare()
    assert one.path().exists()
    grouped = ArrayData("toy", lambda split: make(split) | {"groups": torch.arange(40) // 4}).load()
    assert grouped.test.groups.tolist() == [k // 4 for k in range(40)]
    assert grouped.test.collate(torch.tensor([3])).keys() == {"x", "q", "y"}


@pytest.mark.parametrize(
    "spoil",
    [{"x": torch.zeros(3, 3)}, {"groups": torch.zeros(3, dtype=torch.int64)}],
    ids=["x", "groups"],
)
def test_lengths_that_differ_are_refused(spoil: dict[str, torch.Tensor]) -> None:
    with pytest.raises(FailedError, match="train split must have one length"):
        ArrayData("toy", lambda split: make(split) | spoil).load()


def test_a_model_that_wants_derived_inputs_is_refused() -> None:
    with pytest.raises(UsageError, match="edge_index"):
        TASK.assemble(make("test"), {}, {"edge_index": 5.0})
