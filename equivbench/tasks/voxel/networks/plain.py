"""The U-Net as published: ordinary convolutions, which break even the symmetry of the cube."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.tasks.voxel.grid import ELEMENTS
from equivbench.tasks.voxel.networks.skeleton import UNet

HEAD_SCALE = 0.002
"""Of the last layer's first weights: an untrained network predicts next to empty space, which is
what most voxels are."""


class Attention(nn.Module):
    """One head of self-attention over all voxels. Published with a normalisation that is built and
    not used; used here."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.projection = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[samples, channels, size, size, size]."""
        voxels = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.projection(voxels).unsqueeze(1).chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        change: Tensor = self.output(attended).transpose(1, 2)
        return x + change.reshape(x.shape)


@dataclass(frozen=True)
class PlainLayers:
    """Ordinary layers; a width is a number of channels."""

    channels: int
    groups: int

    def width(self, multiple: int) -> int:
        """Channels."""
        return multiple * self.channels

    def joined(self, first: int, second: int) -> int:
        """Channels of both."""
        return first + second

    def stem(self, out: int) -> nn.Module:
        """3^3 convolution."""
        return nn.Conv3d(len(ELEMENTS), out, 3, padding=1)

    def head(self, width: int) -> nn.Module:
        """3^3 convolution with small weights."""
        head = nn.Conv3d(width, len(ELEMENTS), 3, padding=1)
        with torch.no_grad():
            head.weight.mul_(HEAD_SCALE)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        return head

    def norm(self, width: int) -> nn.Module:
        """Group normalisation."""
        return nn.GroupNorm(math.gcd(self.groups, width), width)

    def activation(self, width: int) -> nn.Module:
        """SiLU."""
        return nn.SiLU()

    def last_activation(self, width: int) -> nn.Module:
        """As everywhere."""
        return self.activation(width)

    def conv(self, width: int, out: int) -> nn.Module:
        """3^3 convolution."""
        return nn.Conv3d(width, out, 3, padding=1)

    def mix(self, width: int, out: int) -> nn.Module:
        """1^3 convolution."""
        return nn.Conv3d(width, out, 1)

    def down(self, width: int) -> nn.Module:
        """3^3 convolution of stride 2."""
        return nn.Conv3d(width, width, 3, stride=2, padding=1)

    def up(self, width: int) -> nn.Module:
        """Transposed 4^3 convolution of stride 2."""
        return nn.ConvTranspose3d(width, width, 4, stride=2, padding=1)

    def attention(self, width: int) -> nn.Module:
        """One head over all voxels."""
        return Attention(width, math.gcd(self.groups, width))


def build(config: Mapping[str, Any]) -> UNet[int]:
    """Config: ``channels``, ``groups`` (of the normalisation), and ``mults``, ``blocks``,
    ``attention`` by level."""
    layers = PlainLayers(config["channels"], config["groups"])
    return UNet(layers, config["mults"], config["blocks"], config["attention"])
