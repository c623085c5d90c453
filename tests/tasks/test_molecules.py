"""What is read off a SMILES: charges, and an identity that no order of atoms changes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivbench.tasks.molecules import MOST_ROUNDS, charge_of, first_isomers, identity_of


@pytest.mark.parametrize(
    ("smiles", "charge"),
    [
        ("[O:1]([H:2])[H:3]", 0),
        ("[N+:1]([H:2])([H:3])([H:4])[H:5]", 1),
        ("[Na+:1].[Cl-:2]", 0),
        ("[Fe+3]", 3),
        ("[Fe+++]", 3),
        ("[O-2:7]", -2),
        ("[O--]", -2),
        ("[NH3+]CC(=O)[O-]", 0),
        ("C[N+](C)(C)C", 1),
        # No charges: a single bond is a minus outside of brackets.
        ("C-C", 0),
        ("[C@@H](N)(C)C(=O)O", 0),
    ],
)
def test_the_charge_is_the_sum_of_formal_charges(smiles: str, charge: int) -> None:
    assert charge_of(smiles) == charge


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    identity_of.cache_clear()


SAME = [
    ["[O:1]([H:2])[H:3]", "[H:1][O:2][H:3]", "[H][O][H]"],
    ["CCO", "OCC", "C(O)C", "C(C)O"],
    ["c1ccccc1", "C1=CC=CC=C1", "C%10=CC=CC=C%10"],
    ["c1ccc2ccccc2c1", "C1=CC=C2C=CC=CC2=C1"],
    ["c1ccncc1", "C1=CN=CC=C1"],
    ["Cc1ccccc1C", "CC1=CC=CC=C1C", "CC1=C(C)C=CC=C1"],
    ["N[C@@H](C)C(=O)O", "OC(=O)[C@@H](N)C", "[C@H](N)(C)C(O)=O"],
    ["C[N+](=O)[O-]", "[O-][N+](=O)C"],
    ["[Na+].[Cl-]", "[Cl-:1].[Na+:2]"],
    # Those of both hands, and without any.
    ["C[C@H](O)F", "C[C@@H](O)F", "CC(O)F", "F[C@](C)(O)[H]", "[CH3][CH]([OH])F"],
    ["C/C=C/F", "C/C=C\\F", "CC=CF", "[H]/C(C)=C(\\F)[H]"],
    ["[H]/N=C/O", "[H]\\N=C/O", "N=CO"],
    ["C[C@H]1CC[C@@H](O)CC1", "C[C@H]1CC[C@H](O)CC1", "CC1CCC(O)CC1"],
    # Hydrogens as atoms, in brackets, and not at all.
    ["C", "[CH4]", "[H]C([H])([H])[H]", "[C:1]([H:2])([H:3])([H:4])[H:5]"],
    ["c1cc[nH]c1", "C1=CNC=C1", "[H]n1cccc1", "[cH]1[cH][nH][cH][cH]1"],
    ["CS(C)(=O)=O", "[CH3]S(=O)(=O)[CH3]"],
    ["OP(O)(O)=O", "[H]OP(=O)(O)O[H]"],
]
ALL_APART = [
    *(names[0] for names in SAME),
    "COC",
    "C1CCCCC1",
    "CC(N)C(=O)N",
    "[NH4+]",
    "N",
    "[2H]O",
    "CC",
    "C=C",
    "C#C",
    "[CH3]",
    "CC(C)O",
    "CCCO",
    "C1=CCC=C1",
    "CSC",
    "CS(C)=O",
]


@pytest.mark.parametrize("names", SAME)
def test_all_names_of_a_molecule_have_one_identity(names: list[str]) -> None:
    assert len({identity_of(name) for name in names}) == 1


def test_different_molecules_have_different_identities() -> None:
    assert len({identity_of(name) for name in ALL_APART}) == len(ALL_APART)


@given(data=st.data(), atoms=st.integers(2, 12))
def test_no_order_of_atoms_changes_the_identity(data: st.DataObject, atoms: int) -> None:
    symbols = data.draw(st.lists(st.sampled_from("HCNOS"), min_size=atoms, max_size=atoms))
    parents = [data.draw(st.integers(0, atom - 1)) for atom in range(1, atoms)]
    bonds = {atom: set[int]() for atom in range(atoms)}
    for atom, parent in enumerate(parents, 1):
        bonds[atom].add(parent)
        bonds[parent].add(atom)

    def written(start: int, came_from: int | None, order: list[int]) -> str:
        further = sorted(bonds[start] - {came_from}, key=order.index)
        branches = [written(each, start, order) for each in further]
        last = branches.pop() if branches else ""
        return f"[{symbols[start]}:{order[start] + 1}]" + "".join(f"({b})" for b in branches) + last

    names = [
        written(start, None, data.draw(st.permutations(range(atoms)))) for start in (0, atoms - 1)
    ]
    assert identity_of(names[0]) == identity_of(names[1])


def test_a_chain_of_thousands_is_no_more_work_than_its_atoms(monkeypatch: Any) -> None:
    """Without a bound each end is told from the middle by one more round of all atoms."""
    digests = 0

    def counted(*parts: str) -> str:
        nonlocal digests
        digests += 1
        return str(hash(parts))

    monkeypatch.setattr("equivbench.tasks.molecules._digest", counted)
    atoms = 1000
    assert identity_of("C" * atoms) == identity_of("(".join("C" * atoms) + ")" * (atoms - 1))
    with_hydrogens = atoms + 2 * atoms + 2
    assert digests <= 2 * (MOST_ROUNDS * with_hydrogens + 1)


WRITTEN_OUT = {
    "[O:1]([H:2])[H:3]": "H2O1 +0 2500b22b982faf3c",
    "[c:1]1([H:7])[n:2][c:3]([H:8])[c:4]([H:9])[c:5]([H:10])[c:6]1[H:11]": (
        "C5H5N1 +0 55bac23ec36a70ed"
    ),
    "[S:1](=[O:2])(=[O:3])([C:4]([H:5])([H:6])[H:7])[N:8]([H:9])[H:10]": (
        "C1H5N1O2S1 +0 5205fdf7f26dc3d9"
    ),
}


@pytest.mark.parametrize("smiles", WRITTEN_OUT)
def test_the_splits_of_sets_whose_smiles_write_every_hydrogen_stay(smiles: str) -> None:
    """Those of SPICE and MACE-OFF are drawn from these texts."""
    assert identity_of(smiles) == WRITTEN_OUT[smiles]


def test_stereoisomers_go_with_the_first_of_them() -> None:
    assert first_isomers(["C[C@H](O)F", "CCO", "C[C@@H](O)F", "CC(O)F", "OCC"]) == {
        "C[C@H](O)F": "C[C@H](O)F",
        "CCO": "CCO",
        "C[C@@H](O)F": "C[C@H](O)F",
        "CC(O)F": "C[C@H](O)F",
        "OCC": "CCO",
    }


def test_the_bound_changes_no_identity_of_a_molecule_of_a_data_set(monkeypatch: Any) -> None:
    chain = "C" * 200 + "O" + "C" * 55
    bounded = identity_of(chain)
    monkeypatch.setattr("equivbench.tasks.molecules.MOST_ROUNDS", 10**6)
    identity_of.cache_clear()
    assert identity_of(chain) == bounded


@pytest.mark.parametrize(
    "text", ["[O:1]([H:2])[H:3].0", "m17", "C1CC", "CC(", "C)C", "%", "", "[CH999999999]"]
)
def test_of_what_is_no_smiles_it_is_the_text_without_atom_maps(text: str) -> None:
    assert identity_of(text) == text.replace(":1", "").replace(":2", "").replace(":3", "")
