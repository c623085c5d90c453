"""Spherical features [atoms, 2 l + 1, channels]: the linear map of one degree."""

from __future__ import annotations

from torch import nn


def degree_map(inputs: int, outputs: int) -> nn.Linear:
    """A bias-free map of the channels of one degree, N(0, 1 / inputs) weights: e3nn's o3.Linear in
    this layout."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer
