"""The generator of the conformer sets, where rdkit is installed (extra ``generate``)."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")

from equivbench.tasks import conformers
from equivbench.tasks.voxel.generate import ATOMS, generate
from equivbench.tasks.voxel.sources import conformers_small
from equivbench.tasks.voxel.table import DEV, ELEMENTS, LAYOUT, SMALL, bounding_radii


@pytest.mark.slow
def test_the_pool_is_in_an_order_that_the_seed_draws() -> None:
    first, other = (conformers.pool(seed, ELEMENTS, (10, 14)) for seed in (0, 1))
    assert first != other
    assert sorted(first) == sorted(other)
    assert len(set(first)) == len(first)


def test_a_conformer_is_at_a_minimum() -> None:
    made = conformers.minimised("CC(=O)NCCO", "embed 0 CC(=O)NCCO")
    assert made is not None
    molecule, field = made
    pos = molecule.GetConformer().GetPositions().ravel().tolist()
    field.CalcEnergy(pos)
    # rdkit's convergence criterion leaves gradients of some .01 kcal/mol/A.
    assert np.abs(field.CalcGrad(pos)).max() < 0.1
    assert conformers.minimised("[He]", "embed") is None


@pytest.mark.slow
def test_the_file_is_the_same_for_one_or_two_processes_and_begins_the_shipped_set(
    tmp_path: Path,
) -> None:
    one, two = (
        generate(12, tmp_path / f"{n}" / "set.npz", grid=SMALL, processes=n) for n in (1, 2)
    )
    assert one.read_bytes() == two.read_bytes()
    made, shipped = LAYOUT.read(one)[0], LAYOUT.read(conformers_small().path())[0]
    atoms = len(made["channel"])
    assert made["names"].tolist() == shipped["names"][:12].tolist()
    assert np.array_equal(made["channel"], shipped["channel"][:atoms])
    # Another processor may round the minimisation differently: within the convergence, some mA.
    assert np.abs(made["pos"].astype(int) - shipped["pos"][:atoms]).max() <= 10
    assert made["n_atoms"].min() >= ATOMS[0]
    assert not DEV.holds(bounding_radii(made).max())
