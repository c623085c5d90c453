"""Between the stated layout, channels innermost in each block, and that of libraries that keep them
outermost, as e3nn does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Blocks = Sequence[tuple[int, int]]
"""(channels, 2 l + 1) of each block."""


def channels_outermost(features: Tensor, blocks: Blocks) -> Tensor:
    """[rows, features, ...] with each block turned from [2 l + 1, channels] into [channels, 2 l +
    1]."""
    return _turned(features, [(height, channels) for channels, height in blocks])


def channels_innermost(features: Tensor, blocks: Blocks) -> Tensor:
    """[rows, features, ...] with each block turned from [channels, 2 l + 1] into [2 l + 1,
    channels]."""
    return _turned(features, blocks)


def _turned(features: Tensor, shapes: Blocks) -> Tensor:
    parts = torch.split(features, [first * second for first, second in shapes], dim=1)
    turned = [
        torch.unflatten(part, 1, shape).transpose(1, 2).flatten(1, 2)
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return torch.cat(turned, dim=1)


def degree_blocks(channels: Sequence[int]) -> Blocks:
    """Blocks of degrees 0, 1, ... with so many ``channels``."""
    return [(count, 2 * degree + 1) for degree, count in enumerate(channels)]
