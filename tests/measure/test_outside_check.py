"""Our measure against one that others wrote: metatomic's ``SymmetrizedModel`` on the same network
and molecules, total and irrep by irrep."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from equivbench.measure.equivariance import default_dataset
from equivbench.measure.evaluator import Evaluator
from equivbench.measure.rotated_set import spread
from equivbench.symmetry.quadrature import rotation_quadrature
from equivbench.symmetry.spectrum import irrep_powers
from equivbench.tasks.forcefield.networks.painn import PlainVectors
from equivbench.tasks.forcefield.task import ForceField
from equivbench.tasks.splits import Subset

metatensor = pytest.importorskip("metatensor.torch", reason="metatomic is not installed")
metatomic = pytest.importorskip("metatomic.torch", reason="metatomic is not installed")
o3 = pytest.importorskip("metatomic.torch.o3", reason="this metatomic has no SymmetrizedModel")
if not hasattr(o3, "SymmetrizedModel"):
    pytest.skip("this metatomic has no SymmetrizedModel", allow_module_level=True)

TASK = ForceField()
REQUIRES = {"edge_index": 5.0, "n_atoms": 1.0}
OUTPUT = "mine::forces"
DEGREE, HIGHEST = 7, 3


class Molecules(torch.nn.Module):
    """Forces of the network, as a model of metatomic."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, systems: Any, outputs: Any, selected_atoms: Any = None) -> dict[str, Any]:
        pos = torch.cat([each.positions for each in systems])
        z = torch.cat([each.types for each in systems]).long()
        sizes = torch.tensor([len(each.types) for each in systems])
        batch = torch.arange(len(sizes)).repeat_interleave(sizes)
        atoms = torch.cat([torch.arange(int(size)) for size in sizes])
        block = metatensor.TensorBlock(
            values=forces(self.network, z, pos, batch)[:, :, None],
            samples=metatensor.Labels(["system", "atom"], torch.stack((batch, atoms), 1).int()),
            components=[metatensor.Labels(["xyz"], torch.arange(3).int()[:, None])],
            properties=metatensor.Labels(["forces"], torch.zeros(1, 1, dtype=torch.int32)),
        )
        keys = metatensor.Labels(["_"], torch.zeros(1, 1, dtype=torch.int32))
        return {OUTPUT: metatensor.TensorMap(keys, [block])}


def forces(network: torch.nn.Module, z: Tensor, pos: Tensor, batch: Tensor) -> Tensor:
    energy = pos.new_zeros(int(batch[-1]) + 1)
    sample = {"z": z, "pos": pos, "batch": batch, "forces": pos, "energy": energy}
    inputs, _ = TASK.assemble(sample, {}, REQUIRES)
    with torch.no_grad():
        found: Tensor = network(**inputs)["forces"]
    return found


class Theirs(NamedTuple):
    """Of each atom, in the order of the molecules."""

    average: Tensor
    """[atoms, 3] forces averaged over O(3)."""
    variance: Tensor
    """[atoms] summed over components."""
    powers: dict[str, Tensor]
    """[atoms] of the forces themselves, not rotated back, by irrep of O(3)."""


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """The augmented arm of forcefield/vector, narrow, its weights as they are drawn."""
    torch.manual_seed(0)
    return PlainVectors(8, 1, 8, 5.0).double().eval()


@pytest.fixture(scope="module")
def molecules() -> Subset:
    split = default_dataset("forcefield").load().test
    return Subset(split, spread(split.groups, 2))


@pytest.fixture(scope="module")
def theirs(network: torch.nn.Module, molecules: Subset) -> Theirs:
    wrapped = o3.SymmetrizedModel(
        Molecules(network),
        max_angular_momentum_target=1,
        max_angular_momentum_character=HIGHEST,
        max_angular_momentum_grid=DEGREE,
        batch_size=64,
    )
    batch = molecules.collate(torch.arange(2))
    systems = [
        metatomic.System(
            types=batch["z"][batch["batch"] == each].int(),
            positions=batch["pos"][batch["batch"] == each].double(),
            cell=torch.zeros(3, 3, dtype=torch.float64),
            pbc=torch.zeros(3, dtype=torch.bool),
        )
        for each in range(2)
    ]
    names = (OUTPUT, f"o3::variance::{OUTPUT}", f"o3::character_projection::{OUTPUT}")
    asked = {name: metatomic.ModelOutput(sample_kind="atom") for name in names}
    with torch.no_grad():
        average, variance, projection = (wrapped(systems, asked, None)[name] for name in names)
    powers = {}
    for key, block in projection.items():
        degree, sigma = int(key["chi_lambda"]), int(key["chi_sigma"])
        powers[f"{degree}{'e' if sigma * (-1) ** degree == 1 else 'o'}"] = block.values.sum((1, 2))
    # They average the variance over components.
    return Theirs(average.block().values[..., 0], 3 * variance.block().values[:, 0], powers)


def evaluator(molecules: Subset, rotations: int | str) -> Evaluator:
    return Evaluator(
        TASK,
        molecules,
        requires=REQUIRES,
        rotations=rotations,
        group="o3",
        precision="float64",
    )


def test_total_and_equivariance_error_agree(
    network: torch.nn.Module, molecules: Subset, theirs: Theirs
) -> None:
    target = molecules.collate(torch.arange(2))["forces"].double()
    twirled = float((theirs.average - target).square().sum(1).mean())
    equivariance = float(theirs.variance.mean())
    ours = evaluator(molecules, f"quadrature:{DEGREE - 2}").evaluate(network, floor=False)
    # Two different quadratures of a network that is no polynomial.
    assert ours.twirled == pytest.approx(twirled, rel=1e-6)
    assert ours.equivariance == pytest.approx(equivariance, rel=1e-5)
    assert ours.share == pytest.approx(equivariance / (twirled + equivariance), rel=1e-5)
    assert ours.share > 1e-4
    drawn = evaluator(molecules, 60).evaluate(network, floor=False)
    # Squares of two molecules under 60 draws: a few hundredths of itself.
    assert drawn.equivariance == pytest.approx(equivariance, rel=0.15)


def test_the_spectra_agree(network: torch.nn.Module, molecules: Subset, theirs: Theirs) -> None:
    batch = molecules.collate(torch.arange(2))
    points = rotation_quadrature(DEGREE, "o3")
    values = torch.stack(
        [
            forces(network, batch["z"], batch["pos"].double() @ matrix.T, batch["batch"])
            for matrix in points.rotations
        ]
    )
    ours = irrep_powers(
        values,
        points.rotations[:, None],
        "o3",
        highest=HIGHEST,
        quadrature=points.weights,
    )
    assert set(ours) == set(theirs.powers) - {"0e"}
    whole = float(sum(each.mean() for each in ours.values()))
    for name, power in ours.items():
        assert float(power.mean()) == pytest.approx(
            float(theirs.powers[name].mean()), rel=1e-3, abs=1e-5 * whole
        ), name
    # Vectors that turn with the molecule are 1o; the rest is what breaks.
    assert float(ours["1o"].mean()) > 0.5 * whole
