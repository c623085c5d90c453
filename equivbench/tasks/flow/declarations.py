"""What the flow-matching task registers: the task, its data sets and its models. Imports no
torch."""

from __future__ import annotations

from equivbench.specs import DatasetSpec, Field, ModelSpec, TaskSpec

BOARD_UNIT = "nm^2"
FIELDS: tuple[Field, ...] = (
    Field(
        "x1",
        ("samples", "residues", 3),
        "float32",
        "1o",
        "graph",
        "nm",
        "output",
        "CA positions about the mean of the residues, 0 in the padding; the output is the "
        "predicted end point of the flow",
    ),
    Field(
        "mask",
        ("samples", "residues"),
        "bool",
        "0e",
        "none",
        "1",
        "sample",
        "the residues that exist; the rest is padding",
    ),
    Field(
        "residue",
        ("samples", "residues"),
        "int64",
        "0e",
        "none",
        "1",
        "sample",
        "index along the chain, 0 in the padding",
    ),
    Field(
        "x0",
        ("samples", "residues", 3),
        "float32",
        "1o",
        "graph",
        "nm",
        "noise",
        "standard normal, centred like x1",
    ),
    Field(
        "t",
        ("samples",),
        "float32",
        "0e",
        "graph",
        "1",
        "noise",
        "flow time, 0 at the noise and 1 at the data",
    ),
    Field(
        "weight",
        ("samples",),
        "float32",
        "0e",
        "graph",
        "nm^-2",
        "noise",
        "of a sample's squared error in the objective and, in a measurement, in the board metric",
    ),
    Field(
        "x_t",
        ("samples", "residues", 3),
        "float32",
        "1o",
        "graph",
        "nm",
        "derived",
        "(1 - t) x0 + t x1",
    ),
    Field(
        "x_sc",
        ("samples", "residues", 3),
        "float32",
        "1o",
        "graph",
        "nm",
        "derived",
        "the model's own first prediction of x1 (self-conditioning), or zeros",
    ),
)

TASKS: tuple[TaskSpec, ...] = (
    TaskSpec(
        name="flow",
        summary="the end point of noisy protein backbones (CA, nm) along a linear flow, "
        "v-prediction with self-conditioning",
        factory="equivbench.tasks.flow.task:FlowMatching",
        fields=FIELDS,
        board_unit=BOARD_UNIT,
        test_points=7,
        feedback_part=0.5,
    ),
)

_SOURCES = "equivbench.tasks.flow.sources"
_CHECKSUMS = {"1": "ad7309eb641f4f5f17f7c9a0f81ab7ac97adf9fc068431e3dcd6f1e20766f167"}
_LOWEST = 3 * 1e-3**2 / 12
"""nm^2: three coordinates stored in hundredths of an A, each rounded with a variance of a twelfth
of the squared step."""

DATASETS: tuple[DatasetSpec, ...] = (
    DatasetSpec(
        name="ca-small",
        task="flow",
        summary="CA traces of protein chains of 40-256 residues, and crops of longer ones, from "
        "CC0 entries of the PDB; shipped",
        factory=f"{_SOURCES}:ca_small",
        checksums=_CHECKSUMS,
        lowest_loss=_LOWEST,
        sizes={"train": 199, "validation": 22, "test": 49},
    ),
    DatasetSpec(
        name="ca-crops-64",
        task="flow",
        summary="ca-small cut into windows of 40-64 residues; shipped",
        factory=f"{_SOURCES}:ca_crops_64",
        checksums=_CHECKSUMS,
        lowest_loss=_LOWEST,
        sizes={"train": 454, "validation": 46, "test": 126},
    ),
    DatasetSpec(
        name="ca-windows-64",
        task="flow",
        summary="all windows of 64 residues, every 2 residues, of all chains and models in the "
        "test files of four packages; the user gives the packages (extra 'structures')",
        factory=f"{_SOURCES}:ca_windows_64",
        checksums={"1": "1f25c9b771d0d3fecdff7ac5f209668443475def8f0fca76bfa28c35e1eb6c0c"},
        lowest_loss=_LOWEST,
        sizes={"train": 13715, "validation": 2007, "test": 4412},
    ),
    DatasetSpec(
        name="ca-folder",
        task="flow",
        summary="the same chains and crops from any folder of mmCIF or PDB files; the user gives "
        "the folder (extra 'structures')",
        factory=f"{_SOURCES}:ca_folder",
        lowest_loss=_LOWEST,
    ),
)

_NETWORKS = "equivbench.tasks.flow.networks"

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        name="backbone-transformer",
        task="flow",
        symmetry="none",
        build=f"{_NETWORKS}.transformer:build",
        summary="Proteina-style transformer on raw coordinates, attention biased by pair features",
    ),
    ModelSpec(
        name="vector-head",
        task="flow",
        symmetry="so3",
        build=f"{_NETWORKS}.vector_head:build",
        summary="the same transformer on invariants, velocity as invariant sums of vectors and "
        "cross products",
    ),
    ModelSpec(
        name="backbone-frames",
        task="flow",
        symmetry="so3",
        build=f"{_NETWORKS}.invariant_points:build",
        summary="invariant point attention between frames of CA triplets, velocity in local frames",
    ),
    ModelSpec(
        name="relaxed-frames",
        task="flow",
        symmetry="none",
        build=f"{_NETWORKS}.relaxed:build",
        summary="the same and, on a small scale, a small backbone-transformer beside it",
    ),
)
