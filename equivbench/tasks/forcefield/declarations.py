"""What the force-field task registers: the task, its data sets and its models. Imports no torch."""

from __future__ import annotations

from equivbench.registry import DatasetSpec, ModelSpec, TaskSpec

_SOURCES = "equivbench.tasks.forcefield.sources"

TASK = TaskSpec(
    name="forcefield",
    summary="forces and energies of molecules from atomic numbers and positions (eV/A, eV)",
    factory="equivbench.tasks.forcefield.task:ForceField",
)

DATASETS: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        name="gfn2-small",
        task="forcefield",
        summary="about 2,000 conformations of 400 drug-like molecules, GFN2-xTB labels; shipped in the package",
        factory=f"{_SOURCES}:gfn2_small",
    ),
    DatasetSpec(
        name="gfn2-20k",
        task="forcefield",
        summary="20,000 conformations of 4,000 drug-like molecules, GFN2-xTB labels; generated on request (extra 'generate')",
        factory=f"{_SOURCES}:gfn2_20k",
    ),
    DatasetSpec(
        name="spice",
        task="forcefield",
        summary="SPICE as published (HDF5, wB97M-D3(BJ)/def2-TZVPPD); the user gives the file (extra 'spice')",
        factory=f"{_SOURCES}:spice",
    ),
    DatasetSpec(
        name="mace-off",
        task="forcefield",
        summary="the MACE-OFF split of SPICE (extended XYZ, train and test files); the user gives the folder",
        factory=f"{_SOURCES}:mace_off",
    ),
    DatasetSpec(
        name="md17-aspirin",
        task="forcefield",
        summary="aspirin dynamics of MD17 (PBE+TS) through torch_geometric; split by conformation",
        factory=f"{_SOURCES}:md17_aspirin",
    ),
    DatasetSpec(
        name="rmd17-aspirin",
        task="forcefield",
        summary="aspirin of the revised MD17 (PBE/def2-SVP) through torch_geometric; split by conformation",
        factory=f"{_SOURCES}:rmd17_aspirin",
    ),
)

MODELS: tuple[ModelSpec, ...] = ()
