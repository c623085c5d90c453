"""Readers of published force-field sets, on small files that these tests write in the published
formats."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spice_cases import write_sound

from equivbench.errors import EquivbenchWarning, FailedError
from equivbench.tasks.archives import read_card
from equivbench.tasks.base import SPLITS
from equivbench.tasks.forcefield import sources
from equivbench.tasks.forcefield.extended_xyz import frames
from equivbench.tasks.forcefield.sources import mace_off, md17, spice
from equivbench.tasks.forcefield.table import LAYOUT, ConformationBuilder
from equivbench.tasks.molecules import identity_of
from equivbench.tasks.storage import draw, split_of

HARTREE_EV, BOHR_A, KCAL_EV = 27.2113862460, 0.5291772109, 0.0433641043
"""Written out again, so that a slip in the library's constants shows."""
INPUTS = Path(__file__).parents[2] / "data" / "xyz"
Z = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
"""A."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EQUIVBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("SPICE", "MACE_OFF", "MD17"):
        monkeypatch.delenv(f"EQUIVBENCH_DATA_{name}", raising=False)
    return tmp_path / "cache"


def test_spice_is_converted_to_ev_and_a_and_split_by_molecule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_sound(tmp_path / "SPICE.hdf5")
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(tmp_path / "SPICE.hdf5"))
    table, card = LAYOUT.read(spice().prepare())
    assert set(table["names"].tolist()) == {name.encode() for name in written}
    for index, name in enumerate(table["names"]):
        pos, gradient, energy = written[name.decode()]
        rows = np.repeat(table["molecule"], table["n_atoms"]) == index
        # float32 storage.
        assert np.allclose(table["pos"][rows].reshape(2, 3, 3), pos * BOHR_A, rtol=1e-6)
        assert np.allclose(
            table["forces"][rows].reshape(2, 3, 3), -gradient * HARTREE_EV / BOHR_A, rtol=1e-6
        )
        assert np.allclose(
            table["energy"][table["molecule"] == index], energy * HARTREE_EV, rtol=1e-9
        )
        assert {SPLITS[code] for code in table["split"][table["molecule"] == index]} == {
            split_of(identity_of(name.decode()))
        }
    assert "SPICE Test Set" in str(card["recipe"])
    data = spice().load()
    assert sum(len(data.split(name)) for name in SPLITS) == 80


def test_a_conformation_with_a_nan_label_is_left_out() -> None:
    builder = ConformationBuilder()
    names = ["train", "validation", "test"]
    for name in names:
        builder.add(
            name, Z, np.stack([WATER] * 2), np.zeros((2, 3, 3)), np.array([0.0, np.nan]), name
        )
    table = builder.finish("here")
    assert table.sizes() == dict.fromkeys(SPLITS, 1)
    assert len(table["z"]) == 9
    assert builder.left_out == {"with values that are not finite": 3}


@pytest.mark.parametrize(
    ("distance", "force", "kept"),
    [(0.41, 51.4, 1), (0.39, 51.4, 0), (0.41, 51.5, 0), (0.0, 1e9, 0)],
)
def test_a_conformation_that_cannot_be_real_is_left_out_and_counted_once(
    distance: float, force: float, kept: int
) -> None:
    builder = ConformationBuilder()
    pos = np.array([[0.0, 0.0, 0.0], [0.0, distance, 0.0]])
    forces = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -force]])
    builder.add("H2", np.array([1, 1]), pos[None], forces[None], np.zeros(1), "test")
    assert builder.left_out.total() == 1 - kept
    if kept:
        assert builder.finish("here", ("test",)).sizes()["test"] == 1


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_cut_spice_file_is_a_failure_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: float
) -> None:
    source = tmp_path / "SPICE.hdf5"
    write_sound(source)
    source.write_bytes(source.read_bytes()[: int(kept * source.stat().st_size)])
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(source))
    with pytest.raises(FailedError, match=r"SPICE\.hdf5( is not SPICE|: group 'm\d+' cannot be)"):
        spice().prepare()
    assert not spice().path().exists()


def write_mace_off(folder: Path, *, extra_columns: bool = False) -> None:
    """Files like those of MACE-OFF23: extended XYZ in eV and A with smiles and config_type."""
    generator = np.random.default_rng(1)
    for count, file in (
        (120, "train_large_neut_no_bad_clean.xyz"),
        (10, "test_large_neut_all.xyz"),
    ):
        lines = []
        for index in range(count):
            properties = "species:S:1:pos:R:3:forces:R:3" + (":mbis:R:2" if extra_columns else "")
            smiles = f"[O:1]([H:2])[H:3].{file[:5]}{index // 2}"
            kind = 'config_type="DES370K Monomers"'
            header = f'Properties={properties} {kind} smiles="{smiles}" '
            lines += ["3", header + f'total_charge=0 energy={-2081.5 - index} pbc="F F F"']
            numbers = np.hstack(
                [WATER + generator.uniform(-0.1, 0.1, (3, 3)), generator.standard_normal((3, 3))]
            )
            for symbol, row in zip("OHH", numbers, strict=True):
                lines.append(
                    f"{symbol} "
                    + " ".join(f"{value:.8f}" for value in row)
                    + (" 0.5 0.25" if extra_columns else "")
                )
        (folder / file).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("extra_columns", [False, True])
def test_the_mace_off_split_is_kept_as_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra_columns: bool
) -> None:
    write_mace_off(tmp_path, extra_columns=extra_columns)
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    table, card = LAYOUT.read(mace_off().prepare())
    sizes = table.sizes()
    assert sizes["test"] == 10
    assert sizes["train"] + sizes["validation"] == 120
    first = next(frames(tmp_path / "train_large_neut_no_bad_clean.xyz"))
    assert np.allclose(table["pos"][:3], first.pos)
    assert np.allclose(table["forces"][:3], first.forces)
    assert table["energy"][0] == -2081.5
    assert table["z"][:3].tolist() == Z.tolist()
    assert first.info["config_type"] == "DES370K Monomers"
    validation = {
        name
        for name in table["names"].tolist()
        if draw(identity_of(name.decode())) < 0.05 and not name.startswith(b"test")
    }
    assert validation == {
        table["names"][i] for i in table["molecule"][table["split"] == SPLITS.index("validation")]
    }
    assert "published test file" in card["split_rule"]
    assert len(mace_off().load().train) == sizes["train"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0 0\n",
            "ends inside the frame that starts at line 1",
        ),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0\n",
            "the frame at line 1",
        ),
        ("1\nProperties=species:S:1:pos:R:3 energy=1\nO 0 0 0\n", "forces"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3\nO 0 0 0 0 0 0\n", "energy"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nQq 0 0 0 0 0 0\n", "Qq"),
        ("hello\n", "line 1"),
        (
            "3\nProperties=species:S:1:pos:R:2:forces:R:3 energy=1\n" + 3 * "O 0 0 0 0 0 0\n",
            "three numbers an atom",
        ),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1 charge=x\nO 0 0 0 0 0 0\n",
            "line 1",
        ),
        ("-1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\n", "has no atoms"),
        (
            "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nXx 0 0 0 0 0 0\n",
            "line 1 of .* has 'Xx' for an element, and the task knows the first 99",
        ),
        ("9" * 30 + "\nx\nO 0 0 0 0 0 0\n", "ends inside the frame that starts at line 1"),
    ],
)
def test_a_broken_extended_xyz_file_is_named_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(FailedError, match=complaint):
        list(frames(path))


TEXT = (
    '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 smiles="[H][H]" pbc="F F F"\n'
    "H 0 0 0 0.5 0 0\nH 0 0 0.74 -0.5 0 0\n"
)


@given(
    places=st.lists(st.integers(0, len(TEXT)), min_size=1, max_size=6),
    pieces=st.lists(
        st.sampled_from(["\n", " ", "9", "-", '"', "=", ":", "nan", "\x00", "\xff", ""]),
        min_size=1,
        max_size=6,
    ),
)
def test_a_damaged_xyz_file_gives_frames_or_a_sentence(
    places: list[int], pieces: list[str]
) -> None:
    text = TEXT
    for place, piece in zip(places, pieces, strict=False):
        text = text[:place] + piece + text[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "some.xyz")
        path.write_bytes(text.encode("latin-1"))
        try:
            found = list(frames(path))
        except FailedError as error:
            assert "some.xyz" in str(error)  # noqa: PT017
        else:
            assert all(
                frame.pos.shape == frame.forces.shape == (len(frame.z), 3) for frame in found
            )


def test_a_frame_in_the_middle_that_is_broken_is_found_by_its_line(tmp_path: Path) -> None:
    good = "1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\nO 0 0 0 0 0 0\n"
    path = tmp_path / "broken.xyz"
    path.write_text(good + "\n" + good + good.replace("O 0", "O zero"))
    with pytest.raises(FailedError, match="line 8"):
        list(frames(path))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("periodic.xyz", "the frame at line 1 of .* is periodic, and these data are of molecules"),
        ("count_far_too_large.xyz", "ends inside the frame that starts at line 1"),
        ("no_atoms.xyz", "the frame at line 1 of .* has no atoms"),
    ],
)
def test_a_frame_that_is_no_molecule_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(FailedError, match=complaint):
        list(frames(INPUTS / name))


@pytest.mark.parametrize(
    ("cell", "periodic"),
    [
        ("", False),
        (' pbc="F F F"', False),
        (' Lattice="5 0 0 0 5 0 0 0 5" pbc="F F F"', False),
        (' Lattice="5 0 0 0 5 0 0 0 5"', True),
        (' pbc="F F T"', True),
        (" pbc='True False False'", True),
    ],
)
def test_a_cell_is_periodic_unless_it_says_that_it_is_not(
    tmp_path: Path, cell: str, periodic: bool
) -> None:
    text = f"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1{cell}\nO 0 0 0 0 0 0\n"
    # A byte-order mark is no part of the count.
    (tmp_path / "one.xyz").write_text(text, encoding="utf-8-sig")
    if periodic:
        with pytest.raises(FailedError, match="is periodic"):
            list(frames(tmp_path / "one.xyz"))
    else:
        assert len(list(frames(tmp_path / "one.xyz"))) == 1


def test_a_header_that_is_one_long_word_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "long.xyz").write_text("1\n" + 100_000 * "a" + "\nH 0 0 0 0 0 0\n")
    start = time.process_time()
    with pytest.raises(FailedError, match="is not extended XYZ"):
        list(frames(tmp_path / "long.xyz"))
    # Read again from each of its letters it takes two minutes.
    assert time.process_time() - start < 10


def test_charged_frames_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mace_off(tmp_path)
    file = tmp_path / "test_large_neut_all.xyz"
    text = file.read_text().replace("total_charge=0", "total_charge=-1", 2)
    file.write_text(text.replace("[H:3].test_4", "[H+:3].test_4"))
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    with pytest.warns(EquivbenchWarning, match="4 conformations left out .4 of charged"):
        path = mace_off().prepare()
    table, card = LAYOUT.read(path)
    assert table.sizes()["test"] == 6
    assert card["recipe"]["conformations left out"] == {"of charged molecules": 4}


@pytest.mark.parametrize("revised", [False, True])
def test_md17_comes_through_torch_geometric_split_by_conformation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revised: bool
) -> None:
    generator = np.random.default_rng(2)
    pos = WATER + generator.uniform(-0.1, 0.1, (2100, 3, 3))
    forces = generator.standard_normal((2100, 3, 3))
    energy = generator.standard_normal(2100) - 400
    if revised:
        raw = tmp_path / "raw" / "rmd17" / "npz_data" / "rmd17_aspirin.npz"
        arrays = {"nuclear_charges": Z, "coords": pos, "energies": energy, "forces": forces}
    else:
        raw = tmp_path / "aspirin" / "raw" / "md17_aspirin.npz"
        arrays = {"z": Z, "R": pos, "E": energy[:, None], "F": forces}
    raw.parent.mkdir(parents=True)
    np.savez(raw, **arrays)
    monkeypatch.setenv("EQUIVBENCH_DATA_MD17", str(tmp_path))
    source = md17("aspirin", "r" if revised else "")
    table, card = LAYOUT.read(source.prepare())
    assert table.sizes() == sources.MD17_SIZES
    assert len(set(table["molecule"].tolist())) == 2000
    assert "by conformation" in card["split_rule"]
    index = int(table["names"][table["molecule"][5]].split()[-1])
    assert np.allclose(table["forces"][15:18], forces[index] * KCAL_EV, rtol=1e-6, atol=1e-7)
    # torch_geometric keeps energies in float32: 3e-5 kcal/mol at 400 kcal/mol.
    assert table["energy"][5] == pytest.approx(energy[index] * KCAL_EV, abs=3e-6)


@pytest.mark.parametrize("source", [spice, mace_off])
def test_a_set_that_the_user_lacks_says_where_to_name_it(source: object) -> None:
    with pytest.raises(FailedError, match="EQUIVBENCH_DATA_"):
        source().prepare()  # type: ignore[operator]


@pytest.mark.parametrize("source", [spice, mace_off])
def test_a_folder_in_the_place_of_a_file_is_said_to_be_one(
    source: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPICE.hdf5", "train_large_neut_no_bad_clean.xyz"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("EQUIVBENCH_DATA_SPICE", str(tmp_path / "SPICE.hdf5"))
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    with pytest.raises(FailedError, match="is no file; set EQUIVBENCH_DATA_"):
        source().prepare()  # type: ignore[operator]


def test_a_prepared_set_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mace_off(tmp_path)
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    before = read_card(mace_off().prepare())
    (tmp_path / "test_large_neut_all.xyz").unlink()
    assert read_card(mace_off().prepare()) == before


def test_a_source_that_has_changed_is_noticed_and_converted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mace_off(tmp_path)
    monkeypatch.setenv("EQUIVBENCH_DATA_MACE_OFF", str(tmp_path))
    before = read_card(mace_off().prepare())
    file = tmp_path / "test_large_neut_all.xyz"
    # A new date alone is no change.
    later = mace_off().path().with_suffix(".json").stat().st_mtime + 10
    os.utime(file, (later, later))
    mace_off().load()
    assert mace_off().verify() == before["sha256"]
    # Of the same size, as a corrected number is.
    file.write_text(file.read_text().replace("energy=-2081.5", "energy=-2081.6"))
    os.utime(file, (later, later))
    with pytest.warns(EquivbenchWarning, match="test_large_neut_all.xyz changed since mace-off"):
        mace_off().load()
    with pytest.raises(FailedError, match="run `equivbench data prepare mace-off`"):
        mace_off().verify()
    after = read_card(mace_off().prepare())
    assert after["sha256"] != before["sha256"]
    assert mace_off().verify() == after["sha256"]
