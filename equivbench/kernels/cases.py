"""The named problems that `equivbench kernels`, asv, pytest-benchmark and the gate draw on. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from equivbench.errors import unknown_name
from equivbench.kernels.operations import Convolution, Operation


@dataclass(frozen=True)
class Case:
    """An operation at a size that people run."""

    name: str
    operation: Operation
    sizes: Mapping[str, int]
    """What the operation leaves open, such as ``nodes`` and ``edges``."""
    derivatives: int
    """How often networks differentiate it: 2 where forces come from an energy."""
    source: str
    """Which network, and where its sizes are published."""
    quick: bool = False
    """Whether it is checked and timed in about a second: what the gate, asv and pytest-benchmark take by default."""


CASES: tuple[Case, ...] = (
    Case(
        "convolution-c8-l2",
        Convolution((8, 8, 8), 2, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "the tensor-product pair's dev preset: 8 molecules of 20 atoms with 12 neighbours",
        quick=True,
    ),
    Case(
        "convolution-c32-l2",
        Convolution((32, 32, 32), 2, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "the tensor-product pair's small preset: 8 molecules of 20 atoms with 12 neighbours",
        quick=True,
    ),
    Case(
        "convolution-c64-l2",
        Convolution((64, 64, 64), 2, 2),
        {"nodes": 500, "edges": 10_000},
        2,
        "NequIP, 64 channels to l = 2 (2101.03164)",
    ),
    Case(
        "convolution-c128-l2-ls3",
        Convolution((128, 128), 3, 2),
        {"nodes": 500, "edges": 10_000},
        2,
        "MACE, 128 channels of l <= 1, harmonics to l = 3",
    ),
    Case(
        "convolution-c64-l3",
        Convolution((64, 64, 64, 64), 3, 3),
        {"nodes": 500, "edges": 10_000},
        2,
        "NequIP, 64 channels to l = 3 (2101.03164)",
    ),
)


def case(name: str) -> Case:
    """The case called ``name``; raises ``UsageError`` with the close matches."""
    for one in CASES:
        if one.name == name:
            return one
    raise unknown_name("kernel case", name, [one.name for one in CASES])
