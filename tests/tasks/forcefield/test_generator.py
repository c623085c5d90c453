"""The generator of the GFN2-xTB sets, where its tools are installed (extra ``generate``)."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from equivbench.tasks.conformers import further_pool, pool, without_hand
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


FURTHER = [
    *("CCOC(=O)c1ccc(N)cc1", "c1ccc2c(c1)CCN2C(=O)C", "CC(C)CNC(=O)c1ccco1", "O=C(NC1CC1)c1cccnc1"),
    *("CC(=O)[O-]", "C", "CCO.CCN", "[13CH3]CCCCC", "C[C@H](N)C(=O)NCC", "CC(N)C(=O)NCC"),
]
"""Four that qualify, four that do not, and two of which the second is the first without its
hand."""


def test_further_molecules_are_those_that_qualify_and_are_not_known() -> None:
    known = ["CC(=O)Nc1ccccc1"]
    texts = [*FURTHER, "c1ccccc1NC(C)=O"]
    found = further_pool(known, texts, 100, 0, generate.ELEMENTS, generate.ATOMS)
    flat = {without_hand(smiles) for smiles in found}
    assert len(found) == len(flat) == 5
    assert flat.isdisjoint(known)
    # Fewer are the first of these, and the order of the file does not matter.
    fewer = further_pool(known, texts[::-1], 2, 0, generate.ELEMENTS, generate.ATOMS)
    assert fewer == found[:2]


@pytest.mark.slow
def test_a_set_beyond_rdkits_molecules_begins_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pool(0, generate.ELEMENTS, generate.ATOMS)[:4]
    monkeypatch.setattr(generate, "pool", lambda *_: first)
    monkeypatch.setattr(generate, "published", lambda: gfn2_small().path())
    made = LAYOUT.read(
        generate.generate_beyond(15, tmp_path / "set.npz", processes=2, further=FURTHER)
    )[0]
    shipped = LAYOUT.read(gfn2_small().path())[0]
    atoms = int(made["n_atoms"][:12].sum())
    assert np.array_equal(made["z"][:atoms], shipped["z"][:atoms])
    assert np.allclose(made["pos"][:atoms], shipped["pos"][:atoms], atol=1e-3)  # as above
    assert len(made["names"]) == 5
