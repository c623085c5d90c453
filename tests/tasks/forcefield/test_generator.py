"""The generator of the GFN2-xTB sets, where its tools are installed (extra ``generate``)."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from equivbench.tasks.forcefield import generate
from equivbench.tasks.forcefield.sources import gfn2_small
from equivbench.tasks.forcefield.table import LAYOUT


def test_forces_are_minus_the_gradient_of_the_energy() -> None:
    z, pos = generate.conformations("CC(=O)NCCO", 0)  # type: ignore[misc]
    frame = pos[1].astype(np.float64)
    forces = generate.label(z, frame)[1]
    step = 2e-3
    for atom, axis in ((0, 0), (3, 1), (9, 2)):
        shift = np.zeros_like(frame)
        shift[atom, axis] = step
        slope = (generate.label(z, frame + shift)[0] - generate.label(z, frame - shift)[0]) / (
            2 * step
        )
        # Central differences err by step^2 times a third derivative (some 100 eV/A^3), and the
        # energies by 1e-6 eV.
        assert forces[atom, axis] == pytest.approx(-slope, abs=2e-3)


@pytest.mark.slow
def test_the_file_is_the_same_for_one_or_two_processes_and_begins_the_shipped_set(
    tmp_path: Path,
) -> None:
    one, two = (generate.generate(12, tmp_path / f"{n}" / "set.npz", processes=n) for n in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    made, shipped = LAYOUT.read(one)[0], LAYOUT.read(gfn2_small().path())[0]
    atoms = len(made["z"])
    # Another processor may round the dynamics differently in the last place; 200 chaotic steps
    # widen that by far less than this.
    assert np.allclose(made["pos"], shipped["pos"][:atoms], atol=1e-3)
    assert np.allclose(made["forces"], shipped["forces"][:atoms], atol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["larger", "hotter"])
def test_the_further_test_sets_begin_as_they_are_shipped(name: str, tmp_path: Path) -> None:
    make, _, seed = generate.SETS[name]
    made = LAYOUT.read(make(4, tmp_path / "set.npz", seed=seed, processes=2))[0]
    path = gfn2_small().path().with_name(f"gfn2-{name}.npz")
    shipped, atoms = LAYOUT.read(path)[0], len(made["z"])
    assert np.array_equal(made["z"], shipped["z"][:atoms])
    assert np.allclose(made["pos"], shipped["pos"][:atoms], atol=1e-3)  # as above
    assert np.allclose(made["forces"], shipped["forces"][:atoms], atol=2e-2)
