"""Networks on the toy clouds whose symmetry is known, with what a verification must say of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from toy_task import Broken, Central, Clouds, Raw

from equivbench.symmetry.wrappers import wrap


class Scaled(nn.Module):
    """Something to train, round a network that may have nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.scale = model, nn.Parameter(torch.ones(()))

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {"pull": self.model(**inputs)["pull"] * self.scale}


class Moving(Central):
    """x_out - x_in of coordinates that move by a thousandth (EGNN, the En-transformer)."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        moved = pos
        for _ in range(2):
            moved = moved + 1e-3 * super().forward(z, moved, batch)["pull"]
        return {"pull": (moved - pos) * 1e3}


class Residual(Central):
    """The same from far away, where a float32 position has few digits left for the move."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": (1e3 * pos + super().forward(z, pos, batch)["pull"]) - 1e3 * pos}


class Gridded(Central):
    """A nonlinearity on a grid that is not fine enough leaves a little that does not turn."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        out = super().forward(z, pos, batch)["pull"]
        return {"pull": out + 1.2e-6 * out.abs()}


class Noisy(Central):
    """Noise in every forward pass."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        out = super().forward(z, pos, batch)["pull"]
        return {"pull": out + 0.15 * torch.randn_like(out)}


class Dropping(Raw):
    """Dropout that evaluation mode does not switch off."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        out = super().forward(z, pos, batch)["pull"]
        return {"pull": nn.functional.dropout(out, 0.1)}


class Seeded(Central):
    """Noise that is the same in every call."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        out = super().forward(z, pos, batch)["pull"]
        noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
        return {"pull": out + 1e-5 * noise}


class Unordered(Central):
    """Adds up in another order each time, as a GPU's atomic additions do."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        order = torch.randperm(self.points)
        cloud = pos.reshape(-1, self.points, 3)[:, order].reshape(-1, 3)
        out = super().forward(z.reshape(-1, self.points)[:, order].flatten(), cloud, batch)["pull"]
        return {"pull": out.reshape(-1, self.points, 3)[:, order.argsort()].reshape(-1, 3)}


class Same(nn.Module):
    """The same vector for every point."""

    def __init__(self, value: float, noise: float = 0.0) -> None:
        super().__init__()
        self.value, self.noise = value, noise

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": torch.full_like(pos, self.value) + self.noise * torch.randn_like(pos)}


class Cross(Central):
    """A cross product of two vectors is a vector under rotations and not under reflections."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": torch.linalg.cross(super().forward(z, pos, batch)["pull"], pos)}


class Ambiguous(nn.Module):
    """A frame of principal axes whose signs are the eigensolver's."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        cloud = pos.reshape(-1, 6, 3)
        cloud = cloud - cloud.mean(1, keepdim=True)
        axes = torch.linalg.eigh(cloud.transpose(1, 2) @ cloud).eigenvectors
        out = torch.tanh(cloud @ axes + 0.5) @ axes.transpose(1, 2)
        return {"pull": out.reshape(-1, 3)}


class Single(nn.Module):
    """A network that has no kernel for float64."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        if inputs["pos"].dtype == torch.float64:
            raise RuntimeError("no kernel for Double")
        out: dict[str, Tensor] = self.model(**inputs)
        return out


class Inside(Central):
    """A network that computes in float32 whatever it is given."""

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        self.radial.float()
        out = super().forward(z, pos.float(), batch)["pull"]
        return {"pull": out.to(pos.dtype)}


class Buffered(Central):
    """A constant that was rounded to float32 before it became a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.third: Tensor
        self.register_buffer("third", torch.tensor([1 / 3, 1 / 3 + 3e-8, 1 / 3]))

    def forward(self, z: Tensor, pos: Tensor, batch: Tensor) -> dict[str, Tensor]:
        return {"pull": super().forward(z, pos, batch)["pull"] * self.third}


class Answer(NamedTuple):
    """A network, and what is true of it under SO(3) and O(3)."""

    build: Callable[[], nn.Module]
    so3: bool | None
    o3: bool | None
    says: str
    """Words of the reason under O(3)."""


def anisotropic(by: float) -> Answer:
    return Answer(lambda: Broken(Central(), by), False, False, BROKEN)


def canonical() -> nn.Module:
    fields: Any = Clouds.fields
    return wrap("canonical", Raw(), fields, Clouds.index_field)


BROKEN = "does not fall like rounding"
HELD = "it falls like rounding"
NOISE = "not deterministic"
ANSWERS: Mapping[str, Answer] = {
    "messages": Answer(Central, True, True, HELD),
    "unordered sums": Answer(Unordered, True, True, HELD),
    "moving": Answer(Moving, True, True, HELD),
    "residual": Answer(Residual, True, True, HELD),
    "canonical frame": Answer(canonical, True, False, BROKEN),
    "cross product": Answer(Cross, True, False, BROKEN),
    "raw": Answer(Raw, False, False, BROKEN),
    "gridded": Answer(Gridded, False, False, BROKEN),
    "ambiguous frame": Answer(Ambiguous, False, False, BROKEN),
    **{f"anisotropic by {by:g}": anisotropic(by) for by in (1e-3, 1e-4, 1e-5, 1e-6, 1e-9, 1e-12)},
    "constant": Answer(lambda: Same(1.0), False, False, "the same whatever the input"),
    "zero": Answer(lambda: Same(0.0), None, None, "nothing to verify"),
    "seeded noise": Answer(Seeded, False, False, BROKEN),
    "noisy": Answer(Noisy, None, None, NOISE),
    "noisy constant": Answer(lambda: Same(1.0, 0.15), None, None, NOISE),
    "dropout": Answer(Dropping, None, None, NOISE),
    "constants": Answer(Buffered, True, True, "constants kept in float32"),
    "single": Answer(lambda: Single(Central()), True, True, "judged by its floor alone"),
    "float32 inside": Answer(Inside, True, True, "judged by its floor alone"),
    "single broken": Answer(
        lambda: Single(Broken(Central(), 1e-2)), False, False, "judged by its floor alone"
    ),
    "single residual": Answer(lambda: Single(Residual()), None, None, "judged by its floor alone"),
}
