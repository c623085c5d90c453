"""Measurements of pretrained networks as an honest record holds them."""

from __future__ import annotations

from typing import Any

from equivbench.records.pretrained import AveragedCost, GridErrors, PretrainedMeasurement
from equivbench.records.schema import Environment, Git


def measurement(network: str = "toy", **overrides: Any) -> PretrainedMeasurement:
    """A force field against GFN2-xTB, with ``overrides`` by field."""
    facts: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "command": "equivbench pretrained",
        "network": network,
        "family": "toys",
        "source": "nowhere",
        "packages": {"toy-networks": "1.0"},
        "data": "gfn2-small",
        "data_sha256": "0" * 64,
        "reference": "GFN2-xTB",
        "unit": "(eV/A)^2",
        "samples": 16,
        "atoms": 30.0,
        "rotations": 4,
        "group": "so3",
        "seed": 0,
        "symmetry": "none",
        "symmetry_verified": None,
        "verdict": "equivariance error under so3: much",
        "total": 0.5,
        "twirled": 0.4,
        "equivariance": 0.1,
        "share": 0.2,
        "share_low": 0.1,
        "share_high": 0.3,
        "floor": 1e-12,
        "explained": 0.9,
        "averaged": {
            str(count): AveragedCost(error=0.4 + 0.1 / count, seconds=0.25 * count)
            for count in (2, 4, 8)
        },
        "call_seconds": 0.25,
        "calls": 60,
        "environment": Environment(
            machine_key="toy-cpu-2t",
            device="cpu",
            driver=None,
            cpu="Toy CPU",
            threads=2,
            python="3.11.0",
            packages={},
        ),
        "git": Git(commit=None, dirty=None),
    }
    return PretrainedMeasurement(**{**facts, **overrides})


def on_a_grid(network: str = "voxels", **overrides: Any) -> PretrainedMeasurement:
    """A score of one complex."""
    facts: dict[str, Any] = {
        "data": "complex",
        "reference": "measured",
        "unit": "pK^2",
        "samples": 1,
        "rotations": 96,
        "share_low": None,
        "share_high": None,
        "explained": None,
        "grid": GridErrors(poses=4, learning=0.07, grid=0.03, translation=0.01),
        "reasons": dict.fromkeys(("share_low", "share_high", "explained"), "one complex"),
    }
    return measurement(network, **{**facts, **overrides})
