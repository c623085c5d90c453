"""A task small enough to reason about: clouds of points that pull on each other. For tests of
whatever takes a task."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equivbench.specs import Field
from equivbench.tasks.base import Split, Task


@dataclass(frozen=True)
class CloudSplit:
    """Clouds of ``points`` points each, in groups of ``per_group`` consecutive clouds."""

    pos: Tensor  # [clouds, points, 3]
    z: Tensor  # [clouds, points]
    per_group: int

    def __len__(self) -> int:
        return len(self.pos)

    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self)) // self.per_group

    def collate(self, indices: Tensor) -> dict[str, Tensor]:
        pos, z = self.pos[indices], self.z[indices]
        return {
            "z": z.flatten(),
            "pos": pos.flatten(0, 1),
            "batch": torch.arange(len(indices)).repeat_interleave(pos.shape[1]),
            "pull": pull(pos, z).flatten(0, 1),
        }


def clouds(count: int, points: int = 6, per_group: int = 4, seed: int = 0) -> CloudSplit:
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randn(count, points, 3, generator=generator)
    return CloudSplit(pos, torch.randint(1, 4, (count, points), generator=generator), per_group)


def pull(pos: Tensor, z: Tensor) -> Tensor:
    """sum_j z_j (x_j - x_i) exp(-|x_j - x_i|^2 / 2): equivariant."""
    apart = pos[:, None, :, :].double() - pos[:, :, None, :].double()
    return (
        (z[:, None, :, None] * apart * (-apart.square().sum(-1, keepdim=True) / 2).exp())
        .sum(2)
        .to(pos.dtype)
    )


class Clouds(Task):
    """Predict the pull on every point; the board metric is its squared error, averaged over
    points."""

    name = "toy-clouds"
    prediction = "pull"
    index_field = "batch"
    board_unit = "1"
    fields = (
        Field("z", ("points",), "int64", "0e", "node", "1", "sample"),
        Field("pos", ("points", 3), "float32", "1o", "node", "1", "sample"),
        Field("batch", ("points",), "int64", "0e", "none", "1", "sample"),
        Field("pull", ("points", 3), "float32", "1o", "node", "1", "output"),
    )

    def assemble(
        self,
        batch: Mapping[str, Tensor],
        noise: Mapping[str, Tensor],
        requires: Mapping[str, float],
    ):
        return {name: batch[name] for name in ("z", "pos", "batch")}, {"pull": batch["pull"]}

    def objective(
        self,
        outputs: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
    ) -> Tensor:
        return (outputs["pull"] - targets["pull"]).square().sum(-1).mean()

    def samples_in(self, batch: Mapping[str, Tensor]) -> int:
        return int(batch["batch"][-1]) + 1

    def strata(self, batch: Mapping[str, Tensor]) -> tuple[tuple[str, ...], Tensor]:
        return ("nothing", "one", "two", "three"), batch["z"]

    def baseline(self, split: Split) -> float:
        return float(
            split.collate(torch.arange(len(split)))["pull"].double().square().sum(-1).mean()
        )


class Central(nn.Module):
    """An SO(3)-equivariant network: neighbours' relative vectors weighted by a network of distance
    and kind."""

    def __init__(self, points: int = 6, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.points = points
        self.radial = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        cloud = pos.reshape(-1, self.points, 3)
        apart = cloud[:, None] - cloud[:, :, None]
        kind = z.reshape(-1, 1, self.points, 1).expand(*apart.shape[:3], 1)
        strength = self.radial(
            torch.cat([apart.square().sum(-1, keepdim=True), kind.to(pos.dtype)], -1)
        )
        return {"pull": (strength * apart).sum(2).flatten(0, 1)}


class Raw(nn.Module):
    """A network on raw coordinates, with no symmetry; odd, so that it does not vanish when
    averaged."""

    def __init__(self, points: int = 6, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.points = points
        self.layers = nn.Sequential(
            nn.Linear(4 * points, width), nn.Tanh(), nn.Linear(width, 3 * points)
        )

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        features = torch.cat(
            [pos.reshape(-1, 3 * self.points), z.reshape(-1, self.points).to(pos.dtype)], -1
        )
        return {"pull": self.layers(features).reshape(-1, 3)}


class Broken(nn.Module):
    """A model whose last component is scaled by 1 + ``by``: a symmetry broken by a small relative
    amount."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        out = self.model(**inputs)["pull"]
        return {"pull": out * out.new_tensor([1.0, 1.0, 1.0 + self.by])}
