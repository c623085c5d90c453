"""What the voxel task registers: the task, its data sets and its models. Imports no torch."""

from __future__ import annotations

from equivbench.registry import DatasetSpec

# Data sets

_SOURCES = "equivbench.tasks.voxel.sources"

DATASETS: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        name="conformers-small",
        task="voxel",
        summary="2,000 drug-like molecules, one MMFF94s conformer each, on 24^3 voxels of .5 A; shipped in the package",
        factory=f"{_SOURCES}:conformers_small",
    ),
    DatasetSpec(
        name="conformers-16",
        task="voxel",
        summary="those of the shipped molecules that fit 16^3 voxels of .5 A, for tests",
        factory=f"{_SOURCES}:conformers_16",
    ),
    DatasetSpec(
        name="conformers-64",
        task="voxel",
        summary="the 2,000 shipped molecules on the published grid, 64^3 voxels of .25 A",
        factory=f"{_SOURCES}:conformers_64",
    ),
    DatasetSpec(
        name="conformers-10k",
        task="voxel",
        summary="10,000 drug-like molecules on 64^3 voxels of .25 A; generated on request (extra 'generate')",
        factory=f"{_SOURCES}:conformers_10k",
    ),
    DatasetSpec(
        name="geom-drugs",
        task="voxel",
        summary="GEOM-drugs (MiDi's split) on 64^3 voxels of .25 A; the user gives the folder (extra 'generate')",
        factory=f"{_SOURCES}:geom_drugs",
    ),
)
