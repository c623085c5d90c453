"""VoxMol's U-Net (Pinheiro et al. 2023, after Ho et al. 2020) with the layers left open, and the
ordinary layers as published, which break even the symmetry of the cube."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.tasks.voxel.table import ELEMENTS

W = TypeVar("W")
HEAD_SCALE = 0.002
"""Of the last layer's first weights: an untrained network predicts next to empty space, which is
what most voxels are."""


class Layers(Protocol[W]):
    """The layers of one kind of network. A width ``W`` is what it calls the type of a feature grid
    (channels, irreps)."""

    def width(self, multiple: int) -> W:
        """``multiple`` times the base width."""
        ...

    def joined(self, first: W, second: W) -> W:
        """The width of two grids concatenated over channels."""
        ...

    def stem(self, out: W) -> nn.Module:
        """Input channels to features."""
        ...

    def head(self, width: W) -> nn.Module:
        """Features to output channels; its outputs start small."""
        ...

    def norm(self, width: W) -> nn.Module:
        """Normalisation over a sample's voxels."""
        ...

    def activation(self, width: W) -> nn.Module:
        """Pointwise nonlinearity."""
        ...

    def last_activation(self, width: W) -> nn.Module:
        """The nonlinearity before the head, at full resolution."""
        ...

    def conv(self, width: W, out: W) -> nn.Module:
        """A convolution that keeps the size."""
        ...

    def mix(self, width: W, out: W) -> nn.Module:
        """A linear map of each voxel."""
        ...

    def down(self, width: W) -> nn.Module:
        """Half the size."""
        ...

    def up(self, width: W) -> nn.Module:
        """Twice the size."""
        ...

    def attention(self, width: W) -> nn.Module:
        """Attention over voxels, or ``UsageError`` where the kind has none."""
        ...


class Residual(nn.Module, Generic[W]):
    """x + conv(act(norm(conv(act(norm(x)))))), with a linear map where the width changes."""

    def __init__(self, layers: Layers[W], width: W, out: W) -> None:
        super().__init__()
        self.change = nn.Sequential(
            layers.norm(width),
            layers.activation(width),
            layers.conv(width, out),
            layers.norm(out),
            layers.activation(out),
            layers.conv(out, out),
        )
        self.shortcut = nn.Identity() if width == out else layers.mix(width, out)

    def forward(self, x: Tensor) -> Tensor:
        """[samples, channels, size, size, size]."""
        residual: Tensor = self.change(x) + self.shortcut(x)
        return residual


class UNet(nn.Module, Generic[W]):
    """Encoder and decoder joined at every resolution.

    Parameters
    ----------
    layers
        The kind of network.
    mults
        How much wider each level is than the one above it (so widths multiply: 1, 2, 2, 4 is up to
        16 times the first).
    blocks
        Residual blocks of each level of the encoder; the decoder has one more, each joined to an
        output of the encoder. A level of 0 blocks has none in the decoder either: its grid is
        added, a saving where full resolution is what costs.
    attention
        Whether attention follows the blocks of each level; the bottom has it if any level has.
    """

    def __init__(
        self,
        layers: Layers[W],
        mults: Sequence[int],
        blocks: Sequence[int],
        attention: Sequence[bool],
    ) -> None:
        super().__init__()
        if not len(mults) == len(blocks) == len(attention):
            raise UsageError(
                f"mults, blocks and attention name {len(mults)}, {len(blocks)} and "
                f"{len(attention)} levels; give each level one"
            )
        if any(mult != 1 for mult, count in zip(mults, blocks, strict=True) if count == 0):
            raise UsageError(
                "a level without blocks cannot change the width; give it the multiple 1"
            )
        self.levels = len(mults)
        multiples = [1]
        for mult in mults:
            multiples.append(multiples[-1] * mult)
        widths = [layers.width(multiple) for multiple in multiples]

        def block(width: W, out: W, attends: bool) -> nn.Module:
            residual = Residual(layers, width, out)
            return nn.Sequential(residual, layers.attention(out)) if attends else residual

        self.stem = layers.stem(widths[0])
        self.encoder, self.downs = nn.ModuleList(), nn.ModuleList()
        self.decoder, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, (count, attends) in enumerate(zip(blocks, attention, strict=True)):
            above, width = widths[level], widths[level + 1]
            self.encoder.append(
                nn.ModuleList(
                    block(above if position == 0 else width, width, attends)
                    for position in range(count)
                )
            )
            decoded = [block(layers.joined(width, width), width, attends) for _ in range(count)]
            if count:
                # The level's own input comes in last, with the width of the level above.
                decoded.append(block(layers.joined(width, above), above, attends))
            self.decoder.append(nn.ModuleList(decoded))
            if level < self.levels - 1:
                self.downs.append(layers.down(width))
                self.ups.append(layers.up(width))
        last = widths[-1]
        middle = [Residual(layers, last, last), Residual(layers, last, last)]
        self.middle = nn.Sequential(
            middle[0], *([layers.attention(last)] if any(attention) else []), middle[1]
        )
        self.out = nn.Sequential(
            layers.norm(widths[0]), layers.last_activation(widths[0]), layers.head(widths[0])
        )

    def forward(self, noisy: Tensor) -> dict[str, Tensor]:
        """``density`` in the shape of ``noisy`` [samples, channels, size, size, size].

        Raises ``UsageError`` if the grid cannot be halved as often as the network is deep.
        """
        check_depth(noisy.shape[-1], self.levels - 1)
        x = self.stem(noisy)
        kept = []
        for level, blocks in enumerate(self.encoder):
            outputs = [x]
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
                outputs.append(x)
            kept.append(outputs)
            if level < self.levels - 1:
                x = self.downs[level](x)
        x = self.middle(x)
        for level in reversed(range(self.levels)):
            if level < self.levels - 1:
                x = self.ups[level](x)
            outputs = kept[level]
            if len(self.decoder[level]) == 0:  # type: ignore[arg-type]
                x = x + outputs.pop()
            for block in self.decoder[level]:  # type: ignore[attr-defined]
                x = block(torch.cat([x, outputs.pop()], dim=1))
        return {"density": self.out(x)}


def check_depth(size: int, halvings: int) -> None:
    """Raise ``UsageError`` unless a grid of ``size`` can be halved ``halvings`` times and leave at
    least two voxels."""
    if size % 2**halvings or size // 2**halvings < 2:
        raise UsageError(
            f"a grid of {size}^3 voxels cannot be halved {halvings} times to 2^3 voxels or more, "
            f"as a U-Net of {halvings + 1} "
            f"levels does; choose fewer levels, or a multiple of {2**halvings} from "
            f"{2 ** (halvings + 1)} on"
        )


class VoxelAttention(nn.Module):
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
        return VoxelAttention(width, math.gcd(self.groups, width))


def build(config: Mapping[str, Any]) -> UNet[int]:
    """Config: ``channels``, ``groups`` (of the normalisation), and ``mults``, ``blocks``,
    ``attention`` by level."""
    layers = PlainLayers(config["channels"], config["groups"])
    return UNet(layers, config["mults"], config["blocks"], config["attention"])
