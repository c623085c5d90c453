"""A U-Net that commutes with the 24 rotations of the cube, to rounding: group convolutions (Cohen &
Welling 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.kernels.backends.plain.grids import CubeLayer, cube_bank, cube_places, map_voxels
from equivbench.kernels.operations.cube_convolution import ORDER as ORDER
from equivbench.tasks.voxel.networks.unet import Layers, UNet, small
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
        if self.kernel == 1:
            return map_voxels(x, bank, bias)
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
            return cube_bank(self.weight, self.place, self.kernel, self.kind)
        weight = self.weight
        key = (weight.data_ptr(), weight._version, weight.dtype, weight.device)
        if self._bank is None or self._bank[0] != key:
            self._bank = key, cube_bank(weight, self.place, self.kernel, self.kind)
        return self._bank[1]


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


def octahedral_layers(features: int) -> Layers:
    """Layers of the cube group; a width is a number of features, each 24 channels."""
    return Layers(
        width=lambda multiple: multiple * features,
        stem=lambda out: GroupConv(len(ELEMENTS), out, 3, "lift"),
        # Averaged over the 24 copies.
        head=lambda width: small(GroupConv(width, len(ELEMENTS), 3, "project")),
        norm=CopyNorm,
        activation=lambda width: nn.SiLU(),
        last_activation=lambda width: nn.SiLU(),
        conv=lambda width, out: GroupConv(width, out, 3),
        mix=lambda width, out: GroupConv(width, out, 1),
        # An odd kernel would sample an even grid off its centre.
        down=lambda width: GroupConv(width, width, 4, stride=2),
        up=lambda width: GroupConv(width, width, 4, stride=2, transposed=True),
    )


def build(config: Mapping[str, Any]) -> UNet:
    """Config: ``features`` (24 channels each), and ``mults`` and ``blocks`` by level."""
    layers, mults = octahedral_layers(config["features"]), config["mults"]
    return UNet(layers, mults, config["blocks"], [False] * len(mults))
