"""What the force-field task registers: the task, its data sets and its models. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from equivbench.specs import DatasetSpec, Field, ModelSpec, TaskSpec
from equivbench.tasks.base import DatasetSource

_SOURCES = "equivbench.tasks.forcefield.sources"

BOARD_UNIT = "(eV/A)^2"
REPORTED = ("energy", "stress")
OPTIONS: Mapping[str, tuple[str, ...]] = {"forces": ("direct", "conservative")}
FIELDS = (
    Field("z", ("atoms",), "int64", "0e", "node", "1", "sample", "atomic number"),
    Field(
        "pos",
        ("atoms", 3),
        "float32",
        "1o",
        "node",
        "A",
        "sample",
        "positions; models must not depend on their origin",
    ),
    Field("batch", ("atoms",), "int64", "0e", "none", "1", "sample", "sorted molecule index"),
    Field(
        "cell",
        ("molecules", 3, 3),
        "float32",
        "1o",
        "graph",
        "A",
        "sample",
        "rows are the lattice vectors, which turn with the positions; of periodic data (a crystal "
        "counts as a molecule), for models that require it",
    ),
    Field(
        "pbc",
        ("molecules", 3),
        "bool",
        "0e",
        "graph",
        "1",
        "sample",
        "along which lattice vectors a structure repeats; given with cell",
    ),
    Field(
        "edge_index",
        (2, "edges"),
        "int64",
        "0e",
        "none",
        "1",
        "derived",
        "pairs of one molecule within the required cutoff (A): row 0 the source j, row 1 the "
        "target i; "
        "max_neighbours keeps the nearest sources of each target; with cell the images of atoms "
        "too",
    ),
    Field(
        "cell_shifts",
        ("edges", 3),
        "int64",
        "0e",
        "none",
        "1",
        "derived",
        "by how many lattice vectors the source of each edge is moved: its image is at pos[j] + "
        "cell_shifts @ cell; given with edge_index and cell",
    ),
    Field(
        "n_atoms",
        ("molecules",),
        "int64",
        "0e",
        "none",
        "1",
        "derived",
        "atoms of each molecule; its length is the number of molecules",
    ),
    Field(
        "forces",
        ("atoms", 3),
        "float32",
        "1o",
        "node",
        "eV/A",
        "output",
        "minus the gradient of the energy",
    ),
    Field(
        "energy",
        ("molecules",),
        "float32",
        "0e",
        "graph",
        "eV",
        "output",
        "less the sum of per-element references fitted on the training split; a model may leave it "
        "out",
    ),
    Field(
        "stress",
        ("molecules", 3, 3),
        "float32",
        "ij=ji",
        "graph",
        "eV/A^3",
        "output",
        "derivative of the energy by the strain over the volume, positive under tension; of "
        "periodic data; a model may leave it out",
    ),
)

TASKS: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="forcefield",
        summary="forces and energies of molecules and crystals from atomic numbers and positions "
        "(eV/A, eV)",
        factory="equivbench.tasks.forcefield.task:ForceField",
        fields=FIELDS,
        board_unit=BOARD_UNIT,
        reported=REPORTED,
        options=OPTIONS,
    ),
)

_MOLECULES = (
    "aspirin azobenzene benzene ethanol malonaldehyde naphthalene paracetamol salicylic-acid "
    "toluene uracil"
)


def _trajectory(molecule: str, revised: str) -> DatasetSource:
    """The source of one molecule, imported on use."""
    from equivbench.tasks.forcefield import sources

    return sources.md17(molecule, revised)


_TRAINED = {"train": 1323, "validation": 237}
"""Samples of ``gfn2-small``, which those are trained on that are tested on its further sets."""
_FURTHER = {"larger-molecules": 120, "hotter": 145}

DATASETS: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        name="gfn2-small",
        task="forcefield",
        summary="1,995 conformations of 665 drug-like molecules, GFN2-xTB labels; shipped in the "
        "package",
        factory=f"{_SOURCES}:gfn2_small",
        checksums={"1": "5ef2a9b7e6f3e5fb81273461fa7236f9dd02db603029d803a3c8816b4dc10b83"},
        sizes={**_TRAINED, "test": 435},
        further=_FURTHER,
    ),
    DatasetSpec(
        name="gfn2-larger",
        task="forcefield",
        summary="120 molecules of 41-60 atoms, larger than any of gfn2-small: tests networks "
        "trained there; shipped",
        factory=f"{_SOURCES}:gfn2_larger",
        checksums={"1": "99fb50dbad2ebc95c85e1c98f2638b23eb535af3a66a04ce218698b30210157d"},
        sizes={**_TRAINED, "test": 120},
    ),
    DatasetSpec(
        name="gfn2-hotter",
        task="forcefield",
        summary="the 145 test molecules of gfn2-small at 1,000 K, hotter than any of it: tests "
        "networks trained there; shipped",
        factory=f"{_SOURCES}:gfn2_hotter",
        checksums={"1": "74625b1f294c97061e615696787ff701b69fe4fa232210b3ecc1c34cf5de2778"},
        sizes={**_TRAINED, "test": 145},
    ),
    DatasetSpec(
        name="crystals",
        task="forcefield",
        summary="72 perturbed structures of 12 textbook crystals with cells and stress, labelled "
        "by a pair potential: for testing networks of periodic systems; shipped",
        factory=f"{_SOURCES}:crystals",
        checksums={"1": "6b6a7095faff317d354bbc06e34337b771bb502ab6e7f08fd8008186f9c57d63"},
        sizes={"train": 0, "validation": 0, "test": 72},
    ),
    DatasetSpec(
        name="gfn2-20k",
        task="forcefield",
        summary="20,000 conformations of 6,667 drug-like molecules, GFN2-xTB labels; generated on "
        "request (extra 'generate')",
        factory=f"{_SOURCES}:gfn2_20k",
        checksums={"1": "1860a19a35da0516836eb223efbeb51785cc5355fe865c397b42207bb1bbbd62"},
        sizes={"train": 13911, "validation": 2106, "test": 3983},
        further=_FURTHER,
    ),
    DatasetSpec(
        name="gfn2-100k",
        task="forcefield",
        summary="100,000 conformations of 33,334 drug-like and lead-like molecules, GFN2-xTB "
        "labels; generated on request (extra 'generate'), the user gives the wheel of molsets",
        factory=f"{_SOURCES}:gfn2_100k",
    ),
    DatasetSpec(
        name="spice",
        task="forcefield",
        summary="SPICE as published (HDF5, wB97M-D3(BJ)/def2-TZVPPD); the user gives the file "
        "(extra 'spice')",
        factory=f"{_SOURCES}:spice",
    ),
    DatasetSpec(
        name="mace-off",
        task="forcefield",
        summary="the MACE-OFF split of SPICE (extended XYZ, train and test files); the user gives "
        "the folder",
        factory=f"{_SOURCES}:mace_off",
    ),
    *(
        DatasetSpec(
            name=f"{revised}md17-{molecule}",
            task="forcefield",
            summary=f"{molecule}: 2,000 conformations of the {title} trajectory, through "
            "torch_geometric; split by conformation",
            factory=partial(_trajectory, molecule, revised),
        )
        for revised, title in (("", "MD17"), ("r", "revised MD17"))
        for molecule in _MOLECULES.split()
    ),
)

_NETWORKS = "equivbench.tasks.forcefield.networks"
_REQUIRES = {"edge_index": 5.0, "n_atoms": 1.0}
"""What the networks ask for with their default cutoff; a built network carries its own
``requires``."""

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="painn",
        task="forcefield",
        symmetry="o3",
        build=f"{_NETWORKS}.painn:build",
        requires=_REQUIRES,
        summary="PaiNN: first-order scalar and vector features, gated vector readout",
        kernels=True,
        operations=("painn-message",),
    ),
    ModelSpec(
        name="plain-vectors",
        task="forcefield",
        symmetry="none",
        build=f"{_NETWORKS}.painn:build_plain",
        requires=_REQUIRES,
        summary="PaiNN's trunk with x, y, z as ordinary channels",
        kernels=True,
        operations=("painn-message",),
    ),
    ModelSpec(
        name="relaxed-painn",
        task="forcefield",
        symmetry="none",
        build=f"{_NETWORKS}.relaxed:build",
        requires=_REQUIRES,
        summary="PaiNN and, on a small scale, a small plain-vectors network beside it",
        kernels=True,
        operations=("painn-message",),
    ),
    ModelSpec(
        name="escaip-tied",
        task="forcefield",
        symmetry="o3",
        build=f"{_NETWORKS}.escaip:build_tied",
        requires={**_REQUIRES, "max_neighbours": 20.0},
        summary="EScAIP neighbour attention, one row of force weights for x, y and z",
    ),
    ModelSpec(
        name="escaip",
        task="forcefield",
        symmetry="none",
        build=f"{_NETWORKS}.escaip:build_untied",
        requires={**_REQUIRES, "max_neighbours": 20.0},
        summary="EScAIP neighbour attention, three rows of force weights as published",
    ),
    ModelSpec(
        name="nequip",
        task="forcefield",
        symmetry="o3",
        build=f"{_NETWORKS}.nequip:build",
        requires=_REQUIRES,
        summary="NequIP: tensor-product message passing, direct forces",
        kernels=True,
        operations=("convolution",),
    ),
    ModelSpec(
        name="vector-transformer",
        task="forcefield",
        symmetry="none",
        build=f"{_NETWORKS}.transformer:build",
        requires=_REQUIRES,
        summary="transformer over neighbours with filters of raw relative vectors",
    ),
    ModelSpec(
        name="platonic-transformer",
        task="forcefield",
        symmetry="octahedral",
        build=f"{_NETWORKS}.platonic:build",
        requires=_REQUIRES,
        summary="the vector-transformer in the 24 frames of the cube, which share their weights",
    ),
    ModelSpec(
        name="esen",
        task="forcefield",
        symmetry="so3",
        build=f"{_NETWORKS}.esen:build",
        requires=_REQUIRES,
        summary="eSEN: gated SO(2) convolutions in the frames of edges, direct forces",
        kernels=True,
        operations=("so2-message", "convolution"),
    ),
    ModelSpec(
        name="orb",
        task="forcefield",
        symmetry="none",
        build=f"{_NETWORKS}.orb:build",
        requires=_REQUIRES,
        summary="Orb: graph network with states of edges, on harmonics of raw relative vectors",
    ),
)
