"""What a pretrained network is asked, and what comes of it: the parts of its record that the
measurement itself knows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from equivbench.records.pretrained import GridErrors
from equivbench.records.schema import Number
from equivbench.specs import Group

WARM_UP = 3
"""Calls that are not timed: first ones compile, and fill caches."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How a network is measured."""

    samples: int = 16
    rotations: int = 4
    group: Group = "so3"
    poses: int = 4
    """Random orientations of a complex on a grid, each turned by the 24 rotations of the cube."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Fields as in :class:`equivbench.records.pretrained.PretrainedMeasurement`."""

    data: str
    data_sha256: str
    reference: str | None
    unit: str
    samples: int
    atoms: float
    rotations: int
    group: Group
    symmetry_verified: bool | None
    verdict: str
    total: float
    twirled: float
    equivariance: float
    share: float
    share_low: Number
    share_high: Number
    floor: Number
    explained: Number
    seconds: list[float]
    """Of each timed call."""
    grid: GridErrors | None = None
    reasons: dict[str, str] = field(default_factory=dict)
