"""The U-Net of the cube group relaxed by a small ordinary one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.tasks.relaxed import Relaxed
from equivbench.tasks.voxel.networks import octahedral, unet


def build(config: Mapping[str, Any]) -> Relaxed:
    """Config: that of the equivariant U-Net, with the ``free_channels`` of the ordinary one beside
    it, normalised together, how much wider each of its levels is (``free_mults``), and the scale of
    its predictions, ``relaxation``."""
    free = {
        "channels": config["free_channels"],
        "groups": 1,
        "mults": config["free_mults"],
        "blocks": config["blocks"],
        "attention": [False] * len(config["blocks"]),
    }
    return Relaxed(octahedral.build(config), unet.build(free), config["relaxation"])
