"""The named problems that `equivbench kernels`, asv, pytest-benchmark and the gate draw on. Imports
no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from equivbench.errors import unknown_name
from equivbench.kernels.attention_operations import InvariantPointAttention, PairBiasAttention
from equivbench.kernels.grid_operations import CubeConvolution, SteerableConvolution
from equivbench.kernels.operations import (
    Convolution,
    EdgeProduct,
    Linear,
    NeighbourSearch,
    Operation,
    RadialBasis,
    SO2Convolution,
    SphericalHarmonics,
)


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
    """Whether it is checked and timed in about a second: what the gate, asv and pytest-benchmark
    take by default."""


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
        "128 channels of l <= 1 with harmonics to l = 3, as MACE's, messages to l = 2",
    ),
    Case(
        "convolution-c64-l3",
        Convolution((64, 64, 64, 64), 3, 3),
        {"nodes": 500, "edges": 10_000},
        2,
        "NequIP, 64 channels to l = 3 (2101.03164)",
    ),
    Case(
        "convolution-mace-128",
        Convolution((128, 128), 3, 3),
        {"nodes": 500, "edges": 10_000},
        2,
        "MACE-MP-0 medium: 128x0e+128x1o, harmonics and messages to l = 3 (2401.00096)",
    ),
    Case(
        "convolution-sevennet-0",
        Convolution((128, 64, 32), 2, 2, parity=False),
        {"nodes": 500, "edges": 10_000},
        2,
        "SevenNet-0: 128x0e+64x1e+32x2e, is_parity: False (MDIL-SNU/SevenNet, pretrained_potentials/SevenNet_0/fine_tune.yaml)",
    ),
    *(
        Case(
            f"harmonics-l{lmax}",
            SphericalHarmonics(lmax),
            {"edges": 10_000},
            2,
            "every network on harmonics; the edges of the convolution cases",
            quick=True,
        )
        for lmax in (1, 2, 3, 4)
    ),
    Case(
        "linear-c64-l2",
        Linear((64, 64, 64), (64, 64, 64)),
        {"nodes": 500},
        2,
        "NequIP's maps before and after a convolution (2101.03164)",
        quick=True,
    ),
    Case(
        "radial-basis-8",
        RadialBasis(8, 5.0),
        {"edges": 10_000},
        2,
        "8 Bessel functions to 5 A, as in NequIP (2101.03164)",
        quick=True,
    ),
    Case(
        "neighbours-5a",
        NeighbourSearch(5.0),
        {"molecules": 16, "atoms": 24},
        0,
        "a batch of molecules of the force-field task, all pairs within 5 A",
        quick=True,
    ),
    Case(
        "edge-product-c16-l2",
        EdgeProduct(16, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "Allegro's product at the tensor-product pair's edge count",
        quick=True,
    ),
    Case(
        "edge-product-c64-l2",
        EdgeProduct(64, 2),
        {"nodes": 500, "edges": 10_000},
        2,
        "Allegro, 64 tensor features to l = 2 (2204.05249)",
    ),
    Case(
        "so2-c16-l2",
        SO2Convolution(16, 16, 2, 2),
        {"nodes": 160, "edges": 1_920},
        2,
        "eSCN's convolution at the tensor-product pair's edge count",
        quick=True,
    ),
    Case(
        "so2-c128-l3-m2",
        SO2Convolution(128, 128, 3, 2),
        {"nodes": 100, "edges": 2_000},
        2,
        "eSEN-30M: 128 channels, l = 3, m = 2 (2502.12147)",
    ),
    Case(
        "pair-bias-attention-64",
        PairBiasAttention(8, 16),
        {"samples": 8, "residues": 64},
        1,
        "the flow task's small networks: 8 heads of 16, 64 residues",
        quick=True,
    ),
    Case(
        "pair-bias-attention-256",
        PairBiasAttention(12, 64),
        {"samples": 1, "residues": 256},
        1,
        "Proteina: 768 features in 12 heads, 256 residues (2503.00710)",
    ),
    Case(
        "point-attention-64",
        InvariantPointAttention(8, 16, 4, 8),
        {"samples": 4, "residues": 64},
        1,
        "AlphaFold 2's structure module with 8 heads, 64 residues",
        quick=True,
    ),
    Case(
        "point-attention-256",
        InvariantPointAttention(12, 16, 4, 8),
        {"samples": 1, "residues": 256},
        1,
        "AlphaFold 2's structure module: 12 heads of 16, 4 query and 8 value points (Jumper et al. 2021, algorithm 22)",
    ),
    Case(
        "steerable-voxels-8",
        SteerableConvolution((8, 4, 2), (8, 4, 2), 2, 5.0, 3),
        {"samples": 2, "size": 8},
        1,
        "the voxel task's steerable network at a coarse level",
        quick=True,
    ),
    Case(
        "cube-voxels-2",
        CubeConvolution(2, 2, 3),
        {"samples": 2, "size": 8},
        1,
        "the voxel task's cube-group network at a coarse level",
        quick=True,
    ),
    Case(
        "cube-voxels-4",
        CubeConvolution(4, 4, 3),
        {"samples": 1, "size": 24},
        1,
        "the voxel task's cube-group network at its finest level",
    ),
)


def case(name: str) -> Case:
    """The case called ``name``; raises ``UsageError`` with the close matches."""
    for one in CASES:
        if one.name == name:
            return one
    raise unknown_name("kernel case", name, [one.name for one in CASES])
