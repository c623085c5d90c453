"""The reader of QM9 in the wheel of qm9pack, on small wheels in its format."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.base import SPLITS
from equivbench.tasks.molecules import identity_of
from equivbench.tasks.storage import split_of
from equivbench.tasks.voxel import qm9
from equivbench.tasks.voxel.sources import qm9_32, qm9_coarse
from equivbench.tasks.voxel.table import ELEMENTS, LAYOUT, UNIT, smallest_ball

METHANE = [
    [-0.0127, 1.0858, 0.008],
    [0.0022, -0.006, 0.002],
    [1.0117, 1.4638, 0.0003],
    [-0.5408, 1.4475, -0.8766],
    [-0.5238, 1.4379, 0.9064],
]
"""Positions in A of the first molecule of QM9, rounded; one carbon first."""
CARBON_FIRST = ["C", "H", "H", "H", "H"]
# Texts that are no SMILES are molecules of their own names, in splits by chance.
NAMES = [f"molecule {number}" for number in range(40)]


def row(
    smiles: str, elements: Sequence[str] = CARBON_FIRST, pos: Sequence[Sequence[float]] = METHANE
) -> dict[str, str]:
    """A row as qm9pack writes it: lists as Python prints them."""
    return {"Index": "1", "SMILES": smiles, "Elements": str([*elements]), "XYZ_Ang": str([*pos])}


def wheel(path: Path, parts: Mapping[str, Sequence[Mapping[str, str]]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in parts.items():
            text = io.StringIO()
            writer = csv.DictWriter(text, [*(rows[0] if rows else row("C"))])
            writer.writeheader()
            writer.writerows(rows)
            archive.writestr(name, text.getvalue())
    return path


def published(folder: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """A wheel whose three tables share ``rows``."""
    return wheel(
        folder / qm9.WHEEL, {part: rows[number::3] for number, part in enumerate(qm9.PARTS)}
    )


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the wheel is looked for; the cache is empty."""
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EQUIVBENCH_DATA_QM9", str(tmp_path / qm9.WHEEL))
    return tmp_path


def test_molecules_keep_their_atoms_and_shape(given: Path) -> None:
    published(given, [row(name) for name in NAMES])
    table, card = LAYOUT.read(qm9_32().prepare())
    assert len(table.counts) == len(NAMES)
    assert (
        table["channel"].reshape(-1, 5) == [ELEMENTS.index(each) for each in CARBON_FIRST]
    ).all()
    exact = np.array(METHANE) - smallest_ball(np.array(METHANE))[0]
    assert np.abs(table["pos"].reshape(-1, 5, 3) * UNIT - exact).max() <= UNIT / 2 * (1 + 1e-9)
    assert {name.decode() for name in table["names"]} == {*NAMES}
    assert card["sources"].keys() == {qm9.WHEEL}


def test_numbers_are_read_as_python_writes_them(given: Path) -> None:
    # The fourth row of the published table and a number of a later one.
    written = "[[0.5995394918,0.,1.],[-0.5995394918,0.,1.],[-1.6616385861,6.0E-7,1.]]"
    rows = [row(name, elements=["C", "C", "H"]) | {"XYZ_Ang": written} for name in NAMES]
    found = [*qm9.molecules(published(given, rows))]
    assert len(found) == len(NAMES)
    assert found[0][2].tolist()[1:] == [[-0.5995394918, 0.0, 1.0], [-1.6616385861, 6e-7, 1.0]]


def test_each_molecule_is_in_the_split_that_its_identity_draws(given: Path) -> None:
    published(given, [row(name) for name in NAMES])
    table, _ = LAYOUT.read(qm9_32().prepare())
    drawn = [split_of(identity_of(table["names"][unit].decode())) for unit in table["molecule"]]
    assert [SPLITS[code] for code in table["split"]] == drawn


def test_stereoisomers_are_one_molecule(given: Path) -> None:
    all_three = ["C[C@H](O)F", "C[C@@H](O)F", "CC(O)F"]
    published(given, [row(name) for name in [*NAMES, *all_three]])
    table, _ = LAYOUT.read(qm9_32().prepare())
    assert len(np.unique(table["molecule"])) == len(NAMES) + 1


def test_one_conversion_serves_both_grids_which_leave_out_what_they_cannot_show(
    given: Path,
) -> None:
    # Along x, with smallest balls of 3.2 and 5 A about them.
    longer = [[0.0, 0, 0], [1.6, 0, 0], [3.2, 0, 0], [4.8, 0, 0], [6.4, 0, 0]]
    longest = [[2.5 * x / 1.6, 0, 0] for x, _, _ in longer]
    rows = [row(name) for name in NAMES]
    rows += [row(f"longer {number}", pos=longer) for number in range(20)]
    published(given, [*rows, row("longest", pos=longest)])
    with pytest.warns(EquivbenchWarning, match="1 conformers left out .1 too large for the 10 A"):
        path = qm9_coarse().prepare()
    assert path == qm9_32().prepare()
    wide, narrow = qm9_coarse().load(), qm9_32().load()
    assert sum(wide.card.sizes.values()) == len(NAMES) + 20
    assert sum(narrow.card.sizes.values()) == len(NAMES)
    first = torch.tensor([0])
    assert wide.train.collate(first)["grid"].tolist() == [[20.0, 0.5, 0.5, 0.9 * 0.5**1.5]]
    assert narrow.train.collate(first)["grid"].tolist() == [[32.0, 0.25, 0.5, 0.9]]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (row("C", elements=["C", "H"]), r"line 3: 2 elements and 5 positions"),
        (row("C", elements=["Xx"] * 5), r"line 3: 'Xx'"),
        (row("C") | {"XYZ_Ang": "[[0.0, 0.0"}, "line 3: "),
        (row("C") | {"XYZ_Ang": "[[0.0, 0.0]]"}, "line 3: "),
        (row("C") | {"Elements": "5"}, "line 3: "),
        (row("C") | {"XYZ_Ang": ""}, "line 3: "),
    ],
    ids=["counts", "element", "cut", "plane", "number", "short"],
)
def test_a_broken_row_is_a_failure_that_names_it(
    given: Path, broken: dict[str, str], says: str
) -> None:
    wheel(given / qm9.WHEEL, {part: [row("CC"), broken] for part in qm9.PARTS})
    with pytest.raises(FailedError, match=rf"qm9_part1\.csv, {says}.*fetch it again"):
        qm9_32().prepare()


def test_other_files_are_a_failure_that_names_the_file(given: Path) -> None:
    path = given / qm9.WHEEL
    path.write_bytes(b"no archive")
    with pytest.raises(FailedError, match=r"is not the wheel of qm9pack 1\.0\.3"):
        qm9_32().prepare()
    wheel(path, {qm9.PARTS[0]: [row("C")]})
    with pytest.raises(FailedError, match=r"qm9_part2"):
        qm9_32().prepare()
    wheel(path, {part: [{"Name": "C"}] for part in qm9.PARTS})
    with pytest.raises(FailedError, match="Elements"):
        qm9_32().prepare()
    content = published(given, [row(name) for name in NAMES]).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FailedError, match="cut short"):
        qm9_32().prepare()


def test_a_wheel_that_the_user_lacks_says_how_to_get_it(given: Path) -> None:
    with pytest.raises(FailedError, match=r"pip download --no-deps qm9pack==1\.0\.3"):
        qm9_32().prepare()


def test_nothing_is_written_where_the_wheel_is_broken(given: Path) -> None:
    wheel(given / qm9.WHEEL, {part: [row("C"), row("C", elements=["C"])] for part in qm9.PARTS})
    with pytest.raises(FailedError):
        qm9_32().prepare()
    assert not qm9_32().path().exists()
