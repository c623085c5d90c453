"""The network in frames relaxed by a small transformer on raw coordinates beside it: what both give
for the velocity is added, about one prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.tasks.flow.networks.invariant_points import FrameNetwork
from equivbench.tasks.flow.networks.transformer import CoordinateNetwork, Denoiser, denoiser
from equivbench.tasks.relaxed import Relaxed


def relaxed_network(
    dim: int,
    free_dim: int,
    relaxation: float,
    scalars: int,
    query_points: int,
    value_points: int,
    **shared: int,
) -> Relaxed:
    """Both networks, of ``dim`` and ``free_dim`` features a residue, with the ``shared`` sizes."""
    bound = FrameNetwork(
        dim, scalars=scalars, query_points=query_points, value_points=value_points, **shared
    )
    return Relaxed(bound, CoordinateNetwork(free_dim, **shared), relaxation)


def build(config: Mapping[str, Any]) -> Denoiser:
    """Config: that of the network in frames, with the width ``free_dim`` of the transformer beside
    it and the scale of what that gives, ``relaxation``."""
    return denoiser(relaxed_network, config)
