"""A transformer in the frames of the cube: the operations of the plain one, equivariant under 24
rotations because its weights are shared among frames.

An atom's features are those that an observer in each of the 24 frames R_g sees (the regular
representation), after the Platonic Transformers of Islam et al. (2510.03511): every linear map is a
convolution over the group, out_g = sum_h W(g^-1 h) x_h, run as one dense product of the plain
network's size, and each frame has attention heads of its own. What an observer sees of a relative
vector is R_g^T r; not the vectors are turned for that but the weights that multiply them. There the
paper has rotary encodings; here the trunk is that of the plain transformer, filters of r included,
so that a pair of the two differs in nothing but the sharing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from equivbench.symmetry.rotations import octahedral_rotations
from equivbench.tasks.forcefield.networks.transformer import Maps, VectorTransformer

FRAMES = 24


def frame_quotients() -> Tensor:
    """[24, 24] int64: the number of g^-1 h, by g and h, among the rotations of the cube in
    :func:`equivbench.symmetry.rotations.octahedral_rotations`' order."""
    rotations = octahedral_rotations(torch.float64)
    products = rotations.transpose(1, 2).unsqueeze(1) @ rotations
    same = (products.unsqueeze(2) == rotations).all(-1).all(-1)
    return same.long().argmax(-1)


class Shared(nn.Module):
    """A linear layer whose weights :meth:`dense` makes of fewer, which frames share."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., outputs] from [..., inputs]."""
        return functional.linear(x, *self.dense())

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """([outputs, inputs], [outputs] or None): what a plain layer would have."""
        raise NotImplementedError


class FrameLinear(Shared):
    """A group convolution from ``inputs`` to ``outputs`` numbers, in all frames together, frame by
    frame; ``parts`` of the outputs lie side by side, each frame by frame."""

    quotients: Tensor

    def __init__(self, inputs: int, outputs: int, parts: int = 1) -> None:
        super().__init__()
        each, self.parts = outputs // FRAMES, parts
        self.weight = _drawn(inputs, FRAMES, each, inputs // FRAMES)
        self.bias = _drawn(inputs, each)
        self.register_buffer("quotients", frame_quotients(), persistent=False)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """Of [g, h, part, out, in] rows (part, g, out) and columns (h, in)."""
        bank = self.weight.unflatten(1, (self.parts, -1))[self.quotients]
        bank = bank.permute(2, 0, 3, 1, 4).flatten(0, 2).flatten(1)
        bias = self.bias.unflatten(0, (self.parts, 1, -1)).expand(-1, FRAMES, -1)
        return bank, bias.flatten()


class FrameGeometry(Shared):
    """What each frame sees of an edge: from K functions of its length, then these times x, y and z
    of its direction, to ``outputs`` numbers."""

    rotations: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # [a frame's features, 1 and x, y, z as the frame sees them, K]
        self.weight = _drawn(inputs, outputs // FRAMES, 4, inputs // 4)
        self.bias = _drawn(inputs, outputs // FRAMES)
        self.register_buffer("rotations", octahedral_rotations(torch.float32), persistent=False)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """w . R^T d = (R w) . d."""
        turned = torch.einsum("gij,cjk->gcik", self.rotations, self.weight[:, 1:])
        alone = self.weight[:, :1].expand(FRAMES, -1, -1, -1)
        bank = torch.cat([alone, turned], dim=2).flatten(2).flatten(0, 1)
        return bank, self.bias.repeat(FRAMES)


class FrameVector(Shared):
    """A vector that every frame reads in its own axes, added up in those of the world."""

    rotations: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = _drawn(inputs, 3, inputs // FRAMES)
        self.register_buffer("rotations", octahedral_rotations(torch.float32), persistent=False)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """No vector is the same in all frames: there is no bias."""
        return torch.einsum("gij,jc->igc", self.rotations, self.weight).flatten(1), None


class FrameScalar(Shared):
    """A number that every frame reads alike, added up."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = _drawn(inputs, 1, inputs // FRAMES)
        self.bias = _drawn(inputs, 1)

    def dense(self) -> tuple[Tensor, Tensor | None]:
        """The same weights for every frame."""
        return self.weight.repeat(1, FRAMES), self.bias


class FrameNorm(nn.Module):
    """Layer normalisation over all frames, whose affine map the frames share."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width // FRAMES))
        self.bias = nn.Parameter(torch.zeros(width // FRAMES))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width]."""
        weight, bias = (each.repeat(FRAMES) for each in (self.weight, self.bias))
        return functional.layer_norm(x, x.shape[-1:], weight, bias)


def _drawn(inputs: int, *shape: int) -> nn.Parameter:
    """Weights as those of a plain layer with so many inputs are drawn."""
    return nn.Parameter(torch.empty(shape).uniform_(-1, 1) / inputs**0.5)


IN_FRAMES = Maps(
    linear=FrameLinear,
    two=lambda width: FrameLinear(width, 2 * width, parts=2),
    norm=FrameNorm,
    geometry=FrameGeometry,
    scalar=FrameScalar,
    vector=FrameVector,
    copies=FRAMES,
)


def build(config: Mapping[str, Any]) -> VectorTransformer:
    """Config: ``features`` and ``heads`` of a frame, ``layers``, ``radial`` functions, ``cutoff``
    (A), ``neighbours`` (their mean number)."""
    sizes = {name: config[name] for name in ("layers", "radial", "cutoff", "neighbours")}
    width, heads = FRAMES * config["features"], FRAMES * config["heads"]
    return VectorTransformer(width=width, heads=heads, maps=IN_FRAMES, **sizes)
