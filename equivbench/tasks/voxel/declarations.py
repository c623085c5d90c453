"""What the voxel task registers: the task, its data sets and its models. Imports no torch."""

from __future__ import annotations

from equivbench.specs import DatasetSpec, Field, Group, ModelSpec, TaskSpec

# Task

BOARD_UNIT = "1"
GROUP: Group = "octahedral"
_GRID = ("samples", 8, "size", "size", "size")
FIELDS = (
    Field(
        "pos",
        ("atoms", 3),
        "float32",
        "1o",
        "node",
        "A",
        "sample",
        "positions from the centre of the smallest ball",
    ),
    Field(
        "channel", ("atoms",), "int64", "0e", "node", "1", "sample", "element: H C N O F S Cl Br"
    ),
    Field("batch", ("atoms",), "int64", "0e", "none", "1", "sample", "sorted molecule index"),
    Field("n_atoms", ("samples",), "int64", "0e", "graph", "1", "sample", "atoms of each molecule"),
    Field(
        "grid",
        ("samples", 4),
        "float64",
        "4x0e",
        "graph",
        "1",
        "sample",
        "size, resolution (A), radius (A), sigma of the noise",
    ),
    Field("noise", _GRID, "float32", "voxel(8x0e)", "graph", "1", "noise", "unit normal"),
    Field(
        "noisy", _GRID, "float32", "voxel(8x0e)", "graph", "1", "derived", "density + sigma * noise"
    ),
    Field(
        "density",
        _GRID,
        "float32",
        "voxel(8x0e)",
        "graph",
        "1",
        "output",
        "of the atoms of each element, in [0, 1]",
    ),
)

TASKS: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="voxel",
        summary="densities of molecules on voxel grids from noisy ones, one channel an element",
        factory="equivbench.tasks.voxel.task:VoxelDenoising",
        fields=FIELDS,
        board_unit=BOARD_UNIT,
        group=GROUP,
    ),
)

# Data sets

_SOURCES = "equivbench.tasks.voxel.sources"
_CHECKSUMS = {"1": "e050a32755a58d9dd05a1663dc50abe941e2ad64928586bcfb5852fcbc978919"}
_LOWEST = 1e-10
"""Mean squared density between positions that round to the same thousandths of an A: 7e-10 on 16^3
voxels of .5 A, 4e-10 on 24^3, and in proportion to the volume of the box 2e-10 on 64^3 voxels of
.25 A; rounded down."""

DATASETS: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        name="conformers-small",
        task="voxel",
        summary="2,000 drug-like molecules, one MMFF94s conformer each, on 24^3 voxels of .5 A; "
        "shipped in the package",
        factory=f"{_SOURCES}:conformers_small",
        checksums=_CHECKSUMS,
        lowest_loss=_LOWEST,
        sizes={"train": 1381, "validation": 216, "test": 403},
    ),
    DatasetSpec(
        name="conformers-16",
        task="voxel",
        summary="those of the shipped molecules that fit 16^3 voxels of .5 A, for tests",
        factory=f"{_SOURCES}:conformers_16",
        checksums=_CHECKSUMS,
        lowest_loss=_LOWEST,
        sizes={"train": 100, "validation": 19, "test": 38},
    ),
    DatasetSpec(
        name="conformers-64",
        task="voxel",
        summary="the 2,000 shipped molecules on the published grid, 64^3 voxels of .25 A",
        factory=f"{_SOURCES}:conformers_64",
        checksums=_CHECKSUMS,
        lowest_loss=_LOWEST,
        sizes={"train": 1381, "validation": 216, "test": 403},
    ),
    DatasetSpec(
        name="conformers-10k",
        task="voxel",
        summary="10,000 drug-like molecules on 64^3 voxels of .25 A; generated on request (extra "
        "'generate')",
        factory=f"{_SOURCES}:conformers_10k",
        lowest_loss=_LOWEST,
    ),
    DatasetSpec(
        name="geom-drugs",
        task="voxel",
        summary="GEOM-drugs (MiDi's split) on 64^3 voxels of .25 A; the user gives the folder "
        "(extra 'generate')",
        factory=f"{_SOURCES}:geom_drugs",
    ),
    DatasetSpec(
        name="qm9-32",
        task="voxel",
        summary="QM9, those of its molecules that fit VoxMol's 32^3 voxels of .25 A at every "
        "rotation; the user gives the wheel of qm9pack",
        factory=f"{_SOURCES}:qm9_32",
        lowest_loss=_LOWEST,
    ),
    DatasetSpec(
        name="qm9",
        task="voxel",
        summary="QM9 on 20^3 voxels of .5 A, which hold more of it; the user gives the wheel of "
        "qm9pack",
        factory=f"{_SOURCES}:qm9_coarse",
        lowest_loss=_LOWEST,
    ),
)

# Models

_NETWORKS = "equivbench.tasks.voxel.networks"

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="unet",
        task="voxel",
        symmetry="none",
        build=f"{_NETWORKS}.unet:build",
        summary="VoxMol's 3D U-Net",
    ),
    ModelSpec(
        name="octahedral-unet",
        task="voxel",
        symmetry="octahedral",
        build=f"{_NETWORKS}.octahedral:build",
        summary="3D U-Net of group convolutions: features in the regular representation of the 24 "
        "cube rotations",
    ),
    ModelSpec(
        name="relaxed-octahedral-unet",
        task="voxel",
        symmetry="none",
        build=f"{_NETWORKS}.relaxed:build",
        summary="the same and, on a small scale, a small plain U-Net beside it",
    ),
    ModelSpec(
        name="steerable-unet",
        task="voxel",
        symmetry="so3",
        build=f"{_NETWORKS}.steerable:build",
        summary="3D U-Net of e3nn's voxel convolutions: features in irreps, kernels in spherical "
        "harmonics",
    ),
)
