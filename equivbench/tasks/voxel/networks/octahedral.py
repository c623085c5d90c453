"""A U-Net that commutes with the 24 rotations of the cube, to rounding: group convolutions (Cohen &
Welling 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.kernels.backends.plain.grids import CubeLayer, cube_bank, cube_places
from equivbench.kernels.operations.cube_convolution import ORDER as ORDER
from equivbench.tasks.voxel.networks.unet import HEAD_SCALE, UNet
from equivbench.tasks.voxel.table import ELEMENTS


class GroupConv(nn.Module):
    """A convolution between grids whose features turn with the cube, run as one plain convolution.

    ``lift`` goes from scalars to features in the regular representation, ``group`` from such to
    such, ``project`` from such to scalars. With f(h, r) for feature copy h in O at voxel r, which g
    takes to f(g^-1 h, g^-1 r): out(g, r) = sum_h sum_s w(g^-1 h, g^-1 s) f(h, r + s). The filters
    are expanded from w [out, in, 24, k, k, k] to a bank [24 out, 24 in, k, k, k] (without the axes
    that scalars lack); channels are ordered feature by feature, 24 copies each.

    ``stride`` 2 needs an even kernel: its windows then lie symmetrically in a grid of even size.
    ``transposed``: the adjoint of the convolution from ``out`` to ``width``, equivariant like it.
    """

    place: Tensor
    """Where in a filter each entry of the bank comes from."""

    def __init__(
        self,
        width: int,
        out: int,
        kernel: int,
        kind: CubeLayer = "group",
        stride: int = 1,
        *,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride, self.transposed = kind, kernel, stride, transposed
        self.first, self.second = (width, out) if transposed else (out, width)
        copies = ORDER if kind == "group" else 1
        fan_in = (
            width * kernel**3 * (1 if kind == "lift" else ORDER) / (stride**3 if transposed else 1)
        )
        self.weight = nn.Parameter(
            torch.empty(self.first, self.second, copies * kernel**3).uniform_(-1, 1) / fan_in**0.5
        )
        self.bias = nn.Parameter(torch.zeros(out))
        self.register_buffer("place", cube_places(kernel, copies), persistent=False)
        self._bank: tuple[object, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[samples, channels, size, size, size]."""
        bias = self.bias if self.kind == "project" else self.bias.repeat_interleave(ORDER)
        bank = self.bank()
        padding = (self.kernel - 1) // 2
        if self.transposed:
            return nn.functional.conv_transpose3d(
                x, bank, bias, stride=self.stride, padding=padding
            )
        return nn.functional.conv3d(x, bank, bias, stride=self.stride, padding=padding)

    def train(self, mode: bool = True) -> GroupConv:
        """Switch the mode, and forget the bank: writes through ``.data`` leave no trace in a
        weight's version."""
        self._bank = None
        return super().train(mode)

    def bank(self) -> Tensor:
        """The expanded filters; kept while no gradients are taken, the mode and the weights
        stay."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self._expanded()
        weight = self.weight
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if self._bank is None or self._bank[0] != key:
            self._bank = key, self._expanded()
        return self._bank[1]

    def _expanded(self) -> Tensor:
        return cube_bank(self.weight, self.place, self.kernel, self.kind)


class CopyNorm(nn.Module):
    """Group normalisation with statistics and affine weights shared by the 24 copies of a
    feature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[samples, 24 width, size, size, size]."""
        weight, bias = (values.repeat_interleave(ORDER) for values in (self.weight, self.bias))
        return nn.functional.group_norm(x, self.width, weight, bias)


@dataclass(frozen=True)
class OctahedralLayers:
    """Layers of the cube group; a width is a number of features, each 24 channels."""

    features: int

    def width(self, multiple: int) -> int:
        """Features."""
        return multiple * self.features

    def joined(self, first: int, second: int) -> int:
        """Features of both."""
        return first + second

    def stem(self, out: int) -> nn.Module:
        """Lifting 3^3 convolution."""
        return GroupConv(len(ELEMENTS), out, 3, "lift")

    def head(self, width: int) -> nn.Module:
        """3^3 convolution averaged over the 24 copies, with small weights."""
        head = GroupConv(width, len(ELEMENTS), 3, "project")
        with torch.no_grad():
            head.weight.mul_(HEAD_SCALE)
        return head

    def norm(self, width: int) -> nn.Module:
        """Normalisation of each feature over its voxels and copies."""
        return CopyNorm(width)

    def activation(self, width: int) -> nn.Module:
        """SiLU, on each copy."""
        return nn.SiLU()

    def last_activation(self, width: int) -> nn.Module:
        """As everywhere."""
        return self.activation(width)

    def conv(self, width: int, out: int) -> nn.Module:
        """3^3 group convolution."""
        return GroupConv(width, out, 3)

    def mix(self, width: int, out: int) -> nn.Module:
        """1^3 group convolution."""
        return GroupConv(width, out, 1)

    def down(self, width: int) -> nn.Module:
        """4^3 group convolution of stride 2: an odd kernel would sample an even grid off its
        centre."""
        return GroupConv(width, width, 4, stride=2)

    def up(self, width: int) -> nn.Module:
        """Transposed 4^3 group convolution of stride 2."""
        return GroupConv(width, width, 4, stride=2, transposed=True)

    def attention(self, width: int) -> nn.Module:
        """None."""
        raise UsageError(
            "the cube-group U-Net has no attention; set attention to false at every level"
        )


def build(config: Mapping[str, Any]) -> UNet[int]:
    """Config: ``features`` (24 channels each), and ``mults`` and ``blocks`` by level."""
    mults = config["mults"]
    return UNet(OctahedralLayers(config["features"]), mults, config["blocks"], [False] * len(mults))
