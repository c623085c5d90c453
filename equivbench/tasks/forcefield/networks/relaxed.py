"""PaiNN relaxed by a small network with unconstrained vectors beside it, which sees the same
neighbours and distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equivbench.tasks.forcefield.networks import painn
from equivbench.tasks.relaxed import Relaxed


def build(config: Mapping[str, Any]) -> Relaxed:
    """Config: that of PaiNN, with the ``free_features`` of the network beside it and the scale of
    its predictions, ``relaxation``."""
    own = dict(config)
    features, relaxation = own.pop("free_features"), own.pop("relaxation")
    return Relaxed(painn.build(own), painn.build_plain({**own, "features": features}), relaxation)
