"""VoxMol's U-Net (Pinheiro et al. 2023, after Ho et al. 2020) with the layers left open, and the
ordinary layers as published, which break even the symmetry of the cube."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equivbench.errors import UsageError
from equivbench.kernels.backends.plain.grids import laid_out, map_voxels
from equivbench.tasks.voxel.table import ELEMENTS

HEAD_SCALE = 0.002
"""Of the last layer's first weights: an untrained network predicts next to empty space, which is
what most voxels are."""


def _no_attention(width: Any) -> nn.Module:
    raise UsageError("an equivariant U-Net has no attention; set attention to false at every level")


@dataclass(frozen=True)
class Layers:
    """The layers of one kind of network.

    A width is what it calls the type of a feature grid (a number of channels, irreps); the sum of
    two is that of grids concatenated over channels.
    """

    width: Callable[[int], Any]
    """A multiple of the base width."""
    stem: Callable[[Any], nn.Module]
    """Input channels to features."""
    head: Callable[[Any], nn.Module]
    """Features to output channels; its outputs start small."""
    norm: Callable[[Any], nn.Module]
    """Normalisation over a sample's voxels."""
    activation: Callable[[Any], nn.Module]
    """Pointwise nonlinearity."""
    last_activation: Callable[[Any], nn.Module]
    """That before the head, at full resolution."""
    conv: Callable[[Any, Any], nn.Module]
    """A convolution that keeps the size."""
    mix: Callable[[Any, Any], nn.Module]
    """A linear map of each voxel."""
    down: Callable[[Any], nn.Module]
    """Half the size."""
    up: Callable[[Any], nn.Module]
    """Twice the size."""
    attention: Callable[[Any], nn.Module] = _no_attention
    """Attention over voxels."""


def small(head: nn.Module) -> nn.Module:
    """``head`` with its weights scaled by ``HEAD_SCALE`` and no bias."""
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            parameter.mul_(HEAD_SCALE) if name == "weight" else nn.init.zeros_(parameter)
    return head


class Residual(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), with a linear map where the width changes."""

    def __init__(self, layers: Layers, width: Any, out: Any) -> None:
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


class UNet(nn.Module):
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
        layers: Layers,
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

        def block(width: Any, out: Any, attends: bool) -> nn.Module:
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
            decoded = [block(width + width, width, attends) for _ in range(count)]
            if count:
                # The level's own input comes in last, with the width of the level above.
                decoded.append(block(width + above, above, attends))
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

        In between grids lie in memory as
        :func:`equivbench.kernels.backends.plain.grids.grid_layout` says. Raises ``UsageError`` if
        the grid cannot be halved as often as the network is deep.
        """
        check_depth(noisy.shape[-1], self.levels - 1)
        x = self.stem(laid_out(noisy))
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
        return {"density": self.out(x).contiguous()}


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


class VoxelLinear(nn.Conv3d):
    """A linear map of the channels of each voxel."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[samples, out, size, size, size]."""
        return map_voxels(x, self.weight, self.bias)


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


def build(config: Mapping[str, Any]) -> UNet:
    """Config: ``channels``, ``groups`` (of the normalisation), and ``mults``, ``blocks``,
    ``attention`` by level."""
    channels, groups = config["channels"], config["groups"]
    layers = Layers(
        width=lambda multiple: multiple * channels,
        stem=lambda out: nn.Conv3d(len(ELEMENTS), out, 3, padding=1),
        head=lambda width: small(nn.Conv3d(width, len(ELEMENTS), 3, padding=1)),
        norm=lambda width: nn.GroupNorm(math.gcd(groups, width), width),
        activation=lambda width: nn.SiLU(),
        last_activation=lambda width: nn.SiLU(),
        conv=lambda width, out: nn.Conv3d(width, out, 3, padding=1),
        mix=VoxelLinear,
        down=lambda width: nn.Conv3d(width, width, 3, stride=2, padding=1),
        up=lambda width: nn.ConvTranspose3d(width, width, 4, stride=2, padding=1),
        attention=lambda width: VoxelAttention(width, math.gcd(groups, width)),
    )
    return UNet(layers, config["mults"], config["blocks"], config["attention"])
